"""MemoryData: examples from arrays that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.arrays import numbers
from layerkit.backends import cuda, philox
from layerkit.backends.base import Array
from layerkit.data.order import epoch_order, passages
from layerkit.layer import Shape
from layerkit.layers.data import Augmentation, Data, Scale, readable
from layerkit.settings import Count, Flag, Tops

SHARE = 0.5  # of the GPU's free memory, up to which a data set is kept there


class MemoryData(Data):
    """Serves examples from arrays in memory; on a GPU they are resident there.

    The layer keeps a copy of what it is given; only an array that is a file on disk, mapped to
    memory for reading (`np.load(path, mmap_mode="r")`), stays there.

    Args:
        data: an array (count, ...), or a list of arrays of equal length, one for each top.
        tops: names of the tops, by default the layer's name.
        shuffle: a new order in each epoch, default True.
        augment: "dihedral" turns and mirrors each image of the first array at random, by one of
            the eight symmetries of the square.
        scale: factor for the first array, for example 1/255 for uint8 images.
        repeat: how often each example is served before the next, default 1.  Each time it is
            turned anew and gets noise of its own: the objective averages over so many samples.

    Attributes:
        count: how many rows an epoch has, repeated ones too.
    """

    shared = ("arrays",)  # which nothing changes

    def __init__(
        self, name: str, *, data: Any, tops: Tops | None = None, shuffle: Flag = True,
        augment: Augmentation = None, scale: Scale = 1.0, repeat: Count = 1,
    ):
        super().__init__(name, tops, shuffle, augment, scale)
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
        self.order: tuple[tuple[int, int], Array] | None = None

    def example_shapes(self) -> list[Shape]:
        """All axes but the first."""
        if self.run.device is None:
            self.resident = [self.backend.asarray(a) for a in self.arrays]
        return [a.shape[1:] for a in self.arrays]

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """As any data layer; moves the arrays to the GPU if they fit."""
        if self.run.device is not None:
            free, _ = self.xp.cuda.runtime.memGetInfo()
            if sum(a.nbytes for a in self.arrays) <= SHARE * free and self.count < 2**32:
                self.resident = [self.xp.asarray(a, readable(a.dtype)) for a in self.arrays]
                slots = -(-self.run.batch_size // self.count) + 1
                self._orders = self.xp.zeros((slots, self.count // self.repeat), "uint64")
                self._in_order: list[Any] = [None] * slots
        tops = super().setup(shapes)
        if self.resident is not None:
            self.check(self.arrays)  # all at once
        return tops

    def check(self, arrays: Sequence[Array]) -> None:
        """As any data layer, but once; a net's resident arrays never change."""
        if not self._checked:
            super().check(arrays)
            self._checked = self.resident is not None

    _checked = False

    def rows(self, epoch: int, start: int, stop: int) -> Array:
        """Numbers of the rows that make up this stretch of an epoch."""
        if self.order is None or self.order[0] != (self.run.seed, epoch):
            count = self.count // self.repeat
            order = epoch_order(count, self.run.seed, self.stream, epoch, self.shuffle)
            self.order = (self.run.seed, epoch), self.backend.asarray(order)
        return self.order[1][self.xp.arange(start, stop) // self.repeat]

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Rows gathered on the device."""
        if self.resident is None:
            return [self.backend.asarray(a) for a in self.host(epoch, start, stop)]
        index = self.rows(epoch, start, stop)
        return [a[index] for a in self.resident]

    # With CUDA.

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Rows of the arrays."""
        if self._host_order is None or self._host_order[0] != (self.run.seed, epoch):
            count = self.count // self.repeat
            order = epoch_order(count, self.run.seed, self.stream, epoch, self.shuffle)
            self._host_order = (self.run.seed, epoch), order
        index = self._host_order[1][np.arange(start, stop) // self.repeat]
        return [a[index] for a in self.arrays]

    _host_order: Any = None

    def dtypes(self) -> list[np.dtype]:
        """Those of the arrays."""
        return [a.dtype for a in self.arrays]

    def prepare(self) -> None:
        """Sorts the orders of the epochs that the next batch touches, on the GPU."""
        super().prepare()
        if self.resident is None:
            return
        device = self.run.device
        assert device is not None
        for epoch, _, _ in passages(self.position, self.run.batch_size, self.count):
            slot, known = epoch % len(self._in_order), (self.run.seed, epoch)
            if self._in_order[slot] != known:
                keys = self.xp.empty(self._orders.shape[1], "uint64")
                device.launch(
                    ORDER, "order_keys", device.blocks(-(-keys.size // 4)), keys.size,
                    *philox.keys(self.run.seed, self.stream), epoch, int(self.shuffle), keys,
                )
                keys.sort()
                self._orders[slot] = keys
                self._in_order[slot] = known

    def orders(self) -> Array:
        """A row for each epoch that a batch can touch."""
        return self._orders


def _own(array: np.ndarray, given: Any) -> np.ndarray:
    """A copy, unless the array lies in a file that is mapped for reading only."""
    mapped = isinstance(given, np.memmap) and not given.flags.writeable
    return array if mapped and np.may_share_memory(array, given) else np.array(array, order="C")


# CUDA.

ORDER = cuda.source(philox.CUDA + r"""
// A random word above the number of each row: sorting these puts the rows in random order, those of
// equal words in their own.
KERNEL order_keys(i64 count, u64 seed, u32 stream, i64 epoch, i64 shuffle, u64* keys)
{
    i64 block = place();
    if (4 * block >= count) return;
    u32 words[4];
    philox_block((u32)block, seed, stream, (u64)epoch, words);
    for (i64 k = 0; k < 4 && 4 * block + k < count; ++k)
        keys[4 * block + k] = (shuffle ? (u64)words[k] << 32 : 0) | (u64)(4 * block + k);
}
""")
