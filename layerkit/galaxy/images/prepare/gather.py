"""Gathering: the galaxy set for a path, prepared now or reused from an earlier run."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from layerkit.errors import DataError, LayerkitError
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.contact import KEPT, contact_sheets, remove_sheets
from layerkit.galaxy.images.prepare.prepare import is_source_file, prepare
from layerkit.galaxy.images.prepare.sizing import native_size
from layerkit.galaxy.images.prepared import GalaxySet, is_prepared, load
from layerkit.galaxy.images.sources.files import ZipSource
from layerkit.galaxy.images.sources.sources import Source, open_source
from layerkit.galaxy.images.stored import StoredSet
from layerkit.galaxy.layout import SHEETS
from layerkit.saving.snapshot import write_atomically
from layerkit.settings import Optional, Whole, accept, fitting
from layerkit.system.files import path_of, temporary_beside

RECIPE = 13  # raise this if `prepare` changes what it makes of given pictures and settings


@fitting(DataError)
def gather(
    path: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str],
    limit: int | None = None,
    hdu: int | str | None = None,
    *,
    size: int | None = Settings.size,
    units: str = Settings.units,
    replacing: Callable[[GalaxySet], object] | None = None,
) -> GalaxySet:
    """Return the galaxies at a path: load a prepared set, or prepare the pictures found there.

    Prepared galaxies are kept in `cache`, and reused until the pictures, the settings or the recipe
    change.  Contact sheets are drawn in `contact_sheets/` beside it.

    Args:
        path: a file that `prepare` wrote, or anything that `open_source` accepts.
        cache: HDF5 file for the prepared galaxies; its folder is created if needed.
        limit: use only the first `limit` pictures, or prepared galaxies.
        hdu: see `open_source`.
        size: pixels on a side of a galaxy, default 69; None chooses a smaller size if crops are
            smaller (`native_size`), and prints it.  A prepared file is loaded at its own size.
        units: of pictures in physical units, see `Settings`; a prepared file must be in them.
        replacing: called with the new galaxies before they replace others in `cache`; if it raises,
            the others stay.

    Raises:
        DataError: the source is missing, empty, unreadable, or holds no usable galaxy.
    """
    limit = accept(Optional(Whole(least=1)), limit, "limit", "gather", DataError)
    cache = path_of(cache, DataError)
    if is_prepared(path):
        assert path is not None
        if hdu is not None:
            raise DataError(
                f"{path}: a prepared galaxy set has no FITS extensions to choose; leave hdu out"
            )
        prepared = load(path, limit)
        check_units(prepared, units)
        return prepared
    source = open_source(path, hdu)
    if is_source_file(source, cache) and not is_prepared(cache):
        raise DataError(f"{cache}: a file of the source; give the name of another to write")
    if size is None:
        size = native_size(source, limit, units=units)
        if size < Settings.size:
            print(
                f"the median crop is {size} pixels on a side, so galaxies are prepared at "
                f"{size} x {size} pixels instead of {Settings.size} x {Settings.size}"
            )
    # Taken before the pictures are read, as they may change meanwhile.
    origin = _origin(source, path, limit, hdu, Settings(size=size, units=units))
    sheets = cache.parent / SHEETS
    earlier = _load_if_whole(cache)
    galaxies = earlier
    if earlier is not None and earlier.origin == origin:
        print(f"uses {cache}, prepared earlier from {source.name}; delete it to prepare again")
    else:

        def write(part: Path) -> None:
            nonlocal galaxies
            try:
                print(prepare(source, part, size=size, units=units, limit=limit, origin=origin))
                galaxies = replace(load(part), path=cache)
            except DataError as error:
                raise DataError(str(error).replace(str(part), str(cache))) from error
            known = earlier is not None and earlier.digest == galaxies.digest
            if replacing is not None and cache.exists() and not known:
                replacing(galaxies)
            remove_sheets(sheets)  # those of other galaxies

        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, write)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"{cache}: cannot be written ({reason})") from error
    assert galaxies is not None
    if not (sheets / KEPT).is_file():
        _draw_sheets(galaxies, sheets, source)
    return galaxies


def check_units(galaxies: GalaxySet | StoredSet, units: str) -> None:
    """Fail if a prepared set is in other units than these."""
    found = galaxies.settings.get("units", Settings.units)
    if found != units:
        raise DataError(
            f"{galaxies.path}: prepared in units {found!r}, and {units!r} are asked for; prepare "
            f"the pictures again, or give units {found!r}"
        )


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
    """Describe everything that decides which galaxies `prepare` makes, without reading pictures.

    A file in a zip is described by its checksum.  Any other file is described by its size and the
    times of the last change to its content and to its metadata; the latter cannot be set back.
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
    except OSError:  # a broken link
        return ()
    return known.st_size, known.st_mtime_ns, known.st_ctime_ns


def _draw_sheets(galaxies: GalaxySet, folder: Path, source: Source) -> None:
    """Draw contact sheets, which appear when all are complete; print a line if that fails."""
    part = temporary_beside(folder)
    try:
        contact_sheets(galaxies, part, source)
        if folder.is_dir():  # with something else in it
            for path in sorted(part.iterdir()):  # the one that is looked for last
                path.replace(folder / path.name)
        else:
            part.rename(folder)
    except (LayerkitError, UnusableImageError, OSError) as error:
        if (folder / KEPT).is_file():  # somebody else who gathers has drawn them meanwhile
            return
        reason = getattr(error, "strerror", None) or error
        print(f"no contact sheets in {folder}: {reason}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
