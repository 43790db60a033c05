"""Training: from pictures to a trained and evaluated model in a folder of its own."""
