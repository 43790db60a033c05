"""gather: a galaxy set from wherever a path points, prepared now, before, or elsewhere."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from layerkit.errors import DataError, LayerkitError
from layerkit.files import path_of
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.contact import contact_sheets
from layerkit.galaxy.images.prepare.prepare import Settings, is_of, prepare
from layerkit.galaxy.images.prepare.sizing import native_size
from layerkit.galaxy.images.prepared import GalaxySet, is_prepared, load
from layerkit.galaxy.images.sources.files import ZipSource
from layerkit.galaxy.images.sources.sources import Source, open_source
from layerkit.galaxy.layout import SHEETS
from layerkit.settings import Optional, Whole, accept, fitting
from layerkit.snapshot import write_atomically

RECIPE = 7  # to be raised whenever `prepare` makes other galaxies of equal pictures and settings


@fitting(DataError)
def gather(
    path: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str],
    limit: int | None = None,
    hdu: int | str | None = None,
    *,
    size: int | None = Settings.size,
    replacing: Callable[[GalaxySet], object] | None = None,
) -> GalaxySet:
    """Return the galaxies at `path`: an HDF5 file that `prepare` wrote, or any source it can read.

    What is prepared is kept in `cache`, and used again while the pictures, the settings and the way
    of preparing them are what they were.  Contact sheets of it go into `contact_sheets/` beside it.

    Args:
        path: see `open_source`; None is the Hubble Deep Field that scikit-image ships.
        cache: HDF5 file for what is prepared; its folder is made if need be.
        limit: only the first so many pictures (or prepared galaxies).
        hdu: see `open_source`.
        size: pixels on a side of a galaxy; None takes fewer than the default where crops have fewer
            (`native_size`), and says so.  A prepared file has the size that it has.
        replacing: called with the new galaxies before they take the place of others in `cache`,
            which stay where they are if it raises.

    Raises:
        DataError: the source is missing, empty, cannot be read, or holds no usable galaxy.
    """
    limit = accept(Optional(Whole(least=1)), limit, "limit", "gather", DataError)
    cache = path_of(cache, DataError)
    if is_prepared(path):
        assert path is not None
        if hdu is not None:
            raise DataError(
                f"{path}: a prepared galaxy set has no FITS extensions to choose; leave hdu out"
            )
        return load(path, limit)
    source = open_source(path, hdu)
    if is_of(source, cache) and not is_prepared(cache):
        raise DataError(f"{cache}: a file of the source; give the name of another to write")
    if size is None:
        size = native_size(source, limit)
        if size < Settings.size:
            print(
                f"crops have {size} pixels on a side in the median: galaxies of {size} x {size} "
                f"pixels are made of them, not of {Settings.size} x {Settings.size}"
            )
    # Before they are read: they may change meanwhile.
    origin = _origin(source, path, limit, hdu, Settings(size=size))
    sheets = cache.parent / SHEETS
    earlier = _load_if_whole(cache)
    galaxies = earlier
    if earlier is not None and earlier.origin == origin:
        print(f"uses {cache}, prepared from {source.name} earlier (delete it to start afresh)")
    else:

        def write(part: Path) -> None:
            nonlocal galaxies
            try:
                print(prepare(source, part, size=size, limit=limit, origin=origin))
                galaxies = replace(load(part), path=cache)
            except DataError as error:
                raise DataError(str(error).replace(str(part), str(cache))) from error
            known = earlier is not None and earlier.digest == galaxies.digest
            if replacing is not None and cache.exists() and not known:
                replacing(galaxies)
            shutil.rmtree(sheets, ignore_errors=True)  # of other galaxies

        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, write)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"{cache}: cannot be written ({reason})") from error
    assert galaxies is not None
    if not sheets.is_dir():
        _draw_sheets(galaxies, sheets, source)
    return galaxies


def _load_if_whole(cache: Path) -> GalaxySet | None:
    try:
        return load(cache) if is_prepared(cache) else None
    except DataError:
        return None


def _origin(
    source: Source,
    path: str | os.PathLike[str] | None,
    limit: int | None,
    hdu: int | str | None,
    settings: Settings,
) -> dict[str, Any]:
    """All that decides which galaxies `prepare` makes, as far as can be told without reading.

    For each file in a zip that is its checksum; elsewhere its size and the times of its last change
    of content and of any change, of which nobody can set the latter back.
    """
    origin: dict[str, Any] = {
        "path": None if path is None else os.path.realpath(path),
        "source": source.name,
        "ids": source.ids[:limit],
        "limit": limit,
        "hdu": hdu,
        "recipe": RECIPE,
        "settings": asdict(settings),
    }
    if isinstance(source, ZipSource):
        with zipfile.ZipFile(source.path) as archive:
            origin["files"] = [[e.filename, e.file_size, e.CRC] for e in archive.infolist()]
    elif path is not None:
        top = Path(path) if os.path.isdir(path) else Path(path).parent
        names = getattr(source, "files", [Path(path).name])
        origin["files"] = [[name, *_stamp(top / name)] for name in names]
    return origin


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        known = path.stat()
    except OSError:  # a link to nowhere
        return ()
    return known.st_size, known.st_mtime_ns, known.st_ctime_ns


def _draw_sheets(galaxies: GalaxySet, folder: Path, source: Source) -> None:
    """Contact sheets, under their name only when all are drawn; training can do without them."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        contact_sheets(galaxies, part, source)
        part.rename(folder)
    except (LayerkitError, UnusableImageError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"no contact sheets in {folder}: {reason}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
