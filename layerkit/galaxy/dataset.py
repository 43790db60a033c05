"""A prepared set of galaxies in memory, and which of them training never sees."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from layerkit.display import short_repr
from layerkit.errors import DataError
from layerkit.galaxy.sources import PREPARED_FORMAT

VERSION = 1


@dataclass
class GalaxySet:
    """Galaxies that `prepare` wrote, as `load` read them.

    images: float32 (N, size, size), intensities in 0..1, in the order of the source.
    ids: N strings, unique.
    crops: float64 (N, 3): y0, x0 and side of the square cut from each source picture, in its
        pixels, where a pixel's area is [k, k + 1).
    scales: float64 (N,): source pixels per output pixel, side / size.
    excluded: ids that were left out, with the reason for each (of the whole source).
    source: the name of the source; read: how many pictures it had, usable or not; settings: those
        of `prepare`; path: the file.
    """

    images: np.ndarray
    ids: list[str]
    crops: np.ndarray
    scales: np.ndarray
    excluded: dict[str, str]
    source: str
    read: int
    settings: dict
    path: Path

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Pixels on a side."""
        return self.images.shape[1]

    @property
    def excluded_counts(self) -> dict[str, int]:
        """How many were excluded for each reason, most frequent first."""
        return dict(Counter(self.excluded.values()).most_common())


def load(path: str | os.PathLike, limit: int | None = None) -> GalaxySet:
    """Read a set that `prepare` wrote; with `limit`, its first `limit` galaxies only.

    Raises `DataError` where the file is missing, truncated, not such a set, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a galaxy set written by prepare()")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != PREPARED_FORMAT:
                raise DataError(f"{path}: an HDF5 file, but not a galaxy set; make one: prepare()")
            if file.attrs["version"] > VERSION:
                raise DataError(
                    f"{path}: format version {file.attrs['version']}, and this layerkit reads up to"
                    f" {VERSION}; update layerkit or prepare the set again"
                )
            rows = slice(limit)
            return GalaxySet(
                images=file["images"][rows],
                ids=list(file["ids"].asstr()[rows]),
                crops=file["crops"][rows],
                scales=file["scales"][rows],
                excluded=dict(
                    zip(
                        file["excluded/ids"].asstr()[:],
                        file["excluded/reasons"].asstr()[:],
                        strict=True,
                    )
                ),
                source=file.attrs["source"],
                read=int(file.attrs["read"]),
                settings=json.loads(file.attrs["settings"]),
                path=path,
            )
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path}: not an HDF5 file, or a truncated one ({error}); prepare the set again"
        ) from error


def split(ids: list[str], held_out: int, salt: str = "held-out") -> tuple[np.ndarray, np.ndarray]:
    """Divide a set in two by the ids alone: training indices, and `held_out` held-out indices.

    Held out are the ids with the smallest BLAKE2b hash of salt and id, whatever their order, so
    adding galaxies to a set moves few of the others, and none where the share held out stays the
    same but for chance.  Both arrays (int64) are in increasing order.  For a validation set, split
    the training ids again with another salt.

    Raises `DataError` where `held_out` is negative or more than half of the ids.
    """
    if not 0 <= held_out <= len(ids) // 2:
        raise DataError(
            f"held out {held_out} of {len(ids)} galaxies: at least half must be left to train on;"
            f" hold out at most {len(ids) // 2}, or bring more images"
        )
    hashes = [hashlib.blake2b(f"{salt}/{i}".encode()).digest() for i in ids]
    order = np.array(sorted(range(len(ids)), key=lambda k: (hashes[k], ids[k])), dtype=np.int64)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
