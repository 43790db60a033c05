"""Prepared sets of galaxies, the file format they are stored in, and the held-out part of a set."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerkit.data.arrays import hidden, joined
from layerkit.errors import DataError, brief
from layerkit.galaxy.images.masks import MASKS, mask_bytes, with_masks
from layerkit.inspection.display import short_repr
from layerkit.saving import hdf5
from layerkit.saving.shards import INDEX, check_count, finished, read_index
from layerkit.settings import Optional, Whole, accept, fitting
from layerkit.system.files import open_regular, path_of

PREPARED_FORMAT = "layerkit galaxy set"
VERSION, OLDEST = 3, 2  # the oldest is that of sets without masks
# Columns stored beside the image and id of each galaxy: float64, of this shape per galaxy.
COLUMNS: dict[str, tuple[int, ...]] = {"crops": (3,), "scales": (), "stretches": (3,)}
MOST_RANKED = 500  # held-out galaxies whose bounds others are ranked among
AGAIN = "; prepare the set again"


@dataclass
class GalaxySet:
    """A set of galaxies as `prepare` wrote it and `load` read it.

    Attributes:
        images: float32 (N, size, size), in the order of the source; `crop.units` has the range of
            their pixels.  A masked array if any pixel is without data, as pixels in linear units
            may be: masked pixels count for nothing in likelihoods, and hold a guess for those who
            need a number.
        ids: N unique strings.
        crops: float64 (N, 3), y0, x0 and side of the square cut from each picture, in pixels of the
            picture; pixel k extends from k to k + 1.
        scales: float64 (N,), pixels of the picture per pixel of the image, side / size.
        stretches: float64 (N, 3), sky, spread and white, by which `scaling.unstretch` converts the
            images back to the units of their pictures; 0, 0, 1 for unscaled values.
        excluded: reason for each id that was excluded, over the whole source.
        source: name of the source.
        read: number of pictures in the source, usable or not.
        settings: settings of `prepare`.
        path: the file, or the folder of shards.
        origin: the dict given to `prepare` as `origin`, or None.
        row_order: "top" or "bottom", where the first row of an image is displayed: at the bottom
            for FITS files.  In a mixed source the majority decides.
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

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.images)

    @property
    def size(self) -> int:
        """The number of pixels on a side of each image."""
        return self.images.shape[1]

    def images_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows, in increasing order: float32 (n, size, size)."""
        return self.images[np.unique(rows)]

    @property
    def excluded_counts(self) -> dict[str, int]:
        """The number of pictures excluded for each reason, most frequent first."""
        return dict(Counter(self.excluded.values()).most_common())

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of images and ids, by which sets are compared."""
        return digest_of(self.ids, self.size, self.images)


def digest_of(ids: list[str], size: int, images: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of ids and of images (size, size), and of their masks if they have any."""
    total = hashlib.sha256(json.dumps([(len(ids), size, size), ids]).encode())
    masks, masked = hashlib.sha256(), False
    for i, image in enumerate(images):
        total.update(np.ascontiguousarray(np.ma.getdata(image), "<f4").tobytes())
        if (mask := hidden(image)) is not None:
            masks.update(f"{i} ".encode() + np.packbits(mask).tobytes())
            masked = True
    if masked:
        total.update(masks.digest())
    return total.hexdigest()


def is_prepared(path: str | os.PathLike | None) -> bool:
    """Tell whether a path is a file that `prepare` wrote, in any version of the format.

    A folder is one that `prepare_shards` has begun.
    """
    if path is None:
        return False
    path = Path(path)
    if os.path.isdir(path):
        return is_sharded(path)
    if hdf5.is_sealed(path, PREPARED_FORMAT):
        return True
    try:  # version 1 was a plain HDF5 file
        with open_regular(path) as file:
            if file.read(len(hdf5.SIGNATURE)) != hdf5.SIGNATURE:
                return False
        with hdf5.open_unsealed(path, DataError) as old:
            return old.has("format") and old.text("format") == PREPARED_FORMAT
    except (OSError, ValueError, DataError):
        return False


def is_sharded(path: str | os.PathLike | None) -> bool:
    """Tell whether a path is a folder that `prepare_shards` has begun."""
    if path is None or not os.path.isfile(Path(path) / INDEX):
        return False
    try:
        return read_index(Path(path), DataError).get("kind") == PREPARED_FORMAT
    except DataError:
        return False


class Writer:
    """A prepared set that is being made; its images wait in an unnamed file.

    Args:
        folder: where that file is; it needs space for the images.
        size: pixels on a side of each image.
        masks: whether images may be masked arrays.
    """

    def __init__(self, folder: Path, size: int, masks: bool):
        self.masks: list[np.ndarray] | None = [] if masks else None
        self.images = hdf5.Rows(folder, (size, size), "<f4")
        self.ids: list[str] = []
        self.columns: dict[str, list] = {name: [] for name in COLUMNS}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.images.__exit__()

    def add(self, name: str, image: np.ndarray, **columns: float | Sequence[float]) -> None:
        """Add a galaxy: its id, its image (size, size), and a value for each of COLUMNS."""
        self.images.append(np.ma.getdata(image))
        if self.masks is not None:
            self.masks.append(np.packbits(np.ma.getmaskarray(image)))
        self.ids.append(name)
        for key, values in self.columns.items():
            values.append(columns[key])

    def save(self, path: Path, excluded: dict[str, str], about: dict) -> None:
        """Write the set to a file, complete or not at all.

        Args:
            path: the file.
            excluded: reason for each id that was excluded.
            about: values of `GalaxySet` by name: source, read, settings, origin and row_order.

        Raises:
            OSError: the file cannot be written.
        """

        def fill(file: h5py.File) -> None:
            self.images.reserve(file, "images")
            for name, values in self.columns.items():
                file[name] = np.array(values, "<f8").reshape(len(self.ids), *COLUMNS[name])
            if self.masks is not None:
                file[MASKS] = np.array(self.masks, "u1").reshape(
                    len(self.ids), mask_bytes(self.images.shape[0])
                )
            hdf5.attribute(file, "version", VERSION if self.masks is not None else OLDEST)
            hdf5.attribute(file, "ids", json.dumps(self.ids))
            hdf5.attribute(file, "excluded", json.dumps(excluded))
            hdf5.attribute(file, "about", json.dumps(about))

        hdf5.write_sealed(path, PREPARED_FORMAT, fill, self.images)


@fitting(DataError)
def load(path: str | os.PathLike, limit: int | None = None) -> GalaxySet:
    """Read a set that `prepare` or `prepare_shards` wrote.

    Args:
        path: the file, or the folder of shards.
        limit: read only the first `limit` galaxies.

    Raises:
        DataError: the file is missing, truncated, damaged, not a prepared set, or in another
            version of the format; shards are missing; or `limit` is not a positive whole number.
    """
    limit = accept(Optional(Whole(least=1)), limit, "limit", "load", DataError)
    path = path_of(path, DataError)
    if not os.path.isdir(path):
        return load_file(path, limit)
    sets, rest = list[GalaxySet](), limit
    for file in files_of(path):
        sets.append(load_file(file, rest, may_be_empty=True))
        if rest is None:
            check_count(file, len(sets[-1]), DataError)
        rest = None if rest is None else rest - len(sets[-1])
    found = joined_about(path, sets, [one.ids for one in sets])
    found |= {name: joined([getattr(one, name) for one in sets]) for name in ("images", *COLUMNS)}
    return GalaxySet(**found, path=path)


def files_of(path: Path) -> list[Path]:
    """List the files of a prepared set: its own, or its shards, empty ones included.

    Raises:
        DataError: shards are missing, or the folder holds none.
    """
    if not os.path.isdir(path):
        return [path]
    if not is_sharded(path):
        raise DataError(f"{path}: a folder, and not one that prepare_shards() wrote")
    return [file for file, _ in finished(path, DataError)]


def joined_about(path: Path, sets: Sequence[GalaxySet], ids: Sequence[list[str]]) -> dict[str, Any]:
    """Return what a set of several files is about: values of `GalaxySet` by name.

    Args:
        path: the set.
        sets: what each file is about; their images are not looked at.
        ids: of the galaxies of each file.

    Raises:
        DataError: the files do not belong together.
    """
    first, every = sets[0], [name for own in ids for name in own]
    if len(set(every)) < len(every):
        raise DataError(f"{path}: its shards name a galaxy twice{AGAIN}")
    if other := next((one for one in sets if one.settings != first.settings), None):
        raise DataError(f"{other.path}: prepared with other settings than {first.path}{AGAIN}")
    bottom = sum(len(own) for one, own in zip(sets, ids, strict=True) if one.row_order == "bottom")
    return {
        "ids": every,
        "excluded": {name: reason for one in sets for name, reason in one.excluded.items()},
        "source": ", ".join(dict.fromkeys(one.source for one in sets)),
        "read": sum(one.read for one in sets),
        "settings": first.settings,
        "origin": first.origin if len(sets) == 1 else None,
        "row_order": "bottom" if 2 * bottom > len(every) else "top",
    }


def load_file(path: Path, limit: int | None, may_be_empty: bool = False) -> GalaxySet:
    """Read one file of a set; see `load`."""
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
        if version < OLDEST:
            raise DataError(f"{path}: format version {version}, older than {OLDEST}{AGAIN}")
        return _read(file, path, limit, may_be_empty)


def _read(file: hdf5.Reader, path: Path, limit: int | None, may_be_empty: bool) -> GalaxySet:
    """Read the galaxies from an open file, checking the type and shape of every part."""
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
            raise file.fail(f"attribute 'about': {name!r}", "is missing or of the wrong type")
    if about["row_order"] not in ("top", "bottom"):
        raise file.fail("attribute 'about': 'row_order'", "must be 'top' or 'bottom'")
    shape = file.dataset("images", kinds="f", shape=(count, None, None)).shape
    if not (count or may_be_empty) or not shape[1] or shape[1] != shape[2]:
        raise file.fail("'images'", f"must hold square images, got shape {shape}")
    columns: dict[str, Any] = {
        name: file.array(name, kinds="f", shape=(count, *rest), rows=limit)
        for name, rest in COLUMNS.items()
    }
    images = file.array("images", kinds="f", shape=shape, rows=limit).astype("f4", copy=False)
    packed = None
    if file.is_dataset(MASKS):
        packed = file.array(MASKS, kinds="u", shape=(count, mask_bytes(shape[1])), rows=limit)
    for name, values in (("images", images), *columns.items()):
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise file.fail(repr(name), "holds numbers that are not finite")
    return GalaxySet(
        images=with_masks(images, packed),
        ids=ids[:limit],
        excluded=left_out,
        path=path,
        **columns,
        **about,
    )


@fitting(DataError)
def split(ids: list[str], held_out: int, salt: str = "held-out") -> tuple[np.ndarray, np.ndarray]:
    """Split a set into a training and a held-out part, by the ids alone.

    Held out are the ids with the smallest BLAKE2b hashes of salt and id.  The order of the ids does
    not matter, and if galaxies are added to a set, few of the others change sides.  For a
    validation set, split the training ids again with another salt.

    Args:
        ids: of all galaxies.
        held_out: how many to hold out, at most half of them.
        salt: makes independent splits.

    Returns:
        Training indices and held-out indices, int64, each in increasing order.

    Raises:
        DataError: `held_out` is not a whole number, negative, or more than half of the ids.
    """
    held_out = accept(Whole(), held_out, "held_out", "split", DataError)
    if not isinstance(ids, list | tuple) or not all(isinstance(i, str) for i in ids):
        raise DataError(f"split: expected a list of ids, each a text, got {brief(ids)}")
    if held_out > len(ids) // 2:
        raise DataError(
            f"held out {held_out} of {len(ids)} galaxies: at least half must be left for training;"
            f" hold out at most {len(ids) // 2}, or use more images"
        )
    hashes = [hashlib.blake2b(f"{salt}/{i}".encode()).digest() for i in ids]
    order = np.array(sorted(range(len(ids)), key=lambda k: (hashes[k], ids[k])), dtype=np.int64)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def spread_out(count: int) -> np.ndarray:
    """Return the indices of the galaxies, up to 500 of `count`, whose bounds others rank among."""
    return spread(count, MOST_RANKED)


def spread(count: int, most: int) -> np.ndarray:
    """Return indices of `most` of `count` things at most, evenly spread, in increasing order."""
    return np.unique(np.linspace(0, count - 1, min(count, most), dtype=np.int64))
