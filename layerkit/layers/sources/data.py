"""Data: the base class of layers that bring their own data."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.arrays import NUMBERS, check_exact, keeps_axes, narrowed
from layerkit.data.augment import dihedral, dihedral_table
from layerkit.data.order import passages
from layerkit.layer import Layer, Shape
from layerkit.run import Run
from layerkit.settings import Choice, Flag, Number, Tops, Whole

__all__ = ["NUMBERS", "Augmentation", "Data", "Scale"]

Augmentation = Annotated[str | None, Choice(None, "dihedral")]
Scale = Annotated[float, Number(zero=False)]


class Data(Layer):
    """Source of examples from arrays of equal length, one top for each array, epoch after epoch.

    In training batches are always full: one that reaches the end of an epoch continues in the next.
    In a net of phase "test" the order is that of the arrays, nothing is augmented, and a batch ends
    with the epoch: the last may have fewer rows, so an epoch serves each example once (or `repeat`
    times).  `Net.evaluate` runs through one epoch.

    Integers that are not scaled must keep their values in the net's floats: float32 is exact up to
    2^24, float64 up to 2^53.

    A subclass defines `example_shapes` and `fetch`; one that also defines `host` and `dtypes` can
    feed a training step that a GPU replays.

    Attributes:
        position: number of examples served so far; a snapshot stores it.
        count: number of examples in an epoch, each counted `repeat` times.
        shapes: shape of one example of each top; None stands for those of the arrays.
        own_shapes: shape of one example of each array, known after `setup`.
    """

    is_source = True
    decided = (*Layer.decided, "shapes", "own_shapes", "count", "repeat", "scale")
    repeat = 1
    position: Annotated[int, Whole(0, 2**62)]

    def __init__(
        self, name: str, tops: Tops | None, shuffle: Flag, augment: Augmentation, scale: Scale
    ):
        super().__init__(name, [], tops)
        self.shuffle, self.augment, self.scale = shuffle, augment, scale
        self.position = 0
        self.count = 0
        self.shapes: list[Shape] | None = None
        self.own_shapes: list[Shape] = []

    def example_shapes(self) -> list[Shape]:
        """Return the shape of one example of each array."""
        raise NotImplementedError

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Return examples start..stop of an epoch's order, from each array, on the backend."""
        raise NotImplementedError

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return the examples of `fetch` as NumPy arrays."""
        raise NotImplementedError

    def dtypes(self) -> list[np.dtype]:
        """Return the dtype of each array."""
        raise NotImplementedError

    @property
    def epoch(self) -> float:
        """The number of epochs served so far, with a fraction for the current one."""
        return self.position / self.count

    def attach(self, run: Run) -> Layer:
        """Return a copy for one net, which starts at the first example."""
        layer: Any = super().attach(run)
        layer.position = 0
        layer.shuffle = self.shuffle and run.training
        layer.augment = self.augment if run.training else None
        return layer

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check scale, arrays and shapes; return the shapes of the tops."""
        own = self.own_shapes = self.example_shapes()
        with np.errstate(over="ignore", under="ignore"):
            scale = self.run.dtype.type(self.scale)
        if not scale or not math.isfinite(scale):
            self.fail(f"scale is {self.scale:.3g}, which {self.run.dtype} rounds to {scale}")
        if len(own) != len(self.tops):
            self.fail(f"has {len(own)} arrays for {len(self.tops)} tops {self.tops}; name them all")
        if self.augment:
            self.table  # noqa: B018  # fails where there can be none
        for top, wanted, has in zip(self.tops, self.shapes or own, own, strict=True):
            if not keeps_axes(has, wanted):
                order = math.prod(wanted) == math.prod(has)
                self.fail(
                    f"examples of top {top!r} have shape {has}, but the net takes {wanted}"
                    + ("; the axes are in another order: transpose them" if order else "")
                )
        return self.shapes or own

    @functools.cached_property
    def table(self) -> Array:
        """The pixels of the eight symmetries of the first array's images, on the backend."""
        shape = self.own_shapes[0]
        if len(shape) < 2 or shape[-1] != shape[-2]:
            self.fail(f"augment='dihedral' needs square images, got examples {shape}")
        return self.backend.asarray(dihedral_table(shape[-1]))

    def check(self, arrays: Sequence[Array]) -> None:
        """Refuse numbers too large for the net's floats, and unscaled integers they cannot hold."""
        for i, (top, array) in enumerate(zip(self.tops, arrays, strict=True)):
            what = f"layer {self.name!r} ({type(self).__name__}): top {top!r}"
            if i or self.scale == 1:
                check_exact(array, self.run.dtype, what)
            if isinstance(array, np.ndarray):
                for start in range(0, len(array), 1024):
                    narrowed(array[start : start + 1024], self.run.dtype, what)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fill the tops with the next examples."""
        rows = len(tops[0].data)
        if self.augment:
            bits = philox.bits(self.xp, rows, self.run.seed, self.stream, self.run.passes)
            which = (bits & self.xp.uint64(7)).astype("int64")
        filled = 0
        for epoch, start, stop in passages(self.position, rows, self.count):
            span = slice(filled, filled + stop - start)
            arrays = self.fetch(epoch, start, stop)
            self.check(arrays)
            for top, array in zip(tops, arrays, strict=True):
                if self.augment and top is tops[0]:
                    array = dihedral(self.xp, array, self.table, which[span])
                top.data[span] = array.reshape(top.data[span].shape)
            filled += stop - start
        if self.scale != 1:
            tops[0].data[...] *= self.scale
        self.position += rows

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: data depend on nothing."""
