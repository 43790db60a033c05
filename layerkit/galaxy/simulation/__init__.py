"""Simulation: galaxies of a model in the hands of other programs."""
