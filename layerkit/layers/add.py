"""Add: the sum of blobs."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops


class Add(Layer):
    """Elementwise sum y = x1 + x2 + ... of bottoms of one shape."""

    def __init__(self, name: str, *bottoms: str, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the shapes are equal; declare no parameters."""
        if len(set(shapes)) != 1:
            self.fail(f"bottoms must have one shape, got {shapes}")
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x1 + x2 + ..."""
        y = tops[0].data
        y[...] = bottoms[0].data
        for bottom in bottoms[1:]:
            y += bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                bottom.diff[...] = tops[0].diff
