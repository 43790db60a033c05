"""Layers that act on each number: activations, arithmetic, noise."""
