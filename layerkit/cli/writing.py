"""Files that commands write arrays to, of the kind that the suffix says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerkit.errors import DataError
from layerkit.saving import hdf5
from layerkit.system.files import write_atomically

Arrays = Mapping[str, Any]
Writer = Callable[[Path, Arrays], None]


def writer(out: Path, kinds: Collection[str]) -> Writer:
    """Return the function that writes arrays to a file of this name.

    Args:
        out: the file.
        kinds: suffixes that the command writes, among those in WRITERS.

    Raises:
        DataError: another suffix, or a snapshot or a set of galaxies is there.
    """
    hdf5.refuse_other(out, DataError)
    suffix = out.suffix.lower()
    suffix = {".hdf5": ".h5", ".fit": ".fits"}.get(suffix, suffix)
    if suffix not in kinds:
        *others, last = kinds
        raise DataError(
            f"--out {out.name}: expected a name that ends in {', '.join(others)} or {last}"
        )
    return WRITERS[suffix]


def check_apart(out: Path, given: Iterable[tuple[str, str | None]]) -> None:
    """Fail if the file to be written is one that the command reads.

    Args:
        out: the file to be written.
        given: options, and a file that each names, or None.

    Raises:
        DataError: it is.
    """
    for option, path in given:
        if path and out.exists() and os.path.exists(path) and os.path.samefile(path, out):
            raise DataError(f"--out {out}: the file that {option} names; write another")


def check_writable(out: Path) -> None:
    """Fail if no file can be made where one is to be written, before the work that it is to hold.

    Raises:
        DataError: no file can be made there.
    """
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(out))):
            pass
    except OSError as error:
        raise DataError(
            f"--out {out}: cannot be written ({error.strerror or error}); write elsewhere"
        ) from error


def write(out: Path, write_to: Writer, arrays: Arrays) -> None:
    """Write arrays as a whole file or none.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        write_atomically(out, lambda path: write_to(path, arrays))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error


def _hdf5(path: Path, arrays: Arrays) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def _npz(path: Path, arrays: Arrays) -> None:
    with open(path, "wb") as file:
        np.savez(file, **dict(arrays))


def _npy(path: Path, arrays: Arrays) -> None:
    with open(path, "wb") as file:
        np.save(file, next(iter(arrays.values())))


def _csv(path: Path, arrays: Arrays) -> None:
    """Write a column for each number of an example: `z_mean` or `z_mean[0]`, `z_mean[1]`, ..."""
    columns, names, formats = [], list[str](), list[str]()
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        columns.append(flat.astype(object))  # which keeps integers beside floats
        # 9 digits tell any two numbers of float32 apart.
        formats += ["%d" if array.dtype.kind in "iu" else "%.9g"] * flat.shape[1]
        names += [f"{name}[{k}]" for k in range(flat.shape[1])] if array.ndim > 1 else [name]
    np.savetxt(
        path, np.hstack(columns), fmt=formats, delimiter=",", header=",".join(names), comments=""
    )


def _fits(path: Path, arrays: Arrays) -> None:
    """Write the first array into the primary part, and others into extensions of their names."""
    from astropy.io import fits

    first, *others = arrays.items()
    parts: list[Any] = [fits.PrimaryHDU(first[1])]
    parts += [fits.ImageHDU(array, name=name) for name, array in others]
    with open(path, "wb") as file:
        fits.HDUList(parts).writeto(file)


WRITERS: dict[str, Writer] = {
    ".h5": _hdf5,
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv,
    ".fits": _fits,
}
