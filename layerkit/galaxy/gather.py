"""gather: a galaxy set from wherever a path points, prepared now, before, or elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from layerkit.errors import DataError
from layerkit.galaxy.dataset import GalaxySet, load
from layerkit.galaxy.prepare import prepare
from layerkit.galaxy.sources import is_prepared, open_source


def gather(
    path: str | os.PathLike[str] | None, cache: Path, limit: int | None = None
) -> GalaxySet:
    """The galaxies at `path`: an HDF5 file that `prepare` wrote, or any source it can prepare.

    What is prepared is kept in `cache` and used again while the source looks the same: its name
    and the number of its pictures.

    Args:
        path: see `open_source`; None is the Hubble Deep Field that scikit-image ships.
        cache: HDF5 file for what is prepared.
        limit: only the first so many pictures (or prepared galaxies).

    Raises:
        DataError: the source is missing, empty, cannot be read, or holds no usable galaxy.
    """
    if is_prepared(path):
        assert path is not None
        return load(path, limit)
    source = open_source(path)
    count = len(source) if limit is None else min(limit, len(source))
    if is_prepared(cache):
        try:
            kept = load(cache)
        except DataError:
            kept = None  # of another version, or damaged: made anew
        if kept and (kept.source, kept.read) == (source.name, count):
            print(f"uses {cache}, prepared from {source.name} earlier (delete it to start afresh)")
            return kept
    print(prepare(source, cache, limit=limit))
    return load(cache)
