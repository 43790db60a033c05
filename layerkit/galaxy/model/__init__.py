"""The learned model: posteriors, bounds, and drawn galaxies."""
