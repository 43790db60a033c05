"""Shapes: blobs joined, cut, reshaped and with their axes in another order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import Axes, Axis, axis_of
from layerkit.settings import Sizes, Tops


class Pieces(Layer):
    """Base class of Concat and Slice: one long blob and several short ones, along an axis.

    Attributes:
        spans: the piece of the long blob that each short one is.
    """

    axis: Axis
    spans: list[slice]

    def along(self, array: Array) -> Array:
        """Return (n, ..., d, ...) as (n * ..., d, ...), where the axis that is cut is number 1."""
        return array.reshape(-1, *array.shape[self.axis + 1 :])


class Concat(Pieces):
    """Concatenation of the bottoms along an axis of an example: the inverse of Slice.

    Shapes: bottoms (n, d1, ...), (n, d2, ...), ...; top (n, d1 + d2 + ..., ...).

    Args:
        axis: which axis, without the batch axis, default 0; -1 is the last.

    Raises:
        NetError: bottoms that differ along another axis.

    Source: Caffe's Concat layer.
    """

    recordable = True
    keeps_integers = True
    decided = (*Layer.decided, "axis")

    def __init__(self, name: str, *bottoms: str, axis: Axis = 0, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")
        self.axis = axis

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that all axes but one agree; declare no parameters."""
        self.axis = axis = axis_of(self, self.axis, shapes[0], self.bottoms[0])
        rest = {(s[:axis], s[axis + 1 :], len(s)) for s in shapes}
        if len(rest) > 1:
            which = "the first" if axis == 0 else f"number {axis}"
            self.fail(f"bottoms must agree in all axes but {which}, got {shapes}")
        sizes = [s[axis] for s in shapes]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.spans = [slice(a, a + size) for a, size in zip(starts, sizes, strict=True)]
        return [(*shapes[0][:axis], sum(sizes), *shapes[0][axis + 1 :])]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each bottom to its piece of the top."""
        y = self.along(tops[0].data)
        for span, bottom in zip(self.spans, bottoms, strict=True):
            y[:, span] = self.along(bottom.data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece of the top's diff to its bottom's."""
        dy = self.along(tops[0].diff)
        for span, bottom in zip(self.spans, bottoms, strict=True):
            if bottom.diff is not None:
                self.along(bottom.diff)[...] = dy[:, span]


class Slice(Pieces):
    """Pieces of the bottom along an axis of an example, one for each top.

    Shapes: bottom (n, d, ...); tops (n, sizes[0], ...), (n, sizes[1], ...), ...

    Args:
        tops: names of the pieces, required.
        sizes: length of each piece; default: equal pieces.
        axis: which axis, without the batch axis, default 0; -1 is the last.

    Raises:
        NetError: sizes that do not add up to the bottom's.

    Source: Caffe's Slice layer.
    """

    recordable = True
    keeps_integers = True
    decided = (*Layer.decided, "axis", "sizes")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        tops: Tops,
        sizes: Annotated[Sequence[int], Sizes()] | None = None,
        axis: Axis = 0,
    ):
        super().__init__(name, [bottom], tops)
        self.sizes, self.axis = sizes, axis

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the sizes add up; declare no parameters."""
        if not shapes[0]:
            self.fail("its bottom has one number per example: there is nothing to slice")
        self.axis = axis = axis_of(self, self.axis, shapes[0], self.bottoms[0])
        length, pieces = shapes[0][axis], len(self.tops)
        sizes = list(self.sizes) if self.sizes else [length // pieces] * pieces
        if length < pieces or len(sizes) != pieces or sum(sizes) != length:
            self.fail(f"cannot cut {length} into {pieces} tops of sizes {sizes}")
        starts = [sum(sizes[:i]) for i in range(pieces)]
        self.spans = [slice(a, a + size) for a, size in zip(starts, sizes, strict=True)]
        return [(*shapes[0][:axis], size, *shapes[0][axis + 1 :]) for size in sizes]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece of the bottom to its top."""
        x = self.along(bottoms[0].data)
        for span, top in zip(self.spans, tops, strict=True):
            self.along(top.data)[...] = x[:, span]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each top's diff to its piece of the bottom's."""
        if bottoms[0].diff is not None:
            dx = self.along(bottoms[0].diff)
            for span, top in zip(self.spans, tops, strict=True):
                dx[:, span] = self.along(top.diff)


class Reshape(Layer):
    """Change of each example's shape that keeps its elements, in row-major order.

    Shapes: bottom (n, ...); top (n, *shape), with as many elements.

    Args:
        shape: the new shape of one example; one axis may be -1, to be worked out.

    Raises:
        NetError: a shape of another number of elements.

    Source: Caffe's Reshape layer.
    """

    recordable = True
    keeps_integers = True
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


class Permute(Layer):
    """Axes of an example in another order: y[i_order[0], i_order[1], ...] = x[i_0, i_1, ...].

    Shapes: bottom (n, d_0, d_1, ...); top (n, d_order[0], d_order[1], ...).

    Args:
        order: the bottom's axes, without the batch axis, in the order of the top's: (1, 2, 0)
            makes (height, width, channels) of (channels, height, width).  Negative numbers count
            from the last axis.

    Raises:
        NetError: an order that does not name every axis once.

    Source: `numpy.transpose`.
    """

    recordable = True
    keeps_integers = True
    decided = (*Layer.decided, "order")

    def __init__(self, name: str, bottom: str, *, order: Axes, tops: Tops | None = None):
        super().__init__(name, [bottom], tops)
        self.order = order

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the order names every axis once; declare no parameters."""
        shape = shapes[0]
        order = [axis_of(self, axis, shape, self.bottoms[0]) for axis in self.order]
        if sorted(order) != list(range(len(shape))):
            self.fail(
                f"order must name each of the {len(shape)} axes of {shape} once, got {self.order}"
            )
        axes = [0, *(axis + 1 for axis in order)]
        self._axes, self._back = tuple(axes), tuple(axes.index(i) for i in range(len(axes)))
        return [tuple(shape[axis] for axis in order)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data, with its axes in another order."""
        tops[0].data[...] = bottoms[0].data.transpose(self._axes)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff, with its axes in the bottom's order."""
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = tops[0].diff.transpose(self._back)
