"""MemoryData: examples from arrays that fit in memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.data.arrays import numbers
from layerkit.data.order import sample_rows
from layerkit.layer import Shape
from layerkit.layers.sources.data import Augmentation, Crop, Data, Depth, Deviation, Mean, Scale
from layerkit.settings import Count, Flag, Tops


class MemoryData(Data):
    """Source of examples from arrays in memory; in a net on a GPU they are resident there.

    The layer copies the arrays it is given, except one that is a file on disk, mapped to memory for
    reading (`np.load(path, mmap_mode="r")`), which stays there.

    Shapes: no bottom; a top (n, ...) for each array, cropped if that is asked for.

    Args:
        data: an array (count, ...), or a list of arrays of equal length, one for each top.
        tops: names of the tops, by default the layer's name.
        shuffle: True, the default, for a new order in each epoch.
        augment, scale, mean, deviation, crop, mirror, prefetch: for the first array; see Data, the
            base class.  Compiled code does the first two alone.
        integers: a top, or a list of tops, that hold integers; see Data.  None is the default.
        repeat: how many times each example is served before the next, default 1.  Each time it
            is augmented anew and gets its own noise: the objective averages that many samples.

    Attributes:
        count: number of rows in an epoch, repeated ones included.

    Raises:
        NetError: arrays without rows or numbers, or of different lengths, or numbers that the net's
            floats cannot hold.

    Source: Mocha's MemoryDataLayer.
    """

    decided = (*Data.decided, "arrays")
    shared = ("arrays",)  # nothing changes them

    def __init__(
        self,
        name: str,
        *,
        data: Any,
        tops: Tops | None = None,
        shuffle: Flag = True,
        augment: Augmentation = None,
        scale: Scale = 1.0,
        mean: Mean = None,
        deviation: Deviation = None,
        crop: Crop = None,
        mirror: Flag = False,
        repeat: Count = 1,
        prefetch: Depth = 0,
        integers: Tops | None = None,
    ):
        super().__init__(
            name, tops, shuffle, augment, scale, mean, deviation, crop, mirror, prefetch, integers
        )
        several = data if isinstance(data, list | tuple) else [data]
        what = f"layer {name!r} (MemoryData): array"
        self.arrays = tuple(_own(numbers(a, f"{what} {i}"), a) for i, a in enumerate(several))
        lengths = {len(a) if a.ndim else 0 for a in self.arrays}
        if len(lengths) != 1 or 0 in lengths:
            self.fail(f"arrays must have equal, non-zero lengths, got {sorted(lengths)}")
        empty = next((i for i, a in enumerate(self.arrays) if not a.size), None)
        if empty is not None:
            self.fail(f"array {empty} has no numbers: its shape is {self.arrays[empty].shape}")
        self.repeat = repeat
        self.count = lengths.pop() * repeat

    def example_shapes(self) -> list[Shape]:
        """Return all axes but the first."""
        return [a.shape[1:] for a in self.arrays]

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Set up as any data layer does, and check the arrays, all at once."""
        tops = super().setup(shapes)
        super().check(self.arrays)
        return tops

    def check(self, arrays: Sequence[Array]) -> None:
        """Do nothing: the arrays have been checked, and nothing changes them."""

    @functools.cached_property
    def resident(self) -> list[Array]:
        """The arrays on the backend."""
        return [self.backend.asarray(a) for a in self.arrays]

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Return rows gathered on the backend."""
        index = self.backend.asarray(self.rows(epoch, start, stop))
        return [a[index] for a in self.resident]

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return rows gathered as NumPy arrays."""
        index = self.rows(epoch, start, stop)
        return [a[index] for a in self.arrays]

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return rows of the first array."""
        return self.arrays[0][start:stop]

    def dtypes(self) -> list[np.dtype]:
        """Return the dtypes of the arrays."""
        return [a.dtype for a in self.arrays]

    def signature(self) -> list[Any]:
        """Return some rows of all arrays, too."""
        rows = sample_rows(len(self.arrays[0]))
        return [*super().signature(), *(a[rows] for a in self.arrays)]


def _own(array: np.ndarray, given: Any) -> np.ndarray:
    """Return a copy, or the array itself if it is a file mapped for reading only."""
    mapped = isinstance(given, np.memmap) and not given.flags.writeable
    return array if mapped and np.may_share_memory(array, given) else np.array(array, order="C")
