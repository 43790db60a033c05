"""Training sets: prepared in parallel, reused while nothing has changed, and drawn for a look."""
