"""A prepared set of galaxies in memory, and which of them training never sees."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerkit import hdf5
from layerkit.display import short_repr
from layerkit.errors import DataError
from layerkit.files import open_regular, path_of
from layerkit.settings import Optional, Whole, accept, fitting

PREPARED_FORMAT = "layerkit galaxy set"
VERSION = 2
# Columns stored beside the image and id of each galaxy: float64, of this shape.
COLUMNS: dict[str, tuple[int, ...]] = {"crops": (3,), "scales": (), "stretches": (3,)}
AGAIN = "; prepare the set again"


@dataclass
class GalaxySet:
    """Galaxies that `prepare` wrote, as `load` read them.

    images: float32 (N, size, size), intensities in 0..1, in the order of the source.
    ids: N strings, unique.
    crops: float64 (N, 3): y0, x0 and side of the square cut from each source picture, in its
        pixels, where a pixel's area is [k, k + 1).
    scales: float64 (N,): source pixels per output pixel, side / size.
    stretches: float64 (N, 3): sky, spread and white, by which `scaling.unstretch` turns the images
        back to the units of their pictures; 0, 0, 1 where the numbers are as they were.
    excluded: ids that were left out, with the reason for each (of the whole source).
    source: the name of the source; read: how many pictures it had, usable or not; settings: those
        of `prepare`; path: the file.
    origin: what `prepare` was told that the set was made of, or None.
    row_order: "top" or "bottom", where the first row of an image is to be drawn; that of FITS files
        is at the bottom.  Of a mixed source, that of most pictures.
    """

    images: np.ndarray
    ids: list[str]
    crops: np.ndarray
    scales: np.ndarray
    stretches: np.ndarray
    excluded: dict[str, str]
    source: str
    read: int
    settings: dict
    path: Path
    origin: dict | None = None
    row_order: str = "top"

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

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of images and ids: equal sets have equal digests, others do not."""
        images = np.ascontiguousarray(self.images, "<f4")
        total = hashlib.sha256(json.dumps([images.shape, self.ids]).encode())
        total.update(images.data.cast("B") if images.size else b"")
        return total.hexdigest()


def is_prepared(path: str | os.PathLike | None) -> bool:
    """Tell whether `path` is an HDF5 file that `prepare` wrote, of any format version."""
    if path is None:
        return False
    path = Path(path)
    if hdf5.is_sealed(path, PREPARED_FORMAT):
        return True
    try:  # version 1 had no header of its own
        with open_regular(path) as file:
            if file.read(len(hdf5.SIGNATURE)) != hdf5.SIGNATURE:
                return False
        with hdf5.open_unsealed(path, DataError) as old:
            return old.has("format") and old.text("format") == PREPARED_FORMAT
    except (OSError, ValueError, DataError):
        return False


class Writer:
    """Galaxies that wait to be written, their images in a file without a name."""

    def __init__(self, folder: Path, size: int):
        self.images = hdf5.Rows(folder, (size, size), "<f4")
        self.ids: list[str] = []
        self.columns: dict[str, list] = {name: [] for name in COLUMNS}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.images.__exit__()

    def add(self, name: str, image: np.ndarray, **columns: float | Sequence[float]) -> None:
        """Add a galaxy, with a value for each of COLUMNS."""
        self.images.append(image)
        self.ids.append(name)
        for key, values in self.columns.items():
            values.append(columns[key])

    def save(self, path: Path, excluded: dict[str, str], about: dict) -> None:
        """Write everything in one move."""

        def fill(file: h5py.File) -> None:
            self.images.reserve(file, "images")
            for name, values in self.columns.items():
                file[name] = np.array(values, "<f8").reshape(len(self.ids), *COLUMNS[name])
            hdf5.attribute(file, "version", VERSION)
            hdf5.attribute(file, "ids", json.dumps(self.ids))
            hdf5.attribute(file, "excluded", json.dumps(excluded))
            hdf5.attribute(file, "about", json.dumps(about))

        hdf5.write_sealed(path, PREPARED_FORMAT, fill, self.images)


@fitting(DataError)
def load(path: str | os.PathLike, limit: int | None = None) -> GalaxySet:
    """Read a set that `prepare` wrote; with `limit`, its first `limit` galaxies only.

    Raises `DataError` if the file is missing, truncated, damaged, not such a set, or of another
    version of the format, or if `limit` is not a positive whole number.
    """
    limit = accept(Optional(Whole(least=1)), limit, "limit", "load", DataError)
    path = path_of(path, DataError)
    try:
        open_regular(path).close()
    except OSError as error:
        reason = str(error.strerror or error)
        raise DataError(
            f"{path}: {reason[0].lower()}{reason[1:]}; expected a galaxy set written by prepare()"
        ) from error
    if not hdf5.is_sealed(path, PREPARED_FORMAT):
        if is_prepared(path):
            raise DataError(f"{path}: a galaxy set of an older version, without checksum{AGAIN}")
        raise DataError(f"{path}: not a galaxy set, or a truncated one; make one: prepare()")
    with hdf5.open_sealed(path, PREPARED_FORMAT, "a galaxy set", DataError, AGAIN) as file:
        version = file.integer("version")
        if version > VERSION:
            raise DataError(
                f"{path}: format version {version}, and this layerkit reads version {VERSION};"
                " update layerkit or prepare the set again"
            )
        if version < VERSION:
            raise DataError(f"{path}: format version {version}, older than {VERSION}{AGAIN}")
        return _read(file, path, limit)


def _read(file: hdf5.Reader, path: Path, limit: int | None) -> GalaxySet:
    """Read the galaxies in an open file; every part is looked at before it is believed."""
    ids = file.json("ids", list)
    left_out = file.json("excluded")
    about = file.json("about")
    count = len(ids)
    for field, names in (("ids", ids), ("excluded", left_out.values())):
        if not all(isinstance(name, str) for name in names):
            raise file.fail(f"attribute {field!r}", "must hold strings")
    if len(set(ids)) < count:
        raise file.fail("attribute 'ids'", "names a galaxy twice")
    kinds = {"source": str, "read": int, "settings": dict, "origin": dict | None, "row_order": str}
    about = {name: about.get(name) for name in kinds}
    for name, kind in kinds.items():
        if not isinstance(about[name], kind) or isinstance(about[name], bool):
            raise file.fail(f"attribute 'about': {name!r}", "is missing or of another kind")
    if about["row_order"] not in ("top", "bottom"):
        raise file.fail("attribute 'about': 'row_order'", "must be 'top' or 'bottom'")
    shape = file.dataset("images", kinds="f", shape=(count, None, None)).shape
    if not count or not shape[1] or shape[1] != shape[2]:
        raise file.fail("'images'", f"must hold square images, got shape {shape}")
    columns: dict[str, Any] = {
        name: file.array(name, kinds="f", shape=(count, *rest), rows=limit)
        for name, rest in COLUMNS.items()
    }
    images = file.array("images", kinds="f", shape=shape, rows=limit).astype("f4", copy=False)
    for name, values in (("images", images), *columns.items()):
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise file.fail(repr(name), "holds numbers that are not finite")
    return GalaxySet(
        images=images, ids=ids[:limit], excluded=left_out, path=path, **columns, **about
    )


@fitting(DataError)
def split(ids: list[str], held_out: int, salt: str = "held-out") -> tuple[np.ndarray, np.ndarray]:
    """Divide a set in two by the ids alone: training indices, and `held_out` held-out indices.

    Held out are the ids with the smallest BLAKE2b hash of salt and id, whatever their order, so
    adding galaxies to a set moves few of the others, and none where the share held out stays the
    same but for chance.  Both arrays (int64) are in increasing order.  For a validation set, split
    the training ids again with another salt.

    Raises `DataError` where `held_out` is no whole number, negative or more than half of the ids.
    """
    held_out = accept(Whole(), held_out, "held_out", "split", DataError)
    if held_out > len(ids) // 2:
        raise DataError(
            f"held out {held_out} of {len(ids)} galaxies: at least half must be left to train on;"
            f" hold out at most {len(ids) // 2}, or bring more images"
        )
    hashes = [hashlib.blake2b(f"{salt}/{i}".encode()).digest() for i in ids]
    order = np.array(sorted(range(len(ids)), key=lambda k: (hashes[k], ids[k])), dtype=np.int64)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
