"""Normalise: numbers divided by their sum."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import Axes, axis_of
from layerkit.settings import Tops


class Normalise(Layer):
    """Share of each number in the sum over some axes: y = x / sum(x), so that each sum of y is 1.

    Behind Exponential or Softplus it makes any picture one of unit flux.

    Shapes: bottom (n, ...); top of the bottom's shape.

    Args:
        axes: an axis or a tuple of them, without the batch axis, negative ones counted from the
            last, such as (-2, -1) for each of several pictures by itself; the default, None, takes
            all numbers of an example.

    Raises:
        NetError: no such axis, or one that is named twice.
        DataError: a sum is 0 or not finite.

    Source: Regier et al., "Celeste: variational inference for a generative model of astronomical
    images" (2015), whose galaxies are a profile of unit flux times a flux.
    """

    decided = (*Layer.decided, "axes")

    def __init__(
        self, name: str, bottom: str, *, axes: Axes | None = None, tops: Tops | None = None
    ):
        super().__init__(name, [bottom], tops)
        self.axes = axes

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Find the axes; declare no parameters."""
        shape = shapes[0]
        axes = range(len(shape)) if self.axes is None else self.axes
        found = [axis_of(self, axis, shape, self.bottoms[0]) for axis in axes]
        if len(set(found)) < len(found) or not found:
            self.fail(f"axes must name at least one axis of {shape}, each once, got {self.axes}")
        self._summed = tuple(1 + axis for axis in found)
        return [shape]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a sum is 0 or not finite."""
        total = bottoms[0].data.sum(axis=self._summed)
        good = (total != 0) & self.xp.isfinite(total)
        good = good.reshape(len(total), -1).all(axis=1)
        if not bool(good.all()):
            raise DataError(
                f"{self.label()}: numbers in row {int(self.xp.argmin(good))} of "
                f"{bottoms[0].name!r} have a sum of 0, or one that is not finite, which cannot be "
                f"made 1; positive numbers, such as those of Exponential or Softplus, can"
            )

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x / sum(x)."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        x = bottoms[0].data
        self.xp.divide(x, x.sum(axis=self._summed, keepdims=True), out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = (dy - sum(dy y)) / sum(x)."""
        if bottoms[0].diff is not None:
            y, dy, dx = tops[0].data, tops[0].diff, bottoms[0].diff
            self.xp.subtract(dy, (dy * y).sum(axis=self._summed, keepdims=True), out=dx)
            dx /= bottoms[0].data.sum(axis=self._summed, keepdims=True)
