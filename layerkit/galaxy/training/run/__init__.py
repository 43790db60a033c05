"""A training run: its galaxies, its net, and what watches it."""
