"""Pictures to be encoded: any source, or a prepared set, one at a time and in order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.catalogue.photometry.stamps import Stamp, Stamper
from layerkit.galaxy.images.crop.crop import Cut, Settings
from layerkit.galaxy.images.prepare.gather import check_units
from layerkit.galaxy.images.prepare.prepare import check_source, cuts
from layerkit.galaxy.images.prepared import GalaxySet, is_prepared
from layerkit.galaxy.images.sources.ids import printable
from layerkit.galaxy.images.sources.sources import Source, open_source
from layerkit.galaxy.images.stored import StoredSet

ANOTHER = "the galaxy found is not the one at the position"
NEAR = 2.0  # pixels, at least, from a position to the galaxy there


@dataclass
class Picture:
    """One picture of a source.

    Attributes:
        id: its id.
        file: name of its file in the source; empty if it has none.
        reason: why it is unusable; empty if it is not.
        cut: the square that was cut out of it, unless it is unusable.
        image: float32 (size, size), prepared, unless it is unusable.
        scale: arcseconds per pixel of the picture, NaN if unknown.
        stamp: its pixels as they were, unless it is unusable, prepared, or light in 0..1.
    """

    id: str
    file: str = ""
    reason: str = ""
    cut: Cut | None = None
    image: np.ndarray | None = None
    scale: float = math.nan
    stamp: Stamp | None = None


@dataclass
class Pictures:
    """Pictures that are read while they are iterated over, once.

    Attributes:
        name: of the source.
        total: number of pictures, usable or not.
        row_order: "top" or "bottom", where the first row of a picture is displayed.
        items: the pictures, in the order of the source.
    """

    name: str
    total: int
    row_order: str
    items: Iterable[Picture]


def pictures_of(
    given: Any, settings: Settings, workers: int | None, limit: int | None, hdu: int | str | None
) -> Pictures:
    """Return the pictures of a source, a prepared set, or a path to either.

    Args:
        given: a `Source`, a `GalaxySet`, a path, or None, the built-in galaxies.
        settings: of the crop, for pictures that are not prepared yet.
        workers: processes that read pictures; see `prepare`.
        limit: use only the first `limit` pictures.
        hdu: see `open_source`.

    Raises:
        DataError: none of these, or a set that was prepared at another size or in other units.
    """
    is_path = given is None or isinstance(given, str | os.PathLike)
    if given is not None and is_path and is_prepared(given):
        given = StoredSet(given)
    elif is_path:
        given = open_source(given, hdu)
    if hdu is not None and (not is_path or isinstance(given, StoredSet)):
        raise DataError(
            "encode: hdu chooses a FITS extension of the files at a path; leave it out for a "
            "prepared set, and for a source that is open already"
        )
    if isinstance(given, GalaxySet | StoredSet):
        if given.size != settings.size:
            raise DataError(
                f"{given.path}: galaxies of {given.size} x {given.size} pixels, and the model "
                f"takes {settings.size} x {settings.size}; give the pictures that they were made "
                "of, or a model of their size"
            )
        check_units(given, settings.units)
        ids = _in_order(given)[:limit]
        return Pictures(given.source, len(ids), given.row_order, _prepared(given, ids))
    check_source(given, "encode")
    total = len(given) if limit is None else min(limit, len(given))
    order = getattr(given, "row_order", "top")
    return Pictures(given.name, total, order, _cut(given, total, settings, workers))


def _in_order(galaxies: GalaxySet | StoredSet) -> list[str]:
    """Return the ids of a prepared set, excluded ones among the others if their order is known."""
    every = [*galaxies.ids, *galaxies.excluded]
    known = (galaxies.origin or {}).get("ids")
    if isinstance(known, list) and len(known) == len(every) and set(every) == set(map(str, known)):
        return known
    return every


def _prepared(galaxies: GalaxySet | StoredSet, ids: list[str]) -> Iterator[Picture]:
    images = galaxies.images if isinstance(galaxies, GalaxySet) else galaxies
    rest = zip(galaxies.ids, images, galaxies.crops, galaxies.stretches, strict=True)
    for name in ids:
        if name in galaxies.excluded:
            yield Picture(name, reason=galaxies.excluded[name])
            continue
        own, image, (y0, x0, side), (sky, spread, white) = next(rest)
        if own != name:
            raise DataError(
                f"{galaxies.path}: its galaxies are in another order than its source; prepare the "
                "set again"
            )
        yield Picture(name, cut=Cut(y0, x0, side, sky, spread, white), image=image)


def _cut(source: Source, total: int, settings: Settings, workers: int | None) -> Iterator[Picture]:
    files = getattr(source, "files", None)
    places = getattr(source, "pictures", None)
    scales, corners = getattr(source, "scales", None), getattr(source, "corners", None)
    centres: Any = getattr(source, "centres", None)  # beside corners
    try:
        for i, result in enumerate(cuts(source, range(total), settings, workers, Stamper)):
            file = printable(str(files[places[i][0]])) if files and places else ""
            picture = Picture(source.ids[i], file, scale=math.nan if scales is None else scales[i])
            if isinstance(result, str):
                yield replace(picture, reason=result)
                continue
            image, cut, stamp = result
            if (
                corners is not None and centres is not None
            ):  # the picture is itself a part of a larger one
                cut = replace(cut, y0=cut.y0 + corners[i][0], x0=cut.x0 + corners[i][1])
                if _is_off(cut, centres[i], settings):
                    yield replace(picture, reason=ANOTHER)
                    continue
            yield replace(picture, image=image, cut=cut, stamp=stamp)
    except OSError as error:  # errors of pictures are among the results
        raise DataError(
            f"{source.name}: encoding stopped ({error.strerror or error}); try workers=1 where no "
            "process can be started"
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{source.name}: a worker process was killed, perhaps for lack of memory; try workers=1"
        ) from error


def _is_off(cut: Cut, centre: np.ndarray, settings: Settings) -> bool:
    """Tell whether a galaxy is farther from the position it was asked for than its own radius."""
    y, x = (start + cut.side / 2 - 0.5 for start in (cut.y0, cut.x0))
    distance = math.hypot(y - centre[0], x - centre[1])
    return distance > max(NEAR, cut.side / settings.frame)
