"""Arrays for the inputs of a net, from the files that a command line names."""

from __future__ import annotations

import argparse
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerkit.errors import DataError
from layerkit.layers import HDF5Data
from layerkit.layers.sources.data import NUMBERS, Data
from layerkit.saving import hdf5
from layerkit.settings.names import quoted
from layerkit.system.files import open_regular

# Raised by NumPy, and the libraries that it reads through, for damaged or encrypted files.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    SyntaxError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
HELP = (
    "an HDF5 or NPZ file with a data set for each input of the net, by its name; or "
    "INPUT=FILE.npy for each, or INPUT=FILE.h5:DATASET"
)


def add_data(parser: argparse.ArgumentParser, name: str, text: str, required: bool = True) -> None:
    """Add an option such as --data that takes FILE or INPUT=FILE, once or several times."""
    parser.add_argument(
        f"--{name}",
        metavar="FILE|INPUT=FILE",
        nargs="+",
        action="extend",
        required=required,
        help=f"{text}: {HELP}",
    )


def arrays(words: Sequence[str], inputs: list[str], complete: bool = True) -> dict[str, np.ndarray]:
    """Read an array for each input from what an option was given.

    Args:
        words: FILE or INPUT=FILE, as in `HELP`.
        inputs: names of the net's inputs.
        complete: whether every input must be there.

    Raises:
        DataError: a file that cannot be read, inputs of different lengths, without rows or axes,
            or an input that no file or two files have.
    """
    found: dict[str, np.ndarray] = {}
    for word in words:
        for name, array in _read(word, inputs).items():
            if name in found:
                raise DataError(f"input {name!r} is given twice, the second time by {word}")
            found[name] = array
    missing = [name for name in inputs if name not in found]
    if missing and (complete or not found):
        raise DataError(
            f"no data for {quoted(missing)}; the net's inputs are {quoted(inputs)}, and "
            f"{quoted(found) if found else 'none of them'} came"
        )
    if single := [name for name, array in found.items() if not array.ndim]:
        raise DataError(
            f"input {single[0]!r}: expected an array with a row for each example, got one number"
        )
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DataError(f"inputs must have equally many rows, got {counts}")
    if 0 in lengths.values():
        raise DataError(f"{' '.join(words)}: no rows; give at least one example")
    return found


def files(words: Iterable[str], inputs: list[str]) -> list[str]:
    """List the files that an option names."""
    paths = [w.partition("=")[2] if _names_input(w, inputs) else w for w in words]
    return [p if os.path.exists(p) else p.rpartition(":")[0] for p in paths]


def layer(words: list[str], inputs: list[str]) -> Data | None:
    """Return a data layer that reads one HDF5 file in batches, or None if it is not that simple."""
    if len(words) != 1 or _names_input(words[0], inputs) or not _is_hdf5(words[0]):
        return None
    with hdf5.open_unsealed(Path(words[0]), DataError) as file:
        missing = [name for name in inputs if not file.is_dataset(name)]
    if missing:
        raise DataError(
            f"{words[0]}: no data set {quoted(missing)}; name each input of the net, or give "
            "INPUT=FILE.h5:DATASET"
        )
    return HDF5Data("data", path=words[0], datasets=inputs, tops=inputs)


def _names_input(word: str, inputs: list[str]) -> bool:
    return word.partition("=")[0] in inputs and "=" in word


def _read(word: str, inputs: list[str]) -> dict[str, np.ndarray]:
    if _names_input(word, inputs):
        name, _, where = word.partition("=")
        return {name: _array(where)}
    path = Path(word)
    if not path.exists():
        name = word.partition("=")[0]
        hint = f"; {name!r} is no input of the net, which has {quoted(inputs)}" * ("=" in word)
        raise DataError(f"{word}: no such file{hint}")
    if _is_hdf5(word):
        with hdf5.open_unsealed(path, DataError) as file:
            return {name: _dataset(word, name) for name in inputs if file.is_dataset(name)}
    loaded = _load(word, inputs)
    if isinstance(loaded, np.ndarray):
        if len(inputs) != 1:
            raise DataError(
                f"{word} holds one array, and the net has inputs {quoted(inputs)}; say which it "
                f"is: {inputs[0]}={word}"
            )
        return {inputs[0]: loaded}
    return loaded


def _array(where: str) -> np.ndarray:
    """Read one array, from FILE.npy or FILE.h5:DATASET."""
    file, colon, dataset = where.rpartition(":")
    if colon and os.path.exists(file):
        return _dataset(file, dataset)
    loaded = _load(where)
    if not isinstance(loaded, np.ndarray):
        raise DataError(f"{where}: expected one array, got {quoted(loaded)}; give FILE.npy")
    return loaded


def _is_hdf5(path: str) -> bool:
    try:
        return h5py.is_hdf5(path)
    except (OSError, ValueError):
        return False


def _dataset(path: str, name: str) -> np.ndarray:
    """Read a whole data set of numbers."""
    with hdf5.open_unsealed(Path(path), DataError) as file:
        parts = [part for part in name.split("/") if part]
        if not parts or not file.is_dataset(*parts):
            raise DataError(f"{path}: no data set {name!r}; it has {quoted(file.names())}")
        return file.array(*parts, kinds=NUMBERS)


def _load(path: str, names: Iterable[str] | None = None) -> Any:
    """Read an NPY file, or those arrays of an NPZ file that have some names, or all."""
    try:
        with open_regular(Path(path)) as file:
            head = file.read(6)
            file.seek(0)
            if not head.startswith((b"\x93NUMPY", b"PK")):  # which NumPy takes for a pickle
                raise DataError(
                    f"{path}: not an HDF5, NPZ or NPY file; numpy.save writes an array to one"
                )
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            found = {n: loaded[n] for n in loaded.files if names is None or n in names}
            if other := [n for n, array in found.items() if not isinstance(array, np.ndarray)]:
                raise DataError(f"{path}: {other[0]!r} is no array")
            return found
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except MemoryError as error:
        raise DataError(f"{path}: too large for the memory, or damaged") from error
    except DAMAGE as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: holds Python objects; save arrays of numbers") from error
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(
            f"{path}: not readable as HDF5, NPZ or NPY ({reason or 'truncated'})"
        ) from error
