"""Baselines to compare a model with: Gaussian and Sersic profiles, and PCA."""
