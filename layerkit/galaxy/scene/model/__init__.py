"""The model of a field: light of galaxies, sources on a canvas, and a Gaussian posterior."""
