"""Layers of pictures: convolutions, pooling, and poses."""
