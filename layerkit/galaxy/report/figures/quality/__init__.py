"""Figures that show how good a model is."""
