"""Reduce: sums, means and maxima over axes of an example."""

from __future__ import annotations

import math
from typing import Annotated

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import Axes, axis_of
from layerkit.settings import Choice, Flag, Tops


class Reduce(Layer):
    """Sum, mean or maximum over some axes of an example.

    Shapes: bottom (n, ...); top without these axes, or with size 1 there.

    Args:
        mode: "sum" (default), "mean" or "max"; the gradient of a maximum goes to the first of
            several largest numbers.
        axes: an axis or a tuple of them, without the batch axis, negative ones counted from the
            last; the default, None, takes all axes and leaves one number per example.
        keep: True keeps the axes, with size 1, so that the top can be repeated along them by Add
            and its like; False by default.

    Raises:
        NetError: no such axis, or one that is named twice.

    Source: Caffe's Reduction layer, for any axes.
    """

    recordable = True
    decided = (*Layer.decided, "mode", "axes", "keep")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        mode: Annotated[str, Choice("sum", "mean", "max")] = "sum",
        axes: Axes | None = None,
        keep: Flag = False,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.mode, self.axes, self.keep = mode, axes, keep

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Find the axes; declare no parameters."""
        shape = shapes[0]
        axes = range(len(shape)) if self.axes is None else self.axes
        found = [axis_of(self, axis, shape, self.bottoms[0]) for axis in axes]
        if len(set(found)) < len(found) or not found:
            self.fail(f"axes must name at least one axis of {shape}, each once, got {self.axes}")
        kept = [axis for axis in range(len(shape)) if axis not in found]
        self._count = math.prod(shape[axis] for axis in found)
        self._order = (0, *(1 + axis for axis in kept), *(1 + axis for axis in sorted(found)))
        self._kept = tuple(shape[axis] for axis in kept)
        self._apart = (*self._kept, *(shape[axis] for axis in sorted(found)))
        if self.keep:
            return [tuple(1 if axis in found else size for axis, size in enumerate(shape))]
        return [self._kept]

    def _last(self, x: Array) -> Array:
        """Return (n, ...) as (n, *kept, count), a copy."""
        return x.transpose(self._order).reshape(len(x), *self._kept, self._count)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the sum, mean or maximum."""
        y = tops[0].data.reshape(-1, *self._kept)
        getattr(self.xp, self.mode)(self._last(bottoms[0].data), axis=-1, out=y)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy for a sum, dy / count for a mean, and dy at the first of the largest."""
        if bottoms[0].diff is None:
            return
        dy = tops[0].diff.reshape(-1, *self._kept, 1)
        if self.mode == "mean":
            dy = dy / self._count
        if self.mode == "max":
            x = self._last(bottoms[0].data)
            first = x.argmax(axis=-1)[..., None] == self.xp.arange(self._count)
            dy = self.xp.where(first, dy, 0)
        dx = bottoms[0].diff.transpose(self._order)
        shape = (len(dx), *self._kept, self._count)
        dx[...] = self.xp.broadcast_to(dy, shape).reshape(len(dx), *self._apart)
