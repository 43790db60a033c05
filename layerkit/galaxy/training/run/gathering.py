"""The galaxies of a run: those to train on, to watch training with, and held out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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

MANY = 20_000  # images of a set in shards that are in memory, to train on and held out
CENTRED = 1000  # images by which biases are centred
CHUNK = 256  # images that are read together
ROUNDING = 1e-9  # of correlations
COMPARED = 1000  # held-out galaxies that one with a namesake is compared with
REDRAWN = 30  # pictures, at least, that show how far z scatters: those watched, then trained on


@dataclass
class Galaxies:
    """The galaxies of a run.

    Attributes:
        train: images to train on, (n, side, side); of a set in shards 20,000 at most, evenly
            spread, for what needs many at a time, such as PCA.
        count: number of images to train on.
        watched: images that training is watched with.
        held_out: images that training never sees; of a set in shards 20,000 at most, evenly spread,
            and none of the others is trained on either.
        ids: of `held_out`.
        row_order: of those held out; see `GalaxySet`.
        counts: of pictures and galaxies, and a digest of these, for the metrics.
        prepared: digests of the prepared sets, for the snapshot.
        preparation: settings by which they were prepared.
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
    preparation: dict[str, Any]
    unused: list[str]
    watched_pictures: SourcePictures | None
    held_out_pictures: SourcePictures | None
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
        lanes = settings.shards if settings.shards and settings.shards > 1 else None
        served = MaskedImages if self.masked else L.HDF5Data
        return served(
            top,
            path=list(self.files),
            augment=augment,
            skip=self.skip,
            lanes=lanes,
            repeat=settings.samples,
        )

    def to_train_on(self) -> Galaxies:
        """Return what processes need that only share the steps."""
        return replace(
            self,
            train=self.train[:CENTRED] if self.files else self.train,
            held_out=self.held_out[:0],
            ids=[],
            watched_pictures=None,
            held_out_pictures=None,
        )


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

    def gathered(
        path: str | None, cache: Path, size: int | None, name: str
    ) -> GalaxySet | StoredSet:
        if limit is None and settings.hdu is None and path is not None and is_sharded(path):
            stored = StoredSet(path)
            check_units(stored, settings.units)
            return stored
        return gather(
            path,
            cache,
            limit,
            hdu=settings.hdu,
            size=size,
            units=settings.units,
            replacing=lambda new: replacing(name, new),
        )

    everything = gathered(settings.data, folder / GALAXIES, size, "prepared")
    prepared, unused = {"prepared": everything.digest}, list[str]()
    if isinstance(settings.held_out, str):
        cache = folder / HELD_OUT / GALAXIES
        of = gathered(settings.held_out, cache, everything.size, "prepared_held_out")
        rest = _without_held_out(everything, of, settings.held_out, source)
        rows = np.arange(len(of))
        place = settings.held_out
        prepared["prepared_held_out"] = of.digest
    else:
        few = min(defaults.HELD_OUT, max(1, len(everything) // 5))
        rest, rows = split(everything.ids, settings.held_out or few)
        of = everything
    if of is everything or of.path.absolute().parent != folder / HELD_OUT:
        unused += [HELD_OUT]
    if everything.path.absolute().parent != folder:  # a set prepared elsewhere
        unused += [GALAXIES, SHEETS]
    rest = _without_copies(everything, rest, _images(of, rows), source)
    train, watch = _train_and_watch(everything, rest)
    if not len(train) or not len(watch) or not len(rows):
        raise DataError(
            f"{len(everything)} galaxies are too few to train on, watch and hold out; bring more"
        )
    digest = _digest(everything, rest, _images(of, rows))
    stored = isinstance(everything, StoredSet)
    some = train[spread(len(train), MANY)] if stored else train
    looked_at, in_all = rows, dict[str, int]()
    if isinstance(of, StoredSet) and len(rows) > MANY:
        looked_at, in_all = rows[spread(len(rows), MANY)], {"held_out_in_all": len(rows)}
        print(f"{len(rows)} galaxies are held out, of which {MANY}, evenly spread, are evaluated")
    images = everything.images_of(some)
    redrawn = np.append(watch, train[: max(0, REDRAWN - len(watch))])
    return Galaxies(
        train=images,
        count=len(train),
        watched=everything.images_of(watch),
        held_out=of.images_of(looked_at),
        ids=[of.ids[i] for i in looked_at],
        row_order=of.row_order,
        counts={
            "images_read": everything.read,
            "images_kept": len(everything),
            "excluded": everything.excluded_counts,
            "galaxies": digest,
            **in_all,
        },
        prepared=prepared,
        preparation=everything.settings,
        unused=unused,
        watched_pictures=SourcePictures(settings.data, everything, redrawn, hdu=settings.hdu),
        held_out_pictures=SourcePictures(place, of, looked_at, hdu=settings.hdu),
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


def _images(galaxies: GalaxySet | StoredSet, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images of some rows, in increasing order, few of which are in memory at a time."""
    for start in range(0, len(rows), CHUNK):
        yield from galaxies.images_of(rows[start : start + CHUNK])


def _digest(
    everything: GalaxySet | StoredSet, rest: np.ndarray, held_out: Iterable[np.ndarray]
) -> str:
    digest = hashlib.sha256(json.dumps([everything.ids[i] for i in rest]).encode())
    for image in itertools.chain(_images(everything, rest), held_out):
        digest.update(np.ascontiguousarray(np.ma.filled(image, np.nan)).tobytes())
    return digest.hexdigest()


def _without_held_out(
    everything: GalaxySet | StoredSet, others: GalaxySet | StoredSet, held_out: str, source: str
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
    everything: GalaxySet | StoredSet, rest: np.ndarray, held_out: Iterable[np.ndarray], source: str
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
    everything: GalaxySet | StoredSet, others: GalaxySet | StoredSet
) -> tuple[np.ndarray, int]:
    """Leave out the galaxies that `others` has, too, by id and by what they look like.

    One galaxy in two bands looks more like itself than like others; pictures that are merely
    numbered alike in two folders do not.  So a galaxy counts as its namesake if it correlates
    better with it than with 95% of the others, or of a thousand of them.

    Returns:
        indices of the galaxies that are left, and how many of these have a namesake.
    """
    at = {name: j for j, name in enumerate(others.ids)}
    shared = np.array([(i, at[x]) for i, x in enumerate(everything.ids) if x in at], int)
    shared = shared.reshape(-1, 2)
    some = _directions(others.images_of(spread(len(others), COMPARED)))
    itself = []
    for start in range(0, len(shared), CHUNK):
        mine, theirs = shared[start : start + CHUNK].T
        _, place = np.unique(theirs, return_inverse=True)
        own = _directions(others.images_of(theirs))[place]
        images = _directions(everything.images_of(mine))
        likeness = np.einsum("ij,ij->i", images, own)
        closer = (images @ some.T > likeness[:, None] + ROUNDING).mean(axis=1)
        itself += mine[closer <= 0.05].tolist()
    rest = np.setdiff1d(np.arange(len(everything)), itself)
    return rest, len(shared) - len(itself)


def _directions(images: np.ndarray) -> np.ndarray:
    """Return each image as a vector of length 1 and mean 0, of which products are correlations."""
    flat = data_of(images).reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def without_copies(
    images: Iterable[np.ndarray], rest: np.ndarray, held_out: Iterable[np.ndarray]
) -> np.ndarray:
    """Return those of the indices `rest` whose images are not among the held-out ones.

    A picture that lies in a folder twice, under two names, would be trained and evaluated on.
    """
    seen = {hashlib.sha256(image.tobytes()).digest() for image in held_out}
    new = [hashlib.sha256(image.tobytes()).digest() not in seen for image in images]
    return rest[np.array(new, bool)[rest]]
