"""Data: what the layers that bring their own data have in common."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.augment import dihedral, dihedral_table
from layerkit.data.order import passages
from layerkit.layer import Layer, Run, Shape

AUGMENTATIONS = (None, "dihedral")
NUMBERS = "biuf"  # kinds of dtype that can be served: truth values, integers, floats


class Data(Layer):
    """Serves examples from arrays of equal length, one top for each array, epoch after epoch.

    Batches are always full: one that reaches the end of an epoch goes on in the next.  In a net of
    phase "test" the order is that of the arrays and nothing is augmented.

    Attributes:
        position: how many examples have been served; a snapshot stores it.
        count: how many there are.
        shapes: shape of one example of each top; None takes that of the array.
    """

    is_source = True

    def __init__(
        self, name: str, tops: Sequence[str] | str | None, shuffle: bool, augment: str | None,
        scale: float,
    ):
        super().__init__(name, [], tops)
        if augment not in AUGMENTATIONS:
            self.fail(f"augment must be None or 'dihedral', got {augment!r}")
        self.shuffle, self.augment, self.scale = shuffle, augment, scale
        self.position = 0
        self.count = 0
        self.shapes: list[Shape] | None = None

    def example_shapes(self) -> list[Shape]:
        """Shape of one example of each array."""
        raise NotImplementedError

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Examples start..stop of an epoch's order, from each array, on the backend."""
        raise NotImplementedError

    @property
    def epoch(self) -> float:
        """How often the data set has been gone through."""
        return self.position / self.count

    @functools.cached_property
    def stream(self) -> int:
        """The stream of this layer's random order."""
        return philox.stream_of(self.name)

    def attach(self, run: Run) -> Layer:
        """A copy for one net; it starts at the beginning."""
        layer: Any = super().attach(run)
        layer.position = 0
        layer.shuffle = self.shuffle and run.training
        layer.augment = self.augment if run.training else None
        return layer

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """The tops have the shapes of the arrays' examples; no parameters."""
        own = self.example_shapes()
        if len(own) != len(self.tops):
            self.fail(f"has {len(own)} arrays for {len(self.tops)} tops {self.tops}; name them all")
        if self.augment:
            if len(own[0]) < 2 or own[0][-1] != own[0][-2]:
                self.fail(f"augment='dihedral' needs square images, got examples {own[0]}")
            self.table = self.backend.asarray(dihedral_table(own[0][-1]))
        for top, wanted, has in zip(self.tops, self.shapes or own, own, strict=True):
            if math.prod(wanted) != math.prod(has):
                self.fail(f"examples of top {top!r} have shape {has}, but the net takes {wanted}")
        return self.shapes or own

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fills the tops with the next examples."""
        rows = len(tops[0].data)
        if self.augment:
            bits = philox.bits(self.xp, rows, self.run.seed, self.stream, self.run.passes)
            which = (bits & self.xp.uint64(7)).astype("int64")
        filled = 0
        for epoch, start, stop in passages(self.position, rows, self.count):
            span = slice(filled, filled + stop - start)
            for top, array in zip(tops, self.fetch(epoch, start, stop), strict=True):
                if self.augment and top is tops[0]:
                    array = dihedral(self.xp, array, self.table, which[span])
                top.data[span] = array.reshape(top.data[span].shape)
            filled += stop - start
        if self.scale != 1:
            tops[0].data[...] *= self.scale
        self.position += rows

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Nothing: data do not depend on anything."""
