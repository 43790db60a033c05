"""HDF5Data: examples from files that need not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np

from layerkit.data.order import epoch_order, sample_rows
from layerkit.data.prefetch import whole
from layerkit.layer import Shape
from layerkit.layers.sources.data import (
    NUMBERS,
    Augmentation,
    Crop,
    Data,
    Depth,
    Deviation,
    Mean,
    Scale,
)
from layerkit.saving import hdf5
from layerkit.saving.shards import shards_of
from layerkit.settings import Count, FilePaths, Flag, Names, Rule, Tops

if TYPE_CHECKING:
    import h5py

AnyPath: TypeAlias = str | os.PathLike[str]
OPEN = 32  # files that are open at a time


class RowNumbers(Rule):
    """Rule for numbers of rows: None, or a list or array of whole numbers, from 0."""

    expected = "a list or array of numbers of rows, from 0"

    def accept(self, value: Any) -> np.ndarray | None:
        """Return an int64 array, or None."""
        if value is None:
            return None
        found = np.asarray(value)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise ValueError
        if found.size and found.min() < 0:
            raise ValueError
        return found.astype(np.int64)


Rows = Annotated[Any, RowNumbers()]


class HDF5Data(Data):
    """Source of examples from data sets of HDF5 files, one for each top.

    A file is read in blocks of neighbouring rows, which is fast on any disk.  Shuffling takes the
    blocks in random order and mixes the rows of `mixed` of them in memory, so an epoch is close
    to, but not quite, a random permutation; `block * mixed` rows are in memory at a time.

    Several files are one set, the rows of each after those of the file before: the order is bit for
    bit that of one file with all rows.  So is a folder of shards, such as galaxy.prepare_shards
    writes: its index lists the files, and blocks of all shards are shuffled together.

    The data sets must hold plain numbers and lie in the file itself, reached without links:
    contiguous, or in chunks, with gzip, lzf, or another of HDF5's own filters.

    Shapes: no bottom; a top (n, ...) for each data set, cropped if that is asked for.

    Args:
        path: the file, a folder of shards, or a list of files, whose data sets have equal names,
            shapes of an example, and types of number.
        datasets: name of a data set (count, ...), default "images", or a list of names of data
            sets of equal length.
        tops: names of the tops, by default the layer's name.
        shuffle: True, the default, for a new order in each epoch.
        augment, scale, mean, deviation, crop, mirror: for the first data set; see Data.
        integers: names of tops that hold integers as they are, by default none; see Data.
        block: rows read at once, default 256.
        mixed: blocks mixed in memory, default 16.
        lanes: L, for L shards of layerkit.Distributed: in training the shuffled blocks of an epoch
            are cut into L lanes of equal length, whose rows are mixed within a lane, and batch i of
            an epoch comes from lane i mod L.  So each process reads only the rows of its own
            shards, in large reads.  An epoch leaves out rows that do not fill L batches, fewer than
            L (batch size + 1), others in each epoch.  None, the default, has no lanes: then every
            process reads all.
        skip: numbers of rows to leave out, counted over all files, such as those held out; none by
            default.
        repeat: how many times each example is served before the next, default 1; see MemoryData.
        prefetch: batches that a thread reads ahead, default 0; see Data.
        integers: a top, or a list of tops, that hold integers; see Data.  None is the default.

    Raises:
        DataError: a file or data set that is missing, cannot be read, claims more than the file
            can hold, or lies in other files; files that do not fit each other.

    Source: Mocha's HDF5DataLayer and Caffe's HDF5Data, for lists of files.
    """

    decided = (*Data.decided, "path", "paths", "datasets", "block", "mixed", "lanes", "skip")

    def __init__(
        self,
        name: str,
        *,
        path: Annotated[AnyPath | list[AnyPath] | tuple[AnyPath, ...], FilePaths()],
        datasets: Annotated[str | list[str] | tuple[str, ...], Names()] = "images",
        tops: Tops | None = None,
        shuffle: Flag = True,
        augment: Augmentation = None,
        scale: Scale = 1.0,
        mean: Mean = None,
        deviation: Deviation = None,
        crop: Crop = None,
        mirror: Flag = False,
        block: Count = 256,
        mixed: Count = 16,
        lanes: Count | None = None,
        skip: Rows = None,
        repeat: Count = 1,
        prefetch: Depth = 0,
        integers: Tops | None = None,
    ):
        super().__init__(
            name, tops, shuffle, augment, scale, mean, deviation, crop, mirror, prefetch, integers
        )
        several = path if isinstance(path, list | tuple) else [path]
        self.path = path
        self.paths = [Path(p).absolute() for p in several]  # opened later, elsewhere
        self.block, self.mixed, self.lanes, self.skip = block, mixed, lanes, skip
        self.repeat = repeat
        self.datasets = [datasets] if isinstance(datasets, str) else list(datasets)

    def example_shapes(self) -> list[Shape]:
        """Open the files and compare them; return all axes but the first."""
        self.paths = [
            file
            for path in self.paths
            for file in (shards_of(path, self.wrong) if os.path.isdir(path) else [path])
        ]
        self.opened: dict[int, tuple[hdf5.Reader, list[h5py.Dataset]]] = {}  # the last few
        self.first = [(s.dtype.newbyteorder("="), s.shape[1:]) for s in self._sets(0)[1]]
        self.stored_dtypes = [s.dtype for s in self._sets(0)[1]]
        lengths = [self._length(i) for i in range(len(self.paths))]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])  # of each file's rows, and the end
        self.left_out = self._left_out(int(self.starts[-1]))
        self.total = int(self.starts[-1]) - len(self.left_out)  # rows, but for those left out
        self.block = min(self.block, self.total)
        self.count = self.total * self.repeat
        self.in_lanes = self.run.training and self.lanes is not None
        if self.in_lanes:
            self.count = self._served()
        self.plan: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None
        self.loaded: tuple[tuple[int, int, int], list[np.ndarray]] | None = None
        self.windows: dict[int, tuple[tuple[int, int, int], list[np.ndarray]]] = {}  # by lane
        return [shape for _, shape in self.first]

    def _sets(self, i: int) -> tuple[hdf5.Reader, list[h5py.Dataset]]:
        """Return file `i` and its data sets; the files that were used last stay open."""
        found = self.opened.pop(i, None)
        if found is None:
            while len(self.opened) >= OPEN:
                self.opened.pop(next(iter(self.opened)))[0].__exit__()
            file = hdf5.open_unsealed(self.paths[i], self.wrong)
            found = file, [self._open(file, name) for name in self.datasets]
        self.opened[i] = found
        return found

    def _left_out(self, total: int) -> np.ndarray:
        """Return the rows to leave out, in increasing order."""
        rows = np.unique(np.zeros(0, np.int64) if self.skip is None else self.skip)
        if len(rows) and not (rows[0] >= 0 and rows[-1] < total):
            raise self.wrong(f"skip names row {rows[-1]}, and the files have {total} rows")
        if len(rows) == total:
            raise self.wrong(f"skip names all {total} rows; leave some")
        return rows

    def _open(self, file: hdf5.Reader, name: str) -> h5py.Dataset:
        """Find one of the data sets, and check it before anything in it is read."""
        parts = [part for part in name.split("/") if part]
        if not parts or not file.is_dataset(*parts):
            group = parts[:1] if parts and file.is_group(parts[0]) else []
            names = ["/".join([*group, n]) for n in file.names(*group)] or file.names()
            there = ", ".join(map(repr, names)) or "nothing"
            raise self.wrong(f"{file.name} has no data set {name!r}; it has {there}")
        return file.dataset(*parts, kinds=NUMBERS)

    def _length(self, i: int) -> int:
        """Return how many rows file `i` has, if it fits the first."""
        sets = self._sets(i)[1]
        lengths = {s.shape[0] if s.shape else 0 for s in sets}
        if len(lengths) != 1 or 0 in lengths:
            which = f"{self.paths[i]}: " if i else ""
            raise self.wrong(
                f"{which}data sets must have equal, non-zero lengths, got {sorted(lengths)}"
            )
        for name, own, (dtype, shape) in zip(self.datasets, sets, self.first, strict=True):
            if own.shape[1:] != shape or own.dtype.newbyteorder("=") != dtype:
                raise self.wrong(
                    f"files do not fit each other: examples of {name!r} are {dtype} of shape "
                    f"{shape} in {self.paths[0]}, but {own.dtype.newbyteorder('=')} of shape "
                    f"{own.shape[1:]} in {self.paths[i]}"
                )
        return lengths.pop()

    def _read(self, number: int, start: int, stop: int) -> np.ndarray:
        """Return rows of data set `number`, from the files that hold them.

        Rows that are left out are not counted; they are read with their neighbours, and dropped.
        """
        if not len(self.left_out):
            return self._from_files(number, start, stop)
        first, last = self._in_files(start), self._in_files(stop - 1)
        found = self._from_files(number, first, last + 1)
        a, b = np.searchsorted(self.left_out, [first, last])
        return np.delete(found, self.left_out[a:b] - first, axis=0)

    def _in_files(self, row: int) -> int:
        """Return the number in the files of a row that is counted without those left out."""
        # Before left-out row k, in increasing order, lie left_out[k] - k others.
        before = self.left_out - np.arange(len(self.left_out))
        return row + int(np.searchsorted(before, row, side="right"))

    def _file_of(self, rows: Any) -> Any:
        """Return the number of the file that holds a row, left out or not; or of each of many."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def _from_files(self, number: int, start: int, stop: int) -> np.ndarray:
        """Return rows of data set `number`, left out or not."""
        pieces = []
        i = int(self._file_of(start))
        while start < stop:
            end = min(stop, int(self.starts[i + 1]))
            first = int(self.starts[i])
            file, sets = self._sets(i)
            with whole(), file.watching(repr(self.datasets[number])):
                pieces.append(sets[number][start - first : end - first])
            start, i = end, i + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return rows of the first data set."""
        return self._read(0, start, stop)

    @property
    def stored_count(self) -> int:
        """The number of rows in the files, of which an epoch of lanes leaves out some."""
        return self.total

    def dtypes(self) -> list[np.dtype]:
        """Return the dtypes of the data sets."""
        return self.stored_dtypes

    def signature(self) -> list[Any]:
        """Return the rows of each file, those left out, and some examples, too.

        The files are opened for it, as a thread that reads ahead may use those that are open.
        """
        rows = sample_rows(int(self.starts[-1]))
        found, files = [*super().signature(), self.starts, self.left_out], self._file_of(rows)
        for i in np.unique(files):
            with hdf5.open_unsealed(self.paths[i], self.wrong) as file:
                own = rows[files == i] - self.starts[i]
                found += [self._open(file, name)[own] for name in self.datasets]
        return found

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return rows from the groups of blocks that hold this stretch, as NumPy arrays."""
        served = self._from_lanes if self.in_lanes else self._from_groups
        pieces = list(served(epoch, start, stop))
        return [np.concatenate(p) for p in zip(*pieces, strict=True)]

    def _repeated(self, arrays: list[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
        """Return stretches of arrays, of which each row counts `repeat` times."""
        rows = np.arange(start, stop) // self.repeat if self.repeat > 1 else slice(start, stop)
        return [a[rows] for a in arrays]

    def _from_groups(self, epoch: int, start: int, stop: int) -> Iterator[list[np.ndarray]]:
        """Yield the rows of a stretch of an epoch, group by group."""
        bounds = self._planned(epoch, self.mixed)[2] * self.repeat
        while start < stop:
            group = int(np.searchsorted(bounds, start, side="right")) - 1
            first, end = int(bounds[group]), min(stop, int(bounds[group + 1]))
            yield self._repeated(self._group(epoch, group), start - first, end - first)
            start = end

    def _planned(self, epoch: int, together: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return the order of an epoch's blocks, and where each group of so many begins in it."""
        key = (self.run.seed, epoch)
        if self.plan is None or self.plan[0] != key:
            blocks = -(-self.total // self.block)
            order = epoch_order(blocks, self.run.seed, self.stream, epoch, self.shuffle)
            sizes = np.minimum(self.block, self.total - order * self.block)
            group_sizes = np.add.reduceat(sizes, np.arange(0, blocks, together))
            self.plan = key, order, np.concatenate([[0], np.cumsum(group_sizes)])
        return self.plan

    def _served(self) -> int:
        """Return how many rows an epoch of lanes has: as many batches from each."""
        lanes, rows = self.lanes or 1, self.run.batch_size
        served = self.total // lanes * self.repeat // rows * rows * lanes
        if not served:
            times = f" {self.repeat} times" if self.repeat > 1 else ""
            raise self.wrong(
                f"{self.total} rows{times} do not fill a batch of {rows} in each of {lanes} lanes; "
                "take fewer lanes or a smaller batch size"
            )
        return served

    def _from_lanes(self, epoch: int, start: int, stop: int) -> Iterator[list[np.ndarray]]:
        """Yield the rows of a stretch of an epoch, batch by batch from lane after lane."""
        lanes, rows = self.lanes or 1, self.run.batch_size
        size = self.block * self.mixed * self.repeat
        while start < stop:
            batch, first = divmod(start, rows)
            round_, lane = divmod(batch, lanes)
            window, at = divmod(round_ * rows + first, size)
            count = min(stop - start, rows - first, size - at)
            yield self._repeated(self._of_lane(epoch, lane, window), at, at + count)
            start += count

    def _of_lane(self, epoch: int, lane: int, window: int) -> list[np.ndarray]:
        """Return the mixed rows of a window of a lane, read once."""
        key = (self.run.seed, epoch, window)
        if lane not in self.windows or self.windows[lane][0] != key:
            length, size = self.total // (self.lanes or 1), self.block * self.mixed
            begin = lane * length + window * size
            end = min(begin + size, (lane + 1) * length)
            self.windows.pop(lane, None)  # before the next is read
            stretches = self._stretches(epoch, begin, end)
            number = lane * -(-length // size) + window + 1
            mix = epoch_order(end - begin, self.run.seed, self.stream ^ number, epoch, self.shuffle)
            self.windows[lane] = key, [a[mix] for a in self._read_all(stretches)]
        return self.windows[lane][1]

    def _stretches(self, epoch: int, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the rows of the files that lie from `begin` to `end` in an epoch's blocks."""
        _, order, bounds = self._planned(epoch, 1)
        first = int(np.searchsorted(bounds, begin, side="right")) - 1
        found = []
        for i in range(first, int(np.searchsorted(bounds, end))):
            row = int(order[i]) * self.block - int(bounds[i])
            found.append((row + max(begin, int(bounds[i])), row + min(end, int(bounds[i + 1]))))
        return found

    def _read_all(self, stretches: list[tuple[int, int]]) -> list[np.ndarray]:
        """Read stretches of rows of all data sets."""
        return [
            np.concatenate([self._read(number, a, b) for a, b in stretches])
            for number in range(len(self.datasets))
        ]

    def _group(self, epoch: int, group: int) -> list[np.ndarray]:
        """Return the mixed rows of one group of blocks, read once."""
        key = (self.run.seed, epoch, group)
        if self.loaded is None or self.loaded[0] != key:
            assert self.plan is not None
            blocks = self.plan[1][group * self.mixed : (group + 1) * self.mixed]
            starts = [int(b) * self.block for b in blocks]
            arrays = self._read_all([(a, min(a + self.block, self.total)) for a in starts])
            stream = self.stream ^ (group + 1)  # another order for each group
            mix = epoch_order(len(arrays[0]), self.run.seed, stream, epoch, self.shuffle)
            self.loaded = key, [a[mix] for a in arrays]
        return self.loaded[1]
