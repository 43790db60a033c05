"""Tables that name pictures: by the paths of files, or by positions in one large image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.galaxy.catalogue.tables.joining import id_texts
from layerkit.galaxy.catalogue.tables.tables import read_catalogue
from layerkit.galaxy.images.sources.listed import CUTOUT, PathsSource, PositionsSource
from layerkit.settings import Whole, accept, fitting
from layerkit.settings.names import closest, quoted

if TYPE_CHECKING:
    from astropy.table import Table

# pairs of columns in any case -> the pixel at their origin; None for degrees on the sky
PAIRS: dict[tuple[str, str], int | None] = {
    ("x", "y"): 0,
    ("x_image", "y_image"): 1,  # of Source Extractor, which counts from 1
    ("ra", "dec"): None,
    ("alpha_j2000", "delta_j2000"): None,
}
IDS = ("id", "number")  # columns that hold ids unless another is named, in any case
SPELT = tuple(case(name) for name in IDS for case in (str.lower, str.upper, str.title))


@fitting(DataError)
def open_positions(
    image: str | os.PathLike[str],
    table: Table | str | os.PathLike[str],
    *,
    id_column: str | None = None,
    cutout: int = CUTOUT,
    hdu: int | str | None = None,
) -> PositionsSource:
    """Open squares around the positions of a table in one FITS image, as a source of pictures.

    The image may be larger than memory: each square is read when it is asked for.

    Args:
        image: the FITS file.
        table: an astropy table, or the path of one that `read_catalogue` reads, with columns x and
            y, in pixels, the centre of the first pixel at (0, 0); or X_IMAGE and Y_IMAGE, which
            begin at (1, 1); or ra and dec, or ALPHA_J2000 and DELTA_J2000, in degrees, in the
            system of the image's WCS.  The first of these pairs that is there counts.
        id_column: its column of ids; by default "id" or "NUMBER", else rows are counted from 1.
        cutout: pixels on a side of a square, 8 to 8192, default 128: several times the size of a
            galaxy, which needs sky around it.
        hdu: the FITS extension, by number or name, if the file holds several images.

    Raises:
        DataError: files that cannot be read, no such columns, ids that repeat, several images in
            the file, or no WCS for positions on the sky.
    """
    cutout = accept(Whole(8, 8192), cutout, "cutout", "open_positions", DataError)
    table, name = _read(table, "positions", id_column)
    columns = {column.lower(): column for column in reversed(table.colnames)}
    pair = next((pair for pair in PAIRS if set(pair) <= columns.keys()), None)
    if pair is None:
        raise DataError(
            f"{name}: no columns x and y, X_IMAGE and Y_IMAGE, ra and dec, or ALPHA_J2000 and "
            f"DELTA_J2000; it has {quoted(table.colnames)}"
        )
    origin = PAIRS[pair]
    first, second = (_numbers(table, columns[c], name, origin is None) for c in pair)
    ids = _ids(table, id_column, name)
    if ids is None:
        ids = [str(k + 1) for k in range(len(table))]
    return PositionsSource(
        image, ids, first - (origin or 0), second - (origin or 0), origin is None, cutout, hdu
    )


@fitting(DataError)
def open_paths(
    table: Table | str | os.PathLike[str],
    *,
    column: str = "path",
    id_column: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    hdu: int | str | None = None,
) -> PathsSource:
    """Open the pictures in the files that a table names, as a source, in the order of its rows.

    Args:
        table: an astropy table, or the path of one that `read_catalogue` reads.
        column: its column of paths, default "path".
        id_column: its column of ids; by default "id" or "NUMBER", else names of files without
            suffix.
        folder: that relative paths start from; by default that of the table, or the current one.
        hdu: see `open_source`.

    Raises:
        DataError: a table that cannot be read or is empty, no such column, or ids that repeat.
    """
    if folder is None:
        is_path = isinstance(table, str | os.PathLike)
        folder = os.path.dirname(os.path.abspath(table)) if is_path else "."
    table, name = _read(table, "paths", id_column)
    if column not in table.colnames:
        raise DataError(f"{name}: no column {column!r}; {closest(column, table.colnames)}")
    if table[column].dtype.kind not in "US":
        raise DataError(f"{name}: column {column!r} must hold paths, got {table[column].dtype}")
    paths = [str(path) for path in np.asarray(table[column]).astype(str)]
    return PathsSource(folder, paths, name, _ids(table, id_column, name), hdu)


def _read(table: Any, what: str, id_column: str | None) -> tuple[Table, str]:
    """Return the table, with its ids as they are written, and what messages call it."""
    from astropy.table import Table

    name = os.path.basename(table) if isinstance(table, str | os.PathLike) else f"the {what}"
    if isinstance(table, str | os.PathLike):
        table = read_catalogue(table, texts=SPELT if id_column is None else (id_column,))
    if not isinstance(table, Table):
        raise DataError(f"{what}: expected an astropy table or a path, got {brief(table)}")
    if not len(table):
        raise DataError(f"{name}: a table without rows")
    return table, str(name)


def _ids(table: Table, column: str | None, name: str) -> list[str] | None:
    if column is None:
        column = next((c for c in table.colnames if c.lower() in IDS), None)
        if column is None:
            return None
    if column not in table.colnames:
        raise DataError(f"{name}: no column {column!r}; {closest(column, table.colnames)}")
    ids = id_texts(table[column], f"{name}: column {column!r}")
    seen: dict[str, int] = {}
    for row, key in enumerate(ids):
        if not key or key in seen:
            fault = f"{key!r} twice" if key else "a blank id"
            raise DataError(
                f"{name}: column {column!r} holds {fault}, in row {row + 1}; every row needs an "
                "id of its own"
            )
        seen[key] = row
    return ids


def _numbers(table: Table, column: str, name: str, degrees: bool) -> np.ndarray:
    """Return a column as floats, NaN where it is masked, in degrees if it is an angle."""
    values = table[column]
    if getattr(values.dtype, "kind", "") not in "iuf" or values.ndim != 1:
        raise DataError(
            f"{name}: column {column!r} must hold {'degrees' if degrees else 'pixels'} as plain "
            f"numbers, got {values.dtype}"
        )
    found = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
    if degrees and values.unit is not None and str(values.unit) != "deg":
        try:
            found = found * values.unit.to("deg")
        except Exception as error:  # of any kind, from a unit that is no angle
            raise DataError(
                f"{name}: column {column!r} is in {values.unit}; expected degrees"
            ) from error
    return found
