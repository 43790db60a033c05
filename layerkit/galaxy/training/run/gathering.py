"""The galaxies of a run: those to train on, to watch training with, and held out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import layerkit as lk
from layerkit import layers as L
from layerkit.data.arrays import data_of
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.coverage.source_pictures import SourcePictures
from layerkit.galaxy.images.prepare.gather import check_units, gather
from layerkit.galaxy.images.prepared import GalaxySet, is_sharded, split, spread
from layerkit.galaxy.images.stored import StoredSet
from layerkit.galaxy.layout import GALAXIES, HELD_OUT, SHEETS
from layerkit.galaxy.model.masks import beside_mask, with_masked_data
from layerkit.galaxy.training import settings as defaults
from layerkit.galaxy.training.run.served import MaskedImages
from layerkit.galaxy.training.settings import Settings

MANY = 20_000  # images of a set in shards that are in memory
REDRAWN = 30  # pictures, at least, that show how far z scatters: those watched, then trained on


@dataclass
class Galaxies:
    """The galaxies of a run.

    Attributes:
        train: images to train on, (n, side, side); of a set in shards 20,000 at most, evenly
            spread, for what needs many at a time, such as PCA.
        count: number of images to train on.
        watched: images that training is watched with.
        held_out: images that training never sees.
        ids: of those held out.
        row_order: of those held out; see `GalaxySet`.
        counts: of pictures and galaxies, and a digest of these, for the metrics.
        prepared: digests of the prepared sets, for the snapshot.
        unused: files and folders of an earlier run that this one does not write.
        watched_pictures: pictures whose noise is redrawn after training.
        held_out_pictures: those whose noise is redrawn in the evaluation.
        masked: whether images to train on may be masked arrays.
        files: of a set in shards, which training reads; none where `train` holds all.
        skip: rows of these files that are not trained on.
    """

    train: np.ndarray
    count: int
    watched: np.ndarray
    held_out: np.ndarray
    ids: list[str]
    row_order: str
    counts: dict[str, Any]
    prepared: dict[str, str]
    unused: list[str]
    watched_pictures: SourcePictures
    held_out_pictures: SourcePictures
    masked: bool
    files: list[Path]
    skip: np.ndarray

    def layers(self, net: list[lk.Layer], settings: Settings) -> list[lk.Layer]:
        """Return the layers of a net, with one that serves the images to train on as its input."""
        join = with_masked_data if self.masked else lk.with_data
        return join(net, self.layer(settings))

    def layer(self, settings: Settings) -> L.MemoryData | L.HDF5Data:
        """Make the layer that serves the images to train on, with the top "x".

        Images are served with their masks, if there are any; see `beside_mask`.
        """
        top = "x_and_mask" if self.masked else "x"
        augment = None if settings.augment == "none" else settings.augment
        if not self.files:
            data = beside_mask(self.train) if self.masked else self.train
            return L.MemoryData(top, data=data, augment=augment, repeat=settings.samples)
        if settings.samples > 1:
            raise DataError(
                f"--samples {settings.samples}: galaxies of a set in shards have one sample each; "
                "leave it out, or prepare them into one file"
            )
        lanes = settings.shards if settings.shards and settings.shards > 1 else None
        served = MaskedImages if self.masked else L.HDF5Data
        return served(top, path=list(self.files), augment=augment, skip=self.skip, lanes=lanes)


def gather_galaxies(
    settings: Settings,
    folder: Path,
    size: int | None,
    replacing: Callable[[str, GalaxySet], object],
) -> Galaxies:
    """Gather the galaxies of a run.

    Args:
        settings: of the run.
        folder: of the run, which keeps the prepared galaxies.
        size: see `gather`.
        replacing: called with "prepared" or "prepared_held_out" and a new set before this takes
            the place of another; if it raises, the other stays.

    Raises:
        DataError: see `gather`; held-out galaxies of another size than the others, or too few
            galaxies.
    """
    limit = defaults.TINY if settings.tiny else None
    source, place = settings.data or "the default", settings.data
    everything: GalaxySet | StoredSet
    if limit is None and settings.hdu is None and is_sharded(settings.data):
        everything = StoredSet(settings.data or "")
        check_units(everything, settings.units)
    else:
        everything = gather(
            settings.data,
            folder / GALAXIES,
            limit,
            hdu=settings.hdu,
            size=size,
            units=settings.units,
            replacing=lambda new: replacing("prepared", new),
        )
    prepared, unused = {"prepared": everything.digest}, list[str]()
    if isinstance(settings.held_out, str):
        others = gather(
            settings.held_out,
            folder / HELD_OUT / GALAXIES,
            limit,
            hdu=settings.hdu,
            size=everything.size,
            units=settings.units,
            replacing=lambda new: replacing("prepared_held_out", new),
        )
        rest = _without_held_out(everything, others, settings.held_out, source)
        of: GalaxySet | StoredSet = others
        rows, held_out = np.arange(len(others)), others.images
        place = settings.held_out
        prepared["prepared_held_out"] = others.digest
    else:
        few = min(defaults.HELD_OUT, max(1, len(everything) // 5))
        rest, rows = split(everything.ids, settings.held_out or few)
        of, held_out = everything, everything.images_of(rows)
    if of is everything or of.path.absolute().parent != folder / HELD_OUT:
        unused += [HELD_OUT]
    if everything.path.absolute().parent != folder:  # a set prepared elsewhere
        unused += [GALAXIES, SHEETS]
    rest = _without_copies(everything, rest, held_out, source)
    train, watch = _train_and_watch(everything, rest)
    if not len(train) or not len(watch) or not len(held_out):
        raise DataError(
            f"{len(everything)} galaxies are too few to train on, watch and hold out; bring more"
        )
    stored = isinstance(everything, StoredSet)
    some = train[spread(len(train), MANY)] if stored else train
    images = everything.images_of(some)
    redrawn = np.append(watch, train[: max(0, REDRAWN - len(watch))])
    return Galaxies(
        train=images,
        count=len(train),
        watched=everything.images_of(watch),
        held_out=held_out,
        ids=[of.ids[i] for i in rows],
        row_order=of.row_order,
        counts={
            "images_read": everything.read,
            "images_kept": len(everything),
            "excluded": everything.excluded_counts,
            "galaxies": _digest(everything, rest, held_out),
        },
        prepared=prepared,
        unused=unused,
        watched_pictures=SourcePictures(settings.data, everything, redrawn, hdu=settings.hdu),
        held_out_pictures=SourcePictures(place, of, rows, hdu=settings.hdu),
        masked=everything.masked if isinstance(everything, StoredSet) else np.ma.is_masked(images),
        files=everything.files if isinstance(everything, StoredSet) else [],
        skip=np.setdiff1d(np.arange(len(everything)), train) if stored else train[:0],
    )


def _train_and_watch(
    everything: GalaxySet | StoredSet, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices that are left into those to train on and those to watch it with."""
    watched = min(500, len(rest) // 10)
    train, watch = split([everything.ids[i] for i in rest], watched, salt="validation")
    return rest[train], rest[watch]


def _digest(everything: GalaxySet | StoredSet, rest: np.ndarray, held_out: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([everything.ids[i] for i in rest]).encode())
    kept = np.isin(np.arange(len(everything)), rest)
    for image in itertools.chain(itertools.compress(everything, kept), held_out):
        digest.update(np.ascontiguousarray(np.ma.filled(image, np.nan)).tobytes())
    return digest.hexdigest()


def _without_held_out(
    everything: GalaxySet | StoredSet, others: GalaxySet, held_out: str, source: str
) -> np.ndarray:
    """Return the indices of the galaxies that another source does not hold out."""
    if others.size != everything.size:
        raise DataError(
            f"{held_out} has galaxies of {others.size} x {others.size} pixels, and {source} of "
            f"{everything.size} x {everything.size}; hold out pictures, or a set prepared with "
            "this size"
        )
    rest, namesakes = without_namesakes(everything, others)
    if left_out := len(everything) - len(rest):
        print(
            f"{left_out} of the galaxies have ids (file names) of held-out ones and look like "
            "them; they are not trained on"
        )
    if namesakes:
        print(
            f"{namesakes} of the galaxies have ids (file names) of held-out ones but look "
            "different; they are taken as other galaxies, and trained on"
        )
    if not len(rest):
        raise DataError(
            f"none of the {len(everything)} galaxies of {source} is left to train on: {held_out} "
            "holds out all of them; give --held-out a number, or other galaxies"
        )
    return rest


def _without_copies(
    everything: GalaxySet | StoredSet, rest: np.ndarray, held_out: np.ndarray, source: str
) -> np.ndarray:
    own = without_copies(everything, rest, held_out)
    if copies := len(rest) - len(own):
        print(f"{copies} of the galaxies are copies of held-out ones, and not trained on")
    if not len(own):
        raise DataError(
            f"none of the {len(everything)} galaxies of {source} is left to train on: all others "
            "are copies of those held out; hold out other galaxies"
        )
    return own


def without_namesakes(
    everything: GalaxySet | StoredSet, others: GalaxySet
) -> tuple[np.ndarray, int]:
    """Leave out the galaxies that `others` has, too, by id and by what they look like.

    One galaxy in two bands looks more like itself than like others; pictures that are merely
    numbered alike in two folders do not.  So a galaxy counts as its namesake if it correlates
    better with it than with 95% of the others.

    Returns:
        indices of the galaxies that are left, and how many of these have a namesake.
    """
    at = {name: j for j, name in enumerate(others.ids)}
    shared = [(i, at[name]) for i, name in enumerate(everything.ids) if name in at]
    flat = data_of(others.images).reshape(len(others), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    itself = []
    images = data_of(everything.images_of(np.array([i for i, _ in shared], int)))
    for (i, j), one in zip(shared, images, strict=True):
        image = one.ravel().astype(np.float64)
        likeness = flat @ (image - image.mean())
        if (likeness > likeness[j]).mean() <= 0.05:
            itself.append(i)
    rest = np.setdiff1d(np.arange(len(everything)), itself)
    return rest, len(shared) - len(itself)


def without_copies(
    images: Iterable[np.ndarray], rest: np.ndarray, held_out: np.ndarray
) -> np.ndarray:
    """Return those of the indices `rest` whose images are not among the held-out ones.

    A picture that lies in a folder twice, under two names, would be trained and evaluated on.
    """
    seen = {hashlib.sha256(image.tobytes()).digest() for image in held_out}
    new = [hashlib.sha256(image.tobytes()).digest() not in seen for image in images]
    return rest[np.array(new, bool)[rest]]
