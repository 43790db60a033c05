"""Pictures to galaxies: find the galaxy, cut it out and scale its pixel values."""
