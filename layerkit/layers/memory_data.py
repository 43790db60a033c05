"""MemoryData: examples from arrays that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.data.order import epoch_order
from layerkit.layer import Shape
from layerkit.layers.data import NUMBERS, Data


class MemoryData(Data):
    """Serves examples from arrays in memory; on a GPU they are resident there.

    Args:
        data: an array (count, ...), or a list of arrays of equal length, one for each top.
        tops: names of the tops, by default the layer's name.
        shuffle: a new order in each epoch, default True.
        augment: "dihedral" turns and mirrors each image of the first array at random, by one of
            the eight symmetries of the square.
        scale: factor for the first array, for example 1/255 for uint8 images.
    """

    def __init__(
        self, name: str, *, data: Any, tops: Sequence[str] | str | None = None,
        shuffle: bool = True, augment: str | None = None, scale: float = 1.0,
    ):
        super().__init__(name, tops, shuffle, augment, scale)
        self.arrays = [np.asarray(a) for a in (data if isinstance(data, list | tuple) else [data])]
        for a in self.arrays:
            if a.dtype.kind not in NUMBERS:
                self.fail(f"arrays must hold numbers, got dtype {a.dtype}")
        lengths = {len(a) if a.ndim else 0 for a in self.arrays}
        if len(lengths) != 1 or 0 in lengths:
            self.fail(f"arrays must have equal, non-zero lengths, got {sorted(lengths)}")
        self.count = lengths.pop()
        self.order: tuple[tuple[int, int], Array] | None = None

    def example_shapes(self) -> list[Shape]:
        """All axes but the first."""
        self.resident = [self.backend.asarray(a) for a in self.arrays]
        return [a.shape[1:] for a in self.arrays]

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Rows gathered on the device."""
        if self.order is None or self.order[0] != (self.run.seed, epoch):
            order = epoch_order(self.count, self.run.seed, self.stream, epoch, self.shuffle)
            self.order = (self.run.seed, epoch), self.backend.asarray(order)
        index = self.order[1][start:stop]
        return [a[index] for a in self.resident]
