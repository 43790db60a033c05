"""Prepared sets whose images stay in their files until they are asked for."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.images.prepared import GalaxySet, check_count, files_of, load_file
from layerkit.saving import hdf5
from layerkit.system.files import path_of

CHUNK = 256  # images that are read at a time


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

    Raises:
        DataError: see `load`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path_of(path, DataError)
        self.ids: list[str] = []
        self.excluded: dict[str, str] = {}
        self._shards: list[_Shard] = []
        found, crops, stretches = list[GalaxySet](), list[np.ndarray](), list[np.ndarray]()
        for file in files_of(self.path):
            own = _columns_of(file)
            if file != self.path:
                check_count(file, len(own[1]))
            found.append(own[0])
            self._shards.append(_Shard(file, len(self.ids), len(own[1])))
            self.ids += own[1]
            self.excluded |= own[0].excluded
            crops.append(own[2])
            stretches.append(own[3])
        self.crops, self.stretches = np.concatenate(crops), np.concatenate(stretches)
        first = found[0]
        self.settings, self.size = first.settings, first.size
        if any(one.settings != first.settings for one in found):
            raise DataError(f"{self.path}: shards prepared with other settings; prepare them again")
        if len(set(self.ids)) < len(self.ids):
            raise DataError(f"{self.path}: its shards name a galaxy twice; prepare them again")
        self.origin = first.origin if len(found) == 1 else None
        self.source = ", ".join(dict.fromkeys(one.source for one in found))
        self.read = sum(one.read for one in found)
        orders = Counter[str]()
        for one, shard in zip(found, self._shards, strict=True):
            orders[one.row_order] += shard.count
        self.row_order = "bottom" if orders["bottom"] > orders["top"] else "top"

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
                dense = len(rows) and rows[-1] - rows[0] == len(rows) - 1
                which = slice(int(rows[0]), int(rows[-1]) + 1) if dense else rows
                chunk = np.asarray(stored[which], np.float32)
            if not np.isfinite(chunk).all():
                raise file.fail("'images'", "holds numbers that are not finite")
            return chunk

    def images_of(self, rows: np.ndarray) -> np.ndarray:
        """Read the images of some rows, in increasing order: float32 (n, size, size)."""
        rows, found = np.unique(rows), [np.zeros((0, self.size, self.size), np.float32)]
        for shard in self._shards:
            own = rows[(rows >= shard.first) & (rows < shard.first + shard.count)] - shard.first
            if len(own):
                found.append(self._rows(shard, own))
        return np.concatenate(found)

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of images and ids, `GalaxySet.digest`."""
        shape = (len(self.ids), self.size, self.size)
        total = hashlib.sha256(json.dumps([shape, self.ids]).encode())
        for image in self:
            total.update(np.ascontiguousarray(image, "<f4").tobytes())
        return total.hexdigest()


def _columns_of(file: Path) -> tuple[GalaxySet, list[str], np.ndarray, np.ndarray]:
    """Return the first galaxy of a file, and ids, crops and stretches of all."""
    first = load_file(file, 1, may_be_empty=True)  # everything else in the file is checked, too
    with hdf5.open_unsealed(file, DataError) as opened:
        ids: list[str] = opened.json("ids", list)
        crops = opened.array("crops", kinds="f", shape=(len(ids), 3))
        stretches = opened.array("stretches", kinds="f", shape=(len(ids), 3))
    return first, ids, crops, stretches
