"""Reshape: the bottom's numbers in another shape."""

from __future__ import annotations

import math
from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Sizes, Tops


class Reshape(Layer):
    """Change of each example's shape that keeps its elements, in row-major order.

    Args:
        shape: the new shape of one example; one axis may be -1, to be worked out.
    """

    recordable = True
    decided = (*Layer.decided, "shape")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        shape: Annotated[Shape, Sizes(unknown=True)],
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Work out -1, and check the number of elements; declare no parameters."""
        size, known = math.prod(shapes[0]), math.prod(s for s in self.shape if s != -1)
        unknown = self.shape.count(-1)
        fits = size % known == 0 if unknown else size == known
        if unknown > 1 or not fits:
            self.fail(f"cannot give {size} elements {shapes[0]} the shape {self.shape}")
        return [tuple(size // known if s == -1 else s for s in self.shape)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        tops[0].data[...] = bottoms[0].data.reshape(tops[0].data.shape)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff back."""
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = tops[0].diff.reshape(bottoms[0].data.shape)
