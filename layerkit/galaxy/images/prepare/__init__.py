"""Sets of prepared galaxies: made in parallel, written, read and looked at."""
