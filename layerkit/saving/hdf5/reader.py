"""Reader: looks at the kind, shape, size and storage of a thing in a file before it reads it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from layerkit.errors import LayerkitError, brief
from layerkit.saving.hdf5.packing import PACKED, packed_by
from layerkit.system.files import Errors, open_regular, path_of

if TYPE_CHECKING:  # it takes long to import
    import h5py

HEAP = b"GCOL\1"

# Numbers of the filters that come with HDF5 or h5py: gzip, shuffle, fletcher32, szip, nbit,
# scaleoffset, lzf.  Others are code from elsewhere.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}
RATIO = 1032  # gzip compresses no better
ANYWAY = 1 << 24  # bytes that a compressed data set may have, however small its file

# Errors that h5py raises about a file's content.
TROUBLE = (
    OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError,
    ArithmeticError, MemoryError, NotImplementedError, AssertionError,
)  # fmt: skip


class Reader:
    """An open HDF5 file of which nothing is read before it has been looked at.

    Objects are reached by hard links alone, data sets lie plainly in the file itself, and nothing
    is read that is larger than the file can hold.

    Args:
        file: the file.
        name: what messages call it.
        error: makes the errors that are raised.
        size: bytes of the file.
        source: its path, or a handle that is open.
        hint: ends each message: what to do about it.
    """

    def __init__(
        self,
        file: h5py.File,
        name: str,
        error: Errors,
        size: int,
        source: Path | BinaryIO,
        hint: str = "",
    ):
        self.file, self.name, self.error, self.size = file, name, error, size
        self.source, self.hint = source, hint

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(*TROUBLE):
            self.file.close()

    def fail(self, field: str, message: str) -> LayerkitError:
        """Make the error about a field of the file; the caller raises it."""
        field = f"{field} " if field else ""
        return self.error(f"{self.name}: {field}{message}{self.hint}")

    @contextlib.contextmanager
    def watching(self, field: str) -> Iterator[None]:
        """Turn what h5py raises about a field into this file's error."""
        try:
            yield
        except LayerkitError:
            raise
        except TROUBLE as error:
            raise self.fail(field, f"cannot be read ({_line(error)})") from error

    def _find(self, *names: str) -> Any:
        """Follow names to an object; None if there is no such name."""
        import h5py

        item: Any = self.file
        for i, name in enumerate(names):
            if not isinstance(item, h5py.Group):
                raise self.fail(repr("/".join(names[:i])), "is a data set, not a group")
            if name in ("", ".", "..") or "/" in name:  # not names to HDF5
                return None
            if not item.id.links.exists(name.encode(errors="surrogateescape")):
                return None
            link = item.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "external" if isinstance(link, h5py.ExternalLink) else "symbolic"
                raise self.fail(
                    repr("/".join(names[: i + 1])), f"is a link ({kind}), not a thing in this file"
                )
            item = item[name]
        return item

    def names(self, *group: str) -> list[str]:
        """List the names of everything in a group, sorted; none if there is no such group."""
        import h5py

        field = repr("/".join(group))
        with self.watching(field):
            found = self._find(*group)
            if found is None:
                return []
            if not isinstance(found, h5py.Group):
                raise self.fail(field, "is a data set, not a group")
            names = list(found.keys())
            if not all(isinstance(name, str) for name in names):
                raise self.fail(field, "holds names that are not UTF-8")
            return sorted(names)

    def is_group(self, *names: str) -> bool:
        """Say whether the names lead to a group."""
        import h5py

        with self.watching(repr("/".join(names))):
            return isinstance(self._find(*names), h5py.Group)

    def is_dataset(self, *names: str) -> bool:
        """Say whether the names lead to a data set."""
        import h5py

        with self.watching(repr("/".join(names))):
            return isinstance(self._find(*names), h5py.Dataset)

    def dataset(
        self, *names: str, kinds: str, shape: tuple[int | None, ...] | None = None
    ) -> h5py.Dataset:
        """Find a data set, and make sure that it can be read without harm.

        Args:
            names: of the groups that lead to it, and its own.
            kinds: NumPy's letters of the kinds of number that it may hold.
            shape: what its shape must be, None for any length; or None for any shape.
        """
        import h5py

        field = repr("/".join(names))
        with self.watching(field):
            found = self._find(*names)
            if found is None:
                raise self.fail(field, "is missing")
            if not isinstance(found, h5py.Dataset):
                raise self.fail(field, f"is a {type(found).__name__.lower()}, not a data set")
            self._check_dtype(field, found.dtype, found.id.get_type(), kinds)
            has = found.shape
            if has is None or (shape is not None and not _fits(has, shape)):
                wanted = "some" if shape is None else _shape_text(shape)
                got = "none" if has is None else _shape_text(has)
                raise self.fail(field, f"has shape {got}, expected {wanted}")
            self._check_storage(field, found)
            if (name := packed_by(found)) is not None:
                raise self.fail(field, PACKED.format(name))
            return found

    def _check_dtype(self, field: str, dtype: np.dtype, stored: Any, kinds: str) -> None:
        from h5py import h5t

        words = {"b": "truth values", "i": "integers", "u": "integers", "f": "floats"}
        every = {"i", "u", "f"} <= set(kinds)
        expected = "numbers" if every else " or ".join(dict.fromkeys(words[k] for k in kinds))
        plainly = isinstance(stored, h5t.TypeIntegerID | h5t.TypeFloatID) or dtype.kind == "b"
        if dtype.kind not in kinds or dtype.subdtype is not None or not plainly:
            raise self.fail(field, f"must hold {expected}, got {_dtype_text(dtype)}")

    def _check_storage(self, field: str, dataset: h5py.Dataset) -> None:
        from h5py import h5d

        plan = dataset.id.get_create_plist()
        layout = plan.get_layout()
        bytes_ = math.prod(dataset.shape) * dataset.id.get_type().get_size()
        if plan.get_external_count() or layout == h5d.VIRTUAL:
            raise self.fail(field, "lies in other files, which layerkit does not read")
        if layout == h5d.CHUNKED:
            filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
            if not set(filters) <= FILTERS or len(set(filters)) < len(filters):
                raise self.fail(field, f"is compressed by filters {filters}; use gzip, lzf or none")
            chunk = math.prod(plan.get_chunk()) * dataset.id.get_type().get_size()
            claimed, held = max(bytes_, chunk), max(RATIO * self.size, ANYWAY)
        else:
            stored, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
            claimed, held = bytes_, self.size
            if layout == h5d.CONTIGUOUS and bytes_:
                held = 0 if offset is None else max(0, min(stored, self.size - offset))
        if claimed > held:
            raise self.fail(
                field, f"claims to be of {claimed:,} bytes, more than the file can hold"
            )

    def array(
        self,
        *names: str,
        kinds: str,
        shape: tuple[int | None, ...] | None = None,
        rows: int | None = None,
    ) -> np.ndarray:
        """Read the numbers of a data set, in the computer's own byte order; see `dataset`.

        Args:
            rows: only the first so many.
        """
        found = self.dataset(*names, kinds=kinds, shape=shape)
        with self.watching(repr("/".join(names))):
            values = found[...] if rows is None else found[:rows]
            return np.asarray(values, found.dtype.newbyteorder("="))

    def has(self, name: str) -> bool:
        """Say whether the file has an attribute of this name."""
        with self.watching(f"attribute {name!r}"):
            return name in self.file.attrs

    def _attribute(self, name: str) -> Any:
        if not self.has(name):
            raise self.fail(f"attribute {name!r}", "is missing")
        return self.file.attrs.get_id(name)

    def integer(self, name: str, least: int = 0, most: int = 2**62) -> int:
        """Read a whole number, an attribute of the file, from `least` to `most`."""
        from h5py import h5t

        field = f"attribute {name!r}"
        with self.watching(field):
            found = self._attribute(name)
            whole = isinstance(found.get_type(), h5t.TypeIntegerID) and found.dtype.kind in "iu"
            if found.shape != () or not whole:
                raise self.fail(field, f"must be a whole number, got {_attribute_text(found)}")
            value = int(self.file.attrs[name])
        if not least <= value <= most:
            raise self.fail(field, f"must be from {least} to {most}, got {value}")
        return value

    def text(self, name: str) -> str:
        """Read a string, an attribute of the file."""
        from h5py import h5t

        field = f"attribute {name!r}"
        with self.watching(field):
            found = self._attribute(name)
            stored = found.get_type()
            if found.shape != () or not isinstance(stored, h5t.TypeStringID):
                raise self.fail(field, f"must be a string, got {_attribute_text(found)}")
            if not stored.is_variable_str() and stored.get_size() > self.size:
                raise self.fail(
                    field,
                    f"claims to be of {stored.get_size():,} bytes, more than the file can hold",
                )
            if stored.is_variable_str():
                self._check_heaps(field)
            value = self.file.attrs[name]
            try:
                if isinstance(value, bytes):
                    return value.decode()
                value.encode()  # h5py lets through what is not UTF-8
                return str(value)
            except UnicodeError as error:
                raise self.fail(field, "is not UTF-8") from error

    def _check_heaps(self, field: str) -> None:
        """Refuse heaps, in which texts of any length lie, that HDF5 would never come out of."""
        with contextlib.ExitStack() as stack:
            handle = self.source
            if isinstance(handle, Path):
                handle = stack.enter_context(open_regular(handle))
            content = stack.enter_context(
                mmap.mmap(handle.fileno(), self.size, access=mmap.ACCESS_READ)
            )
            start = content.find(HEAP)
            while start >= 0:
                if not _heap_ends(content, start):
                    raise self.fail(field, "cannot be read (a damaged heap)")
                start = content.find(HEAP, start + 1)

    def json(self, name: str, kind: type = dict) -> Any:
        """Read a value of the type `kind` of which an attribute of the file is the JSON."""
        field = f"attribute {name!r}"
        try:
            value = json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise self.fail(field, f"is not JSON ({_line(error)})") from error
        if not isinstance(value, kind):
            raise self.fail(field, f"must be a {kind.__name__} in JSON, got {brief(value)}")
        return value


def open_unsealed(path: str | os.PathLike[str], error: Errors) -> Reader:
    """Open an HDF5 file of whatever origin; the reader closes it at the end of a `with` block.

    Raises:
        error: the file is missing, no regular file, not HDF5, or open for writing elsewhere.
    """
    path = path_of(path, error)
    try:
        with open_regular(path) as handle:
            size = os.fstat(handle.fileno()).st_size
    except OSError as trouble:
        raise error(f"cannot open {path}: {trouble.strerror}") from trouble
    return Reader(open_hdf5(path, path, error), str(path), error, size, path)


def open_hdf5(source: Any, path: Path, error: Errors) -> h5py.File:
    """Open a path, or a handle that is open, with h5py; `path` is for messages.

    Raises:
        error: it is not HDF5, or open for writing elsewhere.
    """
    import h5py

    try:
        return h5py.File(source, "r")
    except TROUBLE as trouble:
        locked = getattr(trouble, "errno", None) in (errno.EAGAIN, errno.EWOULDBLOCK)
        if locked or "unable to lock file" in str(trouble):
            raise error(
                f"cannot open {path}: another program has it open for writing; close it there"
            ) from trouble
        raise error(f"cannot open {path} as HDF5 ({_line(trouble)})") from trouble


def _heap_ends(content: mmap.mmap, start: int) -> bool:
    """Check that the objects of the global heap at `start` follow each other to its end.

    HDF5 File Format Specification, III.E: a header of 16 bytes, the last 8 the size of all, then
    objects with headers of 16 bytes, number first and size last; number 0 is the free space.
    """
    end = start + int.from_bytes(content[start + 8 : start + 16], "little")
    if end > len(content):
        return False
    place = start + 16
    while place + 16 <= end:
        number = int.from_bytes(content[place : place + 2], "little")
        size = int.from_bytes(content[place + 8 : place + 16], "little")
        step = 16 + -(-size // 8) * 8 if number else size
        if step < 16:
            return False
        place += step
    return place <= end


def _line(error: BaseException) -> str:
    """Put an error's text in one line."""
    return one_line(str(error)) or type(error).__name__


def one_line(text: str) -> str:
    """Put a text from a file in one line, of a length that fits a message."""
    return reprlib.repr(" ".join(text.split()))[1:-1] if len(text) > 300 else " ".join(text.split())


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        w is None or s == w for s, w in zip(shape, wanted, strict=True)
    )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    inner = ", ".join("any" if n is None else str(n) for n in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def _dtype_text(dtype: np.dtype) -> str:
    if dtype.subdtype is not None:
        return f"arrays of {dtype.subdtype[0]}"
    if dtype.metadata and "enum" in dtype.metadata:
        return "an enumeration"
    if dtype.metadata and dtype.metadata.get("vlen", str) not in (str, bytes):
        return "rows of different lengths"
    return "text" if dtype.kind in "OSU" else f"dtype {dtype}"


def _attribute_text(found: Any) -> str:
    shape = "no value" if found.shape is None else f"shape {_shape_text(found.shape)}"
    return f"{_dtype_text(found.dtype)}, {shape}"
