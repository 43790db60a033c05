"""Concat: blobs joined end to end."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops


class Concat(Layer):
    """Concatenation of the bottoms along the first axis of an example: the inverse of Slice.

    Shapes: bottoms (n, d1, ...), (n, d2, ...), ...; top (n, d1 + d2 + ..., ...).
    """

    recordable = True

    def __init__(self, name: str, *bottoms: str, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that all axes but the first agree; declare no parameters."""
        if any(not s or s[1:] != shapes[0][1:] for s in shapes):
            self.fail(f"bottoms must agree in all axes but the first, got {shapes}")
        starts = [sum(s[0] for s in shapes[:i]) for i in range(len(shapes))]
        self.spans = [slice(a, a + s[0]) for a, s in zip(starts, shapes, strict=True)]
        return [(sum(s[0] for s in shapes), *shapes[0][1:])]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each bottom to its piece of the top."""
        for span, bottom in zip(self.spans, bottoms, strict=True):
            tops[0].data[:, span] = bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece of the top's diff to its bottom's."""
        for span, bottom in zip(self.spans, bottoms, strict=True):
            if bottom.diff is not None:
                bottom.diff[...] = tops[0].diff[:, span]
