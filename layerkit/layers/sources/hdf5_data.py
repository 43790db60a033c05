"""HDF5Data: examples from a file that need not fit in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from layerkit.backends.base import Array
from layerkit.data.order import epoch_order
from layerkit.errors import DataError
from layerkit.layer import Shape
from layerkit.layers.sources.data import NUMBERS, Augmentation, Data, Scale
from layerkit.saving import hdf5
from layerkit.settings import Count, FilePath, Flag, Names, Tops

if TYPE_CHECKING:
    import h5py


class HDF5Data(Data):
    """Source of examples from data sets of an HDF5 file, one for each top.

    The file is read in blocks of neighbouring rows, which is fast on any disk.  Shuffling takes the
    blocks in random order and mixes the rows of `mixed` of them in memory, so an epoch is close
    to, but not quite, a random permutation; `block * mixed` rows are in memory at a time.

    The data sets must hold plain numbers and lie in the file itself, reached without links:
    contiguous, or in chunks, with gzip, lzf, or another of HDF5's own filters.

    Args:
        path: the file.
        datasets: name of a data set (count, ...), or a list of names, of equal length.
        tops: names of the tops, by default the layer's name.
        shuffle: True, the default, for a new order in each epoch.
        augment, scale: for the first data set; see MemoryData.
        block: rows read at once, default 256.
        mixed: blocks mixed in memory, default 16.

    Raises:
        DataError: a file or data set that is missing, cannot be read, claims more than the file
            can hold, or lies in other files.
    """

    decided = (*Data.decided, "path", "datasets", "block", "mixed")

    def __init__(
        self,
        name: str,
        *,
        path: Annotated[str | os.PathLike[str], FilePath()],
        datasets: Annotated[str | list[str] | tuple[str, ...], Names()] = "images",
        tops: Tops | None = None,
        shuffle: Flag = True,
        augment: Augmentation = None,
        scale: Scale = 1.0,
        block: Count = 256,
        mixed: Count = 16,
    ):
        super().__init__(name, tops, shuffle, augment, scale)
        self.path = Path(path).absolute()  # it is opened later, perhaps from elsewhere
        self.block, self.mixed = block, mixed
        self.datasets = [datasets] if isinstance(datasets, str) else list(datasets)

    def example_shapes(self) -> list[Shape]:
        """Open the file; return all axes but the first."""
        self.file = hdf5.open_unsealed(self.path, self._error)
        self.sets = [self._open(name) for name in self.datasets]
        lengths = {s.shape[0] if s.shape else 0 for s in self.sets}
        if len(lengths) != 1 or 0 in lengths:
            raise self._error(f"data sets must have equal, non-zero lengths, got {sorted(lengths)}")
        self.count = lengths.pop()
        self.block = min(self.block, self.count)
        self.plan: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None
        self.loaded: tuple[tuple[int, int, int], list[np.ndarray]] | None = None
        return [s.shape[1:] for s in self.sets]

    def _open(self, name: str) -> h5py.Dataset:
        """Find one of the data sets, and check it before anything in it is read."""
        parts = [part for part in name.split("/") if part]
        if not parts or not self.file.is_dataset(*parts):
            group = parts[:1] if parts and self.file.is_group(parts[0]) else []
            names = ["/".join([*group, n]) for n in self.file.names(*group)] or self.file.names()
            there = ", ".join(map(repr, names)) or "nothing"
            raise self._error(f"{self.path} has no data set {name!r}; it has {there}")
        return self.file.dataset(*parts, kinds=NUMBERS)

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Return the rows of this stretch of the epoch, on the backend."""
        return [self.backend.asarray(a) for a in self.host(epoch, start, stop)]

    def dtypes(self) -> list[np.dtype]:
        """Return the dtypes of the data sets."""
        return [s.dtype for s in self.sets]

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return rows from the groups of blocks that hold this stretch, as NumPy arrays."""
        key = (self.run.seed, epoch)
        if self.plan is None or self.plan[0] != key:
            blocks = -(-self.count // self.block)
            order = epoch_order(blocks, self.run.seed, self.stream, epoch, self.shuffle)
            sizes = np.minimum(self.block, self.count - order * self.block)
            group_sizes = np.add.reduceat(sizes, np.arange(0, blocks, self.mixed))
            self.plan = key, order, np.concatenate([[0], np.cumsum(group_sizes)])
        bounds = self.plan[2]
        pieces = []
        while start < stop:
            group = int(np.searchsorted(bounds, start, side="right")) - 1
            end = min(stop, int(bounds[group + 1]))
            span = slice(start - int(bounds[group]), end - int(bounds[group]))
            pieces.append([a[span] for a in self._group(epoch, group)])
            start = end
        return [np.concatenate(p) for p in zip(*pieces, strict=True)]

    def _group(self, epoch: int, group: int) -> list[np.ndarray]:
        """Return the mixed rows of one group of blocks, read once."""
        key = (self.run.seed, epoch, group)
        if self.loaded is None or self.loaded[0] != key:
            assert self.plan is not None
            blocks = self.plan[1][group * self.mixed : (group + 1) * self.mixed]
            starts = [int(b) * self.block for b in blocks]
            arrays = []
            for name, dataset in zip(self.datasets, self.sets, strict=True):
                with self.file.watching(repr(name)):
                    ends = [min(a + self.block, self.count) for a in starts]
                    rows = [dataset[a:b] for a, b in zip(starts, ends, strict=True)]
                    arrays.append(np.concatenate(rows))
            stream = self.stream ^ (group + 1)  # another order for each group
            mix = epoch_order(len(arrays[0]), self.run.seed, stream, epoch, self.shuffle)
            self.loaded = key, [a[mix] for a in arrays]
        return self.loaded[1]

    def _error(self, message: str) -> DataError:
        return DataError(f"layer {self.name!r} (HDF5Data): {message}")
