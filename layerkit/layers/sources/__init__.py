"""Layers that bring values into a net: inputs and data."""
