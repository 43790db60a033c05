"""Slice: a blob cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Sizes, Tops


class Slice(Layer):
    """Pieces of the bottom along the first axis of an example, one for each top.

    Shapes: bottom (n, d, ...); tops (n, sizes[0], ...), (n, sizes[1], ...), ...

    Args:
        tops: names of the pieces, required.
        sizes: length of each piece; default: equal pieces.
    """

    recordable = True
    decided = (*Layer.decided, "sizes")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        tops: Tops,
        sizes: Annotated[Sequence[int], Sizes()] | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.sizes = sizes

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the sizes add up; declare no parameters."""
        if not shapes[0]:
            self.fail("its bottom has one number per example: there is nothing to slice")
        length, pieces = shapes[0][0], len(self.tops)
        sizes = list(self.sizes) if self.sizes else [length // pieces] * pieces
        if length < pieces or len(sizes) != pieces or sum(sizes) != length:
            self.fail(f"cannot cut {length} into {pieces} tops of sizes {sizes}")
        starts = [sum(sizes[:i]) for i in range(pieces)]
        self.spans = [slice(a, a + size) for a, size in zip(starts, sizes, strict=True)]
        return [(size, *shapes[0][1:]) for size in sizes]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece of the bottom to its top."""
        for span, top in zip(self.spans, tops, strict=True):
            top.data[...] = bottoms[0].data[:, span]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each top's diff to its piece of the bottom's."""
        if bottoms[0].diff is not None:
            for span, top in zip(self.spans, tops, strict=True):
                bottoms[0].diff[:, span] = top.diff
