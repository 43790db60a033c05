"""Joining: the columns of somebody's own table, added to a catalogue by id."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.settings import fitting
from layerkit.settings.names import closest

if TYPE_CHECKING:
    from astropy.table import Table

EXACT = 2**53  # whole numbers up to it are floats


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
        DataError: no astropy table, no such column, an id that `other` has twice, none of the
            catalogue's ids, or a column that is no plain array.
    """
    from astropy.table import Column

    _check_table(catalogue, "the catalogue")
    rows = rows_by_id(other, column, name)
    index = np.array([rows.get(composed(key), -1) for key in catalogue["id"]], int).reshape(-1)
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
    _check_table(table, name)
    if column not in table.colnames:
        raise DataError(f"{name}: no column {column!r}; {closest(column, table.colnames)}")
    rows: dict[str, int] = {}
    for row, key in enumerate(id_texts(table[column], f"{name}: column {column!r}")):
        if key in rows:
            raise DataError(
                f"{name}: column {column!r} holds {key!r} twice, in rows {rows[key] + 1} and "
                f"{row + 1}; keep one row for each galaxy"
            )
        if key:
            rows[key] = row
    return rows


def _check_table(table: Any, name: str) -> None:
    """Fail if something is no astropy table."""
    from astropy.table import Table

    if not isinstance(table, Table):
        raise DataError(
            f"join: {name} must be an astropy Table, got {brief(table)}; make it one, by "
            "Table.from_pandas(data) of pandas, or Table(columns) of a dict of arrays"
        )


def id_texts(column: Any, what: str) -> list[str]:
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
    texts = map(composed, plain.astype(str))
    return ["" if hidden else x.strip() for x, hidden in zip(texts, mask, strict=True)]


def composed(text: Any) -> str:
    """Return a text with each letter and its accents as one character, where there is such.

    File names of some systems have them apart, and look no different.
    """
    return unicodedata.normalize("NFC", str(text))


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
