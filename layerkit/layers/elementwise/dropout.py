"""Dropout: units left out at random."""

from __future__ import annotations

from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Number, Tops


class Dropout(Layer):
    """Dropout y = x * mask / (1 - ratio) in training; y = x in phase "test" and in `infer`.

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        ratio: fraction of elements set to zero, in [0, 1), default 0.5.

    Source: Srivastava et al. (2014), scaled while training ("inverted dropout").
    """

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        ratio: Annotated[float, Number(least=0, below=1)] = 0.5,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.ratio = ratio

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Return the bottom's shape for the top; declare no parameters."""
        self.mask = self.buffer(shapes[0])
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x * mask, with a mask of 0 and 1 / (1 - ratio)."""
        mask = self.mask.data
        if self.run.training:
            mask[...] = self.uniform(mask.shape) >= self.ratio
            mask *= 1 / (1 - self.ratio)
        else:
            mask.fill(1)
        self.xp.multiply(bottoms[0].data, mask, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * mask."""
        if bottoms[0].diff is not None:
            self.xp.multiply(tops[0].diff, self.mask.data, out=bottoms[0].diff)
