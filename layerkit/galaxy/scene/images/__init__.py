"""Fields read from files, their background and noise, their PSF, and the sources seen in them."""
