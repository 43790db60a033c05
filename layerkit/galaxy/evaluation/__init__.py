"""Evaluation of a model on galaxies that training never saw: bounds, wins, noise, morphology."""
