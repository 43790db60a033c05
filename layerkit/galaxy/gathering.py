"""gather: a galaxy set from wherever a path points, prepared now, before, or elsewhere."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from layerkit.errors import DataError
from layerkit.galaxy.contact import contact_sheets
from layerkit.galaxy.dataset import GalaxySet, load
from layerkit.galaxy.preparation import Settings, prepare
from layerkit.galaxy.sizing import native_size
from layerkit.galaxy.sources import Source, is_prepared, open_source

SHEETS = "contact_sheets"


def gather(
    path: str | os.PathLike[str] | None, cache: Path, limit: int | None = None,
    size: int | None = Settings.size,
) -> GalaxySet:
    """The galaxies at `path`: an HDF5 file that `prepare` wrote, or any source it can prepare.

    What is prepared is kept in `cache`, and used again while it is newer than the source and of
    the same pictures and settings.  Contact sheets of it go into `contact_sheets/` beside it.

    Args:
        path: see `open_source`; None is the Hubble Deep Field that scikit-image ships.
        cache: HDF5 file for what is prepared; its folder is made if need be.
        limit: only the first so many pictures (or prepared galaxies).
        size: pixels on a side of a galaxy; None takes fewer than the default where crops have fewer
            (`native_size`), and says so.  A prepared file has the size that it has.

    Raises:
        DataError: the source is missing, empty, cannot be read, or holds no usable galaxy.
    """
    if is_prepared(path):
        assert path is not None
        return load(path, limit)
    source = open_source(path)
    if size is None:
        size = native_size(source, limit)
        if size < Settings.size:
            print(
                f"crops have {size} pixels on a side in the median: galaxies of {size} x {size} "
                f"pixels are made of them, not of {Settings.size} x {Settings.size}"
            )
    kept = _still_good(cache, source, path, limit, size)
    if kept:
        print(f"uses {cache}, prepared from {source.name} earlier (delete it to start afresh)")
        return kept
    print(prepare(source, cache, limit=limit, size=size))
    galaxies = load(cache)
    contact_sheets(galaxies, cache.parent / SHEETS, source)
    return galaxies


def _still_good(
    cache: Path, source: Source, path: str | os.PathLike[str] | None, limit: int | None, size: int
) -> GalaxySet | None:
    """What is in the cache, or None if it is not there, damaged, or not of this source."""
    if not is_prepared(cache) or (path and _changed(Path(path)) > cache.stat().st_mtime):
        return None
    try:
        kept = load(cache)
    except DataError:
        return None
    same = sorted([*kept.ids, *kept.excluded]) == sorted(source.ids[:limit])
    return kept if same and kept.settings == asdict(Settings(size=size)) else None


def _changed(path: Path) -> float:
    """When a file, or any in a folder, was last changed, in seconds."""
    return max(p.stat().st_mtime for p in [path, *path.rglob("*")] if p.exists())
