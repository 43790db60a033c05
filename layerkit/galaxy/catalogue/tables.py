"""Tables in files: written and read in the format that their suffix says, and joined by id."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.files import path_of, write_atomically
from layerkit.names import closest
from layerkit.settings import fitting

if TYPE_CHECKING:
    from astropy.table import Table

GROUP = "catalogue"  # the data set in an HDF5 file
EXACT = 2**53  # whole numbers up to it are floats

# suffix -> astropy's name of the format
FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".parquet": "parquet",
}


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return astropy's name of the format that a file's suffix says.

    Raises:
        DataError: another suffix, or Parquet without the package that reads and writes it.
    """
    path = path_of(path, DataError)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: expected a name that ends in one of {', '.join(FORMATS)}")
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow; install it, pip install pyarrow, or take "
            "another format, such as .fits"
        )
    return kind


@fitting(DataError)
def write_catalogue(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a catalogue: .fits, .ecsv, .csv, .h5 (data set "catalogue") or .parquet.

    The file is replaced when the new one is complete.  FITS holds ASCII alone; other characters of
    texts are written as backslash escapes there.

    Args:
        table: as `encode` and `join` return it.
        path: the file, whose suffix says the format.

    Raises:
        DataError: another suffix, a file that cannot be written, a format that cannot hold the
            table, or Parquet without pyarrow.
    """
    from astropy.table import Table as AstropyTable

    path = path_of(path, DataError)
    kind = check_suffix(path)
    if not isinstance(table, AstropyTable):
        raise DataError(f"write_catalogue: expected an astropy Table, got {brief(table)}")
    more: dict[str, Any] = {"path": GROUP, "serialize_meta": True} if kind == "hdf5" else {}
    if kind == "fits":
        table = _in_ascii(table)

    def write(part: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about keywords, which a reader need not know of
            table.write(str(part), format=kind, **more)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:  # of any kind, from a format's own writer
        raise DataError(f"cannot write {path}: {' '.join(str(error).split())}") from error


@fitting(DataError)
def read_catalogue(path: str | os.PathLike[str]) -> Table:
    """Read a table in one of the formats of `write_catalogue`, from anywhere.

    Floats and texts that are missing are NaN and empty, as `write_catalogue` was given them.

    Raises:
        DataError: the file is missing, of another kind, or damaged.
    """
    from astropy.table import Table as AstropyTable

    path = path_of(path, DataError)
    kind = check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about units and keywords of other programs
            table = AstropyTable.read(str(path), format=kind)
        table.convert_bytestring_to_unicode()
        return _plain(table)
    except Exception as error:  # of any kind, from a format's own reader
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not readable as {path.suffix[1:].upper()} ({reason})") from error


@fitting(DataError)
def join(catalogue: Table, other: Table, column: str = "id", name: str = "the table") -> Table:
    """Add the columns of another table to a catalogue, row by row where ids agree.

    Rows and their order stay those of the catalogue.  In rows that the other table lacks, its
    floats are NaN and its texts empty; its whole numbers and truth values become floats if any row
    is lacking, or texts if a float does not hold them.  Columns that the catalogue has already get
    `_joined` at the end of their name.

    Args:
        catalogue: as `encode` returns it.
        other: an astropy table.
        column: the column of `other` with the ids, texts or whole numbers; default "id".
        name: what messages call `other`.

    Raises:
        DataError: no such column, an id that `other` has twice, none of the catalogue's ids, or a
            column that is no plain array.
    """
    from astropy.table import Column

    rows = rows_by_id(other, column, name)
    index = np.array([rows.get(str(key), -1) for key in catalogue["id"]], int).reshape(-1)
    if len(index) and not (index >= 0).any():
        raise DataError(
            f"{name}: none of the ids in its column {column!r}, such as "
            f"{brief(next(iter(rows), ''))}, is one of the pictures', such as "
            f"{brief(str(catalogue['id'][0]))}"
        )
    result = catalogue.copy()
    for own in other.colnames:
        if own == column:
            continue
        taken = own
        while taken in result.colnames:
            taken += "_joined"
        given = other[own]
        if not isinstance(given, Column) or given.dtype.kind not in "biufUS":
            raise DataError(
                f"{name}: column {own!r} is no plain array of numbers or texts, but "
                f"{type(given).__name__} of {getattr(given, 'dtype', 'objects')}; leave it out"
            )
        values = _taken(given, index)
        result[taken] = Column(values, unit=given.unit, description=given.description)
    return result


def rows_by_id(table: Table, column: str = "id", name: str = "the table") -> dict[str, int]:
    """Return the row of each id in a column; whole numbers may be stored as floats.

    Args:
        table: an astropy table.
        column: of texts or whole numbers; blank ones count for nothing.
        name: what messages call the table.

    Raises:
        DataError: no such column, other values in it, or an id that it holds twice.
    """
    if column not in table.colnames:
        raise DataError(f"{name}: no column {column!r}; {closest(column, table.colnames)}")
    rows: dict[str, int] = {}
    for row, key in enumerate(_texts(table[column], f"{name}: column {column!r}")):
        if key in rows:
            raise DataError(
                f"{name}: column {column!r} holds {key!r} twice, in rows {rows[key] + 1} and "
                f"{row + 1}; keep one row for each galaxy"
            )
        if key:
            rows[key] = row
    return rows


def _texts(column: Any, what: str) -> list[str]:
    """Return ids as texts, empty ones for those that are blank or masked."""
    wanted = f"{what} must hold ids, texts or whole numbers"
    try:
        values = np.ma.asarray(column)
    except Exception:  # a column of times or coordinates, say
        raise DataError(wanted) from None
    if values.ndim != 1 or values.dtype.kind not in "iufUS":
        raise DataError(wanted)
    mask = np.ma.getmaskarray(values)
    plain = values.data
    if values.dtype.kind == "f":
        mask = mask | np.isnan(plain)
        plain = np.where(mask, 0, plain)
        if not ((plain == np.round(plain)) & (np.abs(plain) <= EXACT)).all():
            raise DataError(wanted)
        plain = plain.astype(np.int64)
    return [
        "" if hidden else str(x).strip() for x, hidden in zip(plain.astype(str), mask, strict=True)
    ]


def _taken(column: Any, index: np.ndarray) -> np.ndarray:
    """Take rows of a column, in the computer's byte order; -1 stands for a row that is lacking."""
    values = np.ma.asarray(column)
    plain = values.data.astype(str) if values.dtype.kind == "S" else values.data
    plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
    shape = (len(index), *plain.shape[1:])
    if not len(plain):
        found, gone = np.zeros(shape, plain.dtype), np.ones(shape, bool)
    else:
        found, gone = plain[index], np.ma.getmaskarray(values)[index].copy()
        gone[index < 0] = True
    if not gone.any():
        return found
    if found.dtype.kind in "iu" and np.abs(found[~gone].astype(object)).max(initial=0) > EXACT:
        found = found.astype(str)
    if found.dtype.kind == "U":
        return np.where(gone, "", found)
    wide = found if found.dtype.kind == "f" else found.astype(np.float64)
    return np.where(gone, np.nan, wide).astype(wide.dtype)


def _plain(table: Table) -> Table:
    """Fill what readers mask, blank texts and NaN, and turn the truth values of CSV into such."""
    for name in table.colnames:
        column = table[name]
        kind = getattr(getattr(column, "dtype", None), "kind", "")
        if kind in "fU" and hasattr(column, "filled"):
            table[name] = column.filled("" if kind == "U" else np.nan)
        if kind == "U" and len(column) and set(column) <= {"True", "False"}:
            table[name] = column == "True"
    return table


def _in_ascii(table: Table) -> Table:
    """Return a copy of a table whose texts are ASCII, its meta-data among them."""

    def escape(text: str) -> str:
        return text.encode("ascii", "backslashreplace").decode()

    table = table.copy()
    for name in table.colnames:
        if table[name].dtype.kind == "U":
            flat = [escape(str(text)) for text in table[name].ravel()]
            table.replace_column(name, np.array(flat, str).reshape(table[name].shape))
        if escape(name) != name:
            table.rename_column(name, escape(name))
    table.meta = {k: escape(v) if isinstance(v, str) else v for k, v in table.meta.items()}
    return table
