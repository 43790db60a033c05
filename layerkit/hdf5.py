"""HDF5 from anybody: written so that damage shows, and read so that a file can do no harm.

HDF5 believes its files.  A damaged one makes it crash, loop for ever, or return other numbers; a
hostile one makes it read other files, or fill the memory with what the file only claims to hold.
So what layerkit writes is *sealed*: behind the HDF5 data, where HDF5 does not look, stands their
SHA-256, which is compared before HDF5 sees a byte.  And whatever is read, sealed or not, goes
through a `Reader`, which looks at the kind, shape, size and storage of a thing before it reads it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import mmap
import os
import reprlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from layerkit.errors import LayerkitError, brief
from layerkit.files import Errors, open_regular, path_of, write_atomically

if TYPE_CHECKING:  # it takes long to import
    import h5py

HEADER = 512  # bytes in front of the HDF5 data, where HDF5 does not look either
CHECKSUM = hashlib.sha256().digest_size
SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAP = b"GCOL\1"
PAGE = 1 << 16
BLOCK = 1 << 22  # bytes read from a file at once

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


# Writing.


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
        """Bytes of all rows together."""
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
    path: str | os.PathLike[str], kind: str, fill: Callable[[h5py.File], object],
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

    draft = _Draft()
    # The format of HDF5 1.10, unlike older ones, has checksums in all its own structures.
    with h5py.File(draft, "w", libver=("v110", "v110"), userblock_size=HEADER) as file:
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


class _Draft(io.RawIOBase):
    """A file in memory that has pages only where something was written, and zeros elsewhere."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.place = 0
        self.length = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.length}[whence]
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def truncate(self, size: int | None = None) -> int:
        self.length = self.place if size is None else size
        return self.length

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, inside = divmod(self.place, PAGE)
            piece = view[done : done + PAGE - inside]
            page = self.pages.setdefault(number, bytearray(PAGE))
            page[inside : inside + len(piece)] = piece
            done += len(piece)
            self.place += len(piece)
        if done:
            self.length = max(self.length, self.place)
        return done

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        stop = min(self.place + len(view), max(self.length, self.place))
        done = 0
        for piece in self.content(self.place, stop):
            view[done : done + len(piece)] = piece
            done += len(piece)
        self.place += done
        return done

    def content(self, start: int, stop: int) -> Iterator[bytes | bytearray]:
        """Yield the bytes from `start` to `stop`, in pieces."""
        while start < stop:
            number, inside = divmod(start, PAGE)
            end = min(inside + stop - start, PAGE)
            yield self.pages.get(number, bytes(PAGE))[inside:end]
            start += end - inside


def _header(kind: str) -> bytes:
    return f"{kind}\n".encode().ljust(HEADER, b"\0")


def plain(value: Any, where: str, error: Errors) -> Any:
    """Return a copy of `value` that JSON can hold and give back.

    NumPy's numbers become Python's, arrays and tuples become lists, and paths strings.  Floats may
    be infinite or NaN.

    Args:
        where: what `value` is called in the message.
        error: makes the error that is raised.

    Raises:
        error: something else is in it, a dict whose keys are not strings, say, or it holds itself.
    """
    try:
        return _plain(value, where, error)
    except RecursionError:
        raise error(f"{where} is nested too deeply, or holds itself") from None


def _plain(value: Any, where: str, error: Errors) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum, too, its value
    if isinstance(value, Integral):
        try:
            str(int(value))  # Python bounds the digits of what it writes
        except ValueError as trouble:
            raise error(f"{where} is a whole number of too many digits") from trouble
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        if isinstance(value, np.ma.MaskedArray):
            raise error(f"{where} is a masked array, whose mask would be lost; fill it first")
        return _plain(value.tolist(), where, error)
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{i}]", error) for i, each in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise error(f"{where} has the key {brief(key)}; keys must be strings")
        return {str(k): _plain(v, f"{where}[{k!r}]", error) for k, v in value.items()}
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise error(
        f"{where} is of type {type(value).__name__}; only numbers, strings, None, and lists, arrays"
        " and dicts of these can be stored"
    )


# Reading.


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
        self, file: h5py.File, name: str, error: Errors, size: int, source: Path | BinaryIO,
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
                raise self.fail(
                    field, f"is compressed by filters {filters}; use gzip, lzf or none"
                )
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
        self, *names: str, kinds: str, shape: tuple[int | None, ...] | None = None,
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


@contextlib.contextmanager
def open_sealed(
    path: str | os.PathLike[str], kind: str, what: str, error: Errors, hint: str = "",
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
        file = _hdf5(handle, path, error)
        with Reader(file, str(path), error, size - CHECKSUM, handle, hint) as reader:
            yield reader


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
    return Reader(_hdf5(path, path, error), str(path), error, size, path)


def _hdf5(source: Any, path: Path, error: Errors) -> h5py.File:
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


def is_sealed(path: Path, kind: str) -> bool:
    """Say whether a file claims to be of this kind, damaged or not."""
    try:
        with open_regular(path) as handle:
            return handle.read(HEADER) == _header(kind)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return False


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
