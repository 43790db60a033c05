"""Results of a field: its catalogue, its model image and residual, and a page about it."""
