"""Prepared sets whose images stay in their files until they are asked for."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from layerkit.data.arrays import joined
from layerkit.errors import DataError
from layerkit.galaxy.images.masks import MASKS, mask_bytes, with_masks
from layerkit.galaxy.images.prepared import GalaxySet, digest_of, files_of, joined_about, load_file
from layerkit.saving import hdf5
from layerkit.saving.shards import check_count
from layerkit.system.files import path_of

CHUNK = 256  # images that are read at a time
DENSE = 2  # times as many neighbouring images as are wanted, at most, are read instead of them


@dataclass
class _Shard:
    """A file of a set, and the number of its first galaxy in the set."""

    path: Path
    first: int
    count: int


class StoredSet:
    """A set that `prepare` or `prepare_shards` wrote, whose images stay in its files.

    Each file's checksum is compared once, when the set is opened.

    Args:
        path: the file, or the folder of shards.

    Attributes:
        ids, excluded, crops, stretches, source, read, row_order, settings, origin: see `GalaxySet`.
        size: pixels on a side of each image.
        masked: whether any image is a masked array.

    Raises:
        DataError: see `load`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path_of(path, DataError)
        files = files_of(self.path)
        found, ids, crops, stretches, masked = zip(*map(_columns_of, files), strict=True)
        for file, own in zip(files, ids, strict=True):
            if file != self.path:
                check_count(file, len(own), DataError)
        firsts = np.cumsum([0, *map(len, ids)]).tolist()
        self._shards = [
            _Shard(file, first, len(own))
            for file, first, own in zip(files, firsts[:-1], ids, strict=True)
        ]
        about = joined_about(self.path, found, ids)
        self.ids: list[str] = about["ids"]
        self.excluded: dict[str, str] = about["excluded"]
        self.source: str = about["source"]
        self.read: int = about["read"]
        self.settings: dict = about["settings"]
        self.origin: dict | None = about["origin"]
        self.row_order: str = about["row_order"]
        self.size = found[0].size
        self.masked = any(masked)
        self.crops, self.stretches = np.concatenate(crops), np.concatenate(stretches)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def files(self) -> list[Path]:
        """The files that hold galaxies, in order, whose data set "images" has them."""
        return [shard.path for shard in self._shards if shard.count]

    @property
    def excluded_counts(self) -> dict[str, int]:
        """The number of pictures excluded for each reason, most frequent first."""
        return dict(Counter(self.excluded.values()).most_common())

    def __iter__(self) -> Iterator[np.ndarray]:
        for shard in self._shards:
            for start in range(0, shard.count, CHUNK):
                yield from self._rows(shard, np.arange(start, min(start + CHUNK, shard.count)))

    def _rows(self, shard: _Shard, rows: np.ndarray) -> np.ndarray:
        """Read rows of a shard, in increasing order."""
        with hdf5.open_unsealed(shard.path, DataError) as file:
            shape = (shard.count, self.size, self.size)
            stored = file.dataset("images", kinds="f", shape=shape)
            with file.watching("'images'"):
                chunk = np.asarray(_picked(stored, rows), np.float32)
            if not np.isfinite(chunk).all():
                raise file.fail("'images'", "holds numbers that are not finite")
            if not self.masked or not file.is_dataset(MASKS):
                return chunk
            packed = file.dataset(MASKS, kinds="u", shape=(shard.count, mask_bytes(self.size)))
            with file.watching(repr(MASKS)):
                return with_masks(chunk, _picked(packed, rows))

    def images_of(self, rows: np.ndarray) -> np.ndarray:
        """Read the images of some rows, in increasing order: float32 (n, size, size)."""
        rows, found = np.unique(rows), [np.zeros((0, self.size, self.size), np.float32)]
        for shard in self._shards:
            own = rows[(rows >= shard.first) & (rows < shard.first + shard.count)] - shard.first
            for start in range(0, len(own), CHUNK):
                found.append(self._rows(shard, own[start : start + CHUNK]))
        return joined(found)

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of images and ids, `GalaxySet.digest`."""
        return digest_of(self.ids, self.size, self)


def _picked(stored: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Read rows, in increasing order, of a data set."""
    if rows[-1] - rows[0] < DENSE * len(rows):  # one read is faster than many
        span: np.ndarray = stored[int(rows[0]) : int(rows[-1]) + 1]
        return span[rows - rows[0]]
    return np.asarray(stored[rows])


def _columns_of(file: Path) -> tuple[GalaxySet, list[str], np.ndarray, np.ndarray, bool]:
    """Return the first galaxy of a file, ids, crops and stretches of all, and if any is masked."""
    first = load_file(file, 1, may_be_empty=True)  # everything else in the file is checked, too
    with hdf5.open_unsealed(file, DataError) as opened:
        ids: list[str] = opened.json("ids", list)
        crops = opened.array("crops", kinds="f", shape=(len(ids), 3))
        stretches = opened.array("stretches", kinds="f", shape=(len(ids), 3))
        masked = False
        if opened.is_dataset(MASKS):
            shape = (len(ids), mask_bytes(first.size))
            masked = bool(opened.array(MASKS, kinds="u", shape=shape).any())
    return first, ids, crops, stretches, masked
