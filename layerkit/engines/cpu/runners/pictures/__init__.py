"""Runners of layers of pictures."""
