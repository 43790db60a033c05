"""The population that a model draws: a prior fitted to galaxies, and noise that pixels share."""
