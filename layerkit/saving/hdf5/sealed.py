"""Sealed files: a header that says of which kind, HDF5 data, and the checksum of both."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from layerkit.saving.hdf5.draft import Draft
from layerkit.saving.hdf5.reader import Reader, open_hdf5
from layerkit.system.files import Errors, open_regular, path_of, write_atomically
from layerkit.system.uninterrupted import Uninterrupted

if TYPE_CHECKING:  # it takes long to import
    import h5py

HEADER = 512  # bytes in front of the HDF5 data, where HDF5 does not look either
CHECKSUM = hashlib.sha256().digest_size
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAKER = b"layerkit "  # begins every kind
BLOCK = 1 << 22  # bytes read from a file at once


class Rows:
    """Rows of a big data set that wait in a file without a name, and so take no memory.

    Args:
        folder: where the file is; it needs as much room as the data set.
        shape: shape of a row.
        dtype: what a row holds.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str):
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.count = 0
        self.offset = 0

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of; nobody wants the rest
            self.file.close()

    def append(self, row: np.ndarray) -> None:
        """Add a row."""
        if row.shape != self.shape:
            raise ValueError(f"expected a row of shape {self.shape}, got {row.shape}")
        self.file.write(np.ascontiguousarray(row, self.dtype).data.cast("B"))
        self.count += 1

    @property
    def nbytes(self) -> int:
        """The bytes of all rows together."""
        return self.count * math.prod(self.shape) * self.dtype.itemsize

    def reserve(self, file: h5py.File, name: str) -> None:
        """Make a data set of as many rows, and leave the place of its numbers open."""
        from h5py import h5d, h5p, h5s, h5t

        plan = h5p.create(h5p.DATASET_CREATE)
        plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)  # equal sets are equal files
        space = h5s.create_simple((self.count, *self.shape))
        made = h5d.create(file.id, name.encode(), h5t.py_create(self.dtype), space, dcpl=plan)
        self.offset = made.get_offset()

    def content(self) -> Iterator[bytes]:
        """Yield all that was added, from the beginning."""
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            yield block


def write_sealed(
    path: str | os.PathLike[str],
    kind: str,
    fill: Callable[[h5py.File], object],
    rows: Rows | None = None,
) -> None:
    """Write an HDF5 file, with its checksum, in one move.

    HDF5 writes into memory only, as it crashes where it cannot finish a file, on a full disk say.

    Args:
        path: the file, replaced if it is there.
        kind: what it is, in a few words; it stands at the beginning of the file.
        fill: makes everything in the file.
        rows: the numbers of a data set that `fill` reserved, or none.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    import h5py

    draft = Draft()
    # The format of HDF5 1.10, unlike older ones, has checksums in all its own structures.
    options: Any = {"libver": ("v110", "v110"), "userblock_size": HEADER}
    with Uninterrupted(), h5py.File(draft, "w", **options) as file:  # h5py loses interrupts
        fill(file)
    draft.seek(0)
    draft.write(_header(kind))

    def content() -> Iterator[bytes | bytearray]:
        if rows is None or not rows.nbytes:
            yield from draft.content(0, draft.length)
        else:
            yield from draft.content(0, rows.offset)
            yield from rows.content()
            yield from draft.content(rows.offset + rows.nbytes, draft.length)

    def write(temporary: Path) -> None:
        checksum = hashlib.sha256()
        with open(temporary, "xb") as target:
            for piece in content():
                checksum.update(piece)
                target.write(piece)
            target.write(checksum.digest())

    write_atomically(path, write)


def attribute(file: h5py.File, name: str, value: str | int) -> None:
    """Set an attribute to a number or a text; `Reader.text` and `Reader.integer` read it."""
    # Texts of fixed length, as those of any length lie in a heap that has no checksum.
    if isinstance(value, str):
        file.attrs[name] = np.bytes_(value.encode(errors="backslashreplace"))
    else:
        file.attrs[name] = value


@contextlib.contextmanager
def open_sealed(
    path: str | os.PathLike[str],
    kind: str,
    what: str,
    error: Errors,
    hint: str = "",
    unmarked: bool = False,
) -> Iterator[Reader]:
    """Open a file that `write_sealed` wrote, once its checksum has been found right.

    Args:
        path: the file.
        kind: as it was given to `write_sealed`.
        what: what messages call such a file, such as "a snapshot".
        error: makes the errors that are raised.
        hint: ends each message: what to do about it.
        unmarked: whether one that does not begin with its kind may do, as older versions wrote.

    Raises:
        error: the file is missing, no regular file, of another kind, truncated or damaged.
    """
    path = path_of(path, error)
    try:
        handle = open_regular(path)
    except FileNotFoundError as missing:
        raise error(f"no {what.split(' ', 1)[1]} at {path}") from missing
    except OSError as trouble:
        if path.is_dir():
            raise error(f"{path} is a folder; give {what} in it") from trouble
        raise error(f"cannot read {path}: {trouble.strerror}") from trouble
    with handle:
        try:
            size = os.fstat(handle.fileno()).st_size
            head = handle.read(HEADER)
            marked = head == _header(kind)
            if not marked and not (unmarked and head.startswith(SIGNATURE)):
                raise error(f"{path} is not {what}, or a truncated one{hint}")
            if not _checksum_holds(handle, size - CHECKSUM):
                maybe = "" if marked else f"not {what}, or "
                raise error(f"{path} is {maybe}truncated or damaged{hint}")
        except OSError as trouble:
            raise error(f"cannot read {path}: {trouble.strerror}") from trouble
        # HDF5 reads through this handle: the file that was checked, whatever its name means now.
        file = open_hdf5(handle, path, error)
        with Reader(file, str(path), error, size - CHECKSUM, handle, hint) as reader:
            yield reader


def is_sealed(source: Path | IO[bytes], kind: str) -> bool:
    """Say whether a file claims to be of this kind, damaged or not.

    Args:
        source: its path, or the file opened for reading, at its start.
        kind: as it was given to `write_sealed`.
    """
    try:
        if not isinstance(source, Path):
            return source.read(HEADER) == _header(kind)
        with open_regular(source) as handle:
            return handle.read(HEADER) == _header(kind)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return False


def refuse_other(path: Path, error: Errors, kind: str = "") -> None:
    """Fail if a sealed file of another kind is at a path that is to be written.

    A trained model or a set of galaxies is hours of work, and never meant to be replaced by what a
    mistyped name says.

    Args:
        path: the file to be written.
        error: makes the error to be raised of its message.
        kind: what will be written there, as for `write_sealed`; by default no sealed file.
    """
    try:
        with open_regular(path) as handle:
            head = handle.read(HEADER)
    except (OSError, ValueError):  # nothing that can be read, so nothing that is known
        return
    found = head.rstrip(b"\0")
    if found.startswith(MAKER) and head == _header(found[:-1].decode("latin-1")) != _header(kind):
        raise error(f"{path}: it holds a {found[:-1].decode()} already; give another name")


def _header(kind: str) -> bytes:
    return f"{kind}\n".encode().ljust(HEADER, b"\0")


def _checksum_holds(handle: BinaryIO, length: int) -> bool:
    """Compare `length` bytes from the beginning with the checksum that follows them."""
    checksum = hashlib.sha256()
    handle.seek(0)
    while length > 0:
        block = handle.read(min(BLOCK, length))
        if not block:
            return False
        checksum.update(block)
        length -= len(block)
    return length == 0 and handle.read() == checksum.digest()
