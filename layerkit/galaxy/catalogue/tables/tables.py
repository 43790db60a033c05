"""Tables in files: written and read in the format that their suffix says."""

from __future__ import annotations

import codecs
import importlib.util
import os
import re
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.saving import hdf5
from layerkit.saving.shards import finished
from layerkit.settings import fitting
from layerkit.system.files import path_of, write_atomically

if TYPE_CHECKING:
    from astropy.table import Table

GROUP = "catalogue"  # the data set in an HDF5 file
TEXTS = ("id", "file", "reason")  # columns of every catalogue

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
    hdf5.refuse_other(path, DataError)
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


def check_holds(table: Table, path: str | os.PathLike[str], what: str) -> None:
    """Check that a file's format can hold the columns of a table, before any work is lost.

    Args:
        table: the table, whose first row is written elsewhere.
        path: the file, whose suffix says the format; it is not touched.
        what: what messages call the table.

    Raises:
        DataError: the format cannot, as CSV cannot hold columns of vectors.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "trial").with_suffix(path_of(path, DataError).suffix)
        try:
            write_catalogue(table[:1], trial)
        except DataError as error:
            reason = str(error).removeprefix(f"cannot write {trial}: ")
            raise DataError(
                f"{what}: {path} cannot hold its columns ({reason}); leave some out, or take "
                "another format, such as .fits"
            ) from error


@fitting(DataError)
def read_catalogue(path: str | os.PathLike[str], *, texts: Collection[str] = ()) -> Table:
    """Read a table in one of the formats of `write_catalogue`, from anywhere.

    A folder that `encode_parts` has written is read as one table, its parts in order.  In CSV, a
    column of whole numbers of which any begins with 0, such as the id 0042, stays text, and so do
    the columns `id`, `file` and `reason` of a catalogue.

    Floats and texts that are missing are NaN and empty, as `write_catalogue` was given them.

    Args:
        path: the file, or the folder of parts.
        texts: names of other columns, such as one of ids, that stay text in CSV although they look
            like numbers: 150.1130 would come back as 150.113.  None by default.

    Raises:
        DataError: the file is missing, of another kind, or damaged.
    """
    path = path_of(path, DataError)
    return _parts(path) if path.is_dir() else _read(path, texts)


def _read(path: Path, texts: Collection[str]) -> Table:
    """Read a file; `texts` are columns that are texts, whatever they look like in CSV."""
    from astropy.table import Table as AstropyTable

    kind = check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about units and keywords of other programs
            if kind == "ascii.csv":
                table = _read_csv(path, texts)
            else:
                table = AstropyTable.read(path, format=kind)
        table.convert_bytestring_to_unicode()
        return _plain(table)
    except Exception as error:  # of any kind, from a format's own reader
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not readable as {path.suffix[1:].upper()} ({reason})") from error


def _read_csv(path: Path, texts: Collection[str]) -> Table:
    """Read a CSV file; spreadsheets put a mark of UTF-8 in front of it."""
    from astropy.table import Table as AstropyTable

    settings: Any = {"format": "ascii.csv"}
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            settings["encoding"] = "utf-8-sig"  # by Astropy's slower reader
    table = AstropyTable.read(path, **settings)
    of_catalogue = TEXTS if set(TEXTS) <= set(table.colnames) else ()
    known = [name for name in table.colnames if name in (*texts, *of_catalogue)]
    doubtful = {*known, *(name for name in table.colnames if table[name].dtype.kind in "iu")}
    if doubtful:
        settings["converters"] = dict.fromkeys(doubtful, str)
        written = AstropyTable.read(path, **settings, include_names=list(doubtful))
        for name in doubtful:
            found = np.ma.filled(written[name], "")
            zeros = any(re.match("[-+]?0[0-9]", text) for text in found)
            if name in known or zeros or not any(found):  # a column that is blank was one of texts
                table[name] = found
    return table


def _parts(folder: Path) -> Table:
    """Read the parts of a catalogue as one table."""
    from astropy.table import vstack

    tables = []
    for file, counts in finished(folder, DataError):
        tables.append(_read(file, ()))
        if len(tables[-1]) != counts.get("pictures", len(tables[-1])):
            raise DataError(
                f"{file}: {len(tables[-1])} rows, and {counts['pictures']} were written; remove "
                "the file, and make it again by the command that began it, with --resume"
            )
    try:
        # Parts without a known scale lack its columns.
        return _plain(vstack(tables, metadata_conflicts="silent"))
    except Exception as error:  # of any kind, from columns of different kinds
        raise DataError(f"{folder}: its parts do not fit together ({error})") from error


def _plain(table: Table) -> Table:
    """Fill what readers mask, blank texts and NaN, and turn the truth values of CSV into such."""
    for name in table.colnames:
        column = table[name]
        kind = getattr(getattr(column, "dtype", None), "kind", "")
        if kind in "fU" and hasattr(column, "filled"):
            table[name] = column = column.filled("" if kind == "U" else np.nan)
        if kind != "U" or name in TEXTS or not len(column):
            continue
        if set(column) <= {"True", "False"}:
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
