"""Layers that change shapes, or reduce axes."""
