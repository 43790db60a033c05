"""Where galaxy images come from: a zip, a folder, single files, or the built-in Hubble picture.

Every source looks the same from outside: a name, a list of ids, and `read(i)`, which returns one
picture; `decode` says which formats there are and what the numbers of a picture mean.  Opening a
source looks at the headers of its files, to know how many pictures each holds; pixels are decoded
when asked for.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np

from layerkit import hdf5
from layerkit.errors import DataError
from layerkit.files import open_regular, path_of
from layerkit.galaxy.images.decode.decode import (
    HEAD,
    MAX_BYTES,
    TOO_LARGE,
    Pictures,
    UnusableImageError,
    is_deep_png,
    is_image_file,
    is_no_science,
    is_science,
    only_unusable,
    open_pictures,
    other_format,
    plain_kind,
    read_bounded,
)
from layerkit.galaxy.layout import GALAXIES, without_results
from layerkit.settings import Whole, accept, fitting

SUFFIX = re.compile(r"(\.(fits?|fts|fz))?\.[^./]+$", re.IGNORECASE)
LAST_WORD = re.compile(r"(.*[^/])[-_.]([A-Za-z]+)", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
PREPARED_FORMAT = "layerkit galaxy set"
NOT_REGULAR = "not a regular file"
OF_ANOTHER = "weights, a mask, a model or the like of another picture, by its name"
FORMATS = "JPEG, PNG, TIFF, FITS or HDF5 files"


class Source(Protocol):
    """A set of pictures, one galaxy near the centre of each.

    `name` is short and goes into messages and file attributes; `ids` are unique.  Sources can be
    pickled and sent to worker processes.  A source may have `deep`, the numbers of those pictures
    that are of type uint16; `prepare` then finds out how many of the 16 bits they use.
    """

    name: str
    ids: list[str]

    def __len__(self) -> int:
        """Count the pictures, or things that should have been pictures."""
        ...

    def read(self, i: int) -> np.ndarray:
        """Read picture `i`, (height, width); raises `UnusableImageError`.

        Its type says what its numbers mean: float32 is linear light in 0..1, uint16 light in steps
        of unknown size, and float64 physical units.
        """
        ...


def is_prepared(path: str | os.PathLike | None) -> bool:
    """Tell whether `path` is an HDF5 file that `prepare` wrote, of any format version."""
    if path is None:
        return False
    path = Path(path)
    if hdf5.is_sealed(path, PREPARED_FORMAT):
        return True
    try:  # version 1 had no header of its own
        with open_regular(path) as file:
            if file.read(len(hdf5.SIGNATURE)) != hdf5.SIGNATURE:
                return False
        with hdf5.open_unsealed(path, DataError) as old:
            return old.has("format") and old.text("format") == PREPARED_FORMAT
    except (OSError, ValueError, DataError):
        return False


@fitting(DataError)
def open_source(path: str | os.PathLike | None, hdu: int | str | None = None) -> Source:
    """Open a set of pictures of whatever kind `path` is.

    - None: the galaxies of the Hubble picture that scikit-image ships (`HubbleSource`).
    - a zip, such as Kaggle's `images_training_rev1.zip`: read in place, never unpacked;
    - a folder of JPEG, PNG, TIFF, FITS or HDF5 files, searched through all its subfolders, sorted;
    - a single such file.

    A file that holds several pictures (see `decode`) counts as so many, with the ids `name[0000]`,
    `name[0001]` and so on, in the order of the file.  hdu: the extension of FITS files to read, by
    number or EXTNAME, where it is not to be chosen by their names.

    Hidden files, `__MACOSX` entries, and links to a file that is there already are passed over.
    Files that by their names hold weights, a mask, a model or the like of another, `ngc1_mask.png`
    beside `ngc1.fits`, and any other files that are not pictures, keep their place in the source,
    so that they are counted, and their `read` raises `UnusableImageError`.

    Raises `DataError` where the path is missing, empty, not to be read, or of another kind, and for
    an `hdu` that is neither.
    """
    if isinstance(hdu, str) and hdu.strip().isdecimal():
        hdu = int(hdu)
    if not isinstance(hdu, str | None):
        hdu = accept(Whole(), hdu, "hdu", "a FITS extension, by number or name", DataError)
    if path is None:
        if hdu is not None:
            raise DataError(
                "hdu: the built-in Hubble Deep Field has no FITS extensions to choose; leave hdu "
                "out, or give FITS files"
            )
        from layerkit.galaxy.images.sources.hubble import HubbleSource

        return HubbleSource()
    path = path_of(path, DataError)
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file; give a folder, zip or file of pictures")
        if path.is_dir():
            return FolderSource(path, hdu=hdu)
        if not path.is_file():
            raise DataError(f"{path}: {NOT_REGULAR}, but a pipe, socket or device; give a file")
        if is_prepared(path):
            raise DataError(f"{path}: a prepared galaxy set, not pictures; open it with load()")
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if is_image_file(head):
            return FolderSource(path.parent, [path.name], name=path.name, hdu=hdu)
        if zipfile.is_zipfile(path):
            return ZipSource(path, hdu=hdu)
        if head.startswith(b"PK") or path.suffix.lower() == ".zip":
            raise DataError(f"{path}: not a zip file, or a truncated one; fetch it again")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if (other := other_format(head)) is not None:
        raise DataError(f"{path}: {other}")
    raise DataError(
        f"{path}: not a zip, a picture, a FITS file or a prepared HDF5 set; give one of these, or a"
        " folder of pictures"
    )


class FileSource:
    """Pictures in files of some kind, of which each may hold several or none.

    Subclasses say how the file named `files[k]` is opened, and whether to read it at once.
    """

    in_memory = False
    windows = False  # whether "\\" in names may stand between folders

    def __init__(self, name: str, files: list[str], hdu: int | str | None):
        # The pictures of another extension are another set.
        self.name = _printable(name) if hdu is None else f"{_printable(name)}[{hdu}]"
        self.files, self.hdu = files, hdu
        self.reasons: dict[int, str] = {}  # by file, where that is known already
        self.places: list[tuple[int, int]] = []  # file, and picture in it
        self.ids: list[str] = []
        self.deep: list[int] = []
        self._last: tuple[int, int, IO[bytes], Pictures] | None = None
        orders: Counter[str] = Counter()
        names = [name.replace("\\", "/") for name in files] if self.windows else files
        beside = _companions(names)
        for k, plain in enumerate(_unique_ids(names)):
            if k in beside:
                self.reasons[k] = OF_ANOTHER
            count, deep, order = (1, False, "") if k in beside else self._look_into(k)
            orders[order] += count
            width = max(4, len(str(count - 1)))
            new = range(len(self.places), len(self.places) + count)
            self.places += [(k, number) for number in range(count)]
            self.ids += [f"{plain}[{n:0{width}d}]" for n in range(count)] if count > 1 else [plain]
            self.deep += new if deep else ()
        self._close()
        self.ids = _unique(self.ids)
        self.row_order = "bottom" if orders["bottom"] > orders["top"] else "top"

    def _open(self, k: int) -> Any:
        raise NotImplementedError

    def _look_into(self, k: int) -> tuple[int, bool, str]:
        """How many pictures file `k` holds (1 if it cannot be read), whether deep, their order."""
        try:
            with only_unusable():
                with self._open(k) as file:
                    head = file.read(HEAD)
                if plain_kind(head) or not is_image_file(head):
                    return 1, is_deep_png(head), "top" if plain_kind(head) else ""
                pictures = self._pictures(k)
                return len(pictures), pictures.deep, pictures.row_order
        except UnusableImageError as error:
            self.reasons[k] = str(error)
            return 1, False, ""

    def __len__(self) -> int:
        return len(self.places)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_last": None}

    def read(self, i: int) -> np.ndarray:
        """Read picture `i`, (height, width); its type says what its numbers mean (see `Source`)."""
        k, number = self.places[i]
        if k in self.reasons:
            raise UnusableImageError(self.reasons[k])
        with only_unusable():
            return self._pictures(k).read(number)

    def _pictures(self, k: int) -> Pictures:
        """File `k`, opened; the last one stays open, as its other pictures are likely to follow."""
        # A file position shared between processes would be everyone's undoing: one handle each.
        if self._last is None or self._last[:2] != (os.getpid(), k):
            self._close()
            file = self._open(k)
            if self.in_memory or plain_kind(file.peek(HEAD)):
                with file:
                    file = read_bounded(file)
            try:
                self._last = (os.getpid(), k, file, open_pictures(file, self.hdu))
            except UnusableImageError:
                file.close()
                raise
        return self._last[3]

    def __del__(self) -> None:
        if hasattr(self, "_last"):
            self._close()

    def _close(self) -> None:
        if self._last is not None and self._last[0] == os.getpid():
            self._last[3].close()
            self._last[2].close()
        self._last = None


class ZipSource(FileSource):
    """The pictures in a zip file, read in place, in the order of their names in the archive."""

    in_memory = True  # going back in a compressed entry is to start it again
    windows = True

    def __init__(self, path: str | os.PathLike, hdu: int | str | None = None):
        self.path = Path(path).absolute()
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = [e.filename for e in archive.infolist() if not e.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
            raise DataError(f"{path}: not a readable zip file ({error}); fetch it again") from error
        # Some programs on Windows write "\\" between folders, which zip files do not have.
        files = [name for name in files if not _hidden(name.replace("\\", "/"))]
        if not files:
            raise DataError(f"{path}: an empty zip; expected {FORMATS} in it")
        again = [name for name, count in Counter(files).items() for _ in range(count - 1)]
        files = list(dict.fromkeys(files))
        self.distinct = len(files)
        super().__init__(self.path.name, files + again, hdu)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_handle": None}

    def _open(self, k: int) -> Any:
        if k >= self.distinct:
            raise UnusableImageError("an entry of a name that a later one in the zip has too")
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))
        archive = self._handle[1]
        entry = archive.getinfo(self.files[k])
        if entry.file_size > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
        if entry.flag_bits & 1:
            raise UnusableImageError("encrypted")
        return archive.open(entry)


class FolderSource(FileSource):
    """The pictures in a folder and its subfolders, sorted by path; links are followed."""

    def __init__(
        self,
        path: str | os.PathLike,
        files: list[str] | None = None,
        name: str | None = None,
        hdu: int | str | None = None,
    ):
        self.path = Path(path).absolute()
        if files is None:
            found = [f for f in sorted(_walk(self.path)) if not _hidden(f)]
            files = without_results(self.path, found)
            if found and not files:
                raise DataError(
                    f"{path}: only results of training runs; give one of their {GALAXIES}, or a"
                    " folder of pictures"
                )
        if not files:
            raise DataError(f"{path}: an empty folder; expected {FORMATS}")
        super().__init__(name or self.path.name, files, hdu)

    def _open(self, k: int) -> Any:
        path = self.path / self.files[k]
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe is to wait for its other end
            raise UnusableImageError(NOT_REGULAR)
        return open(path, "rb")


def _walk(top: Path) -> list[str]:
    """Files under `top`, relative to it; what has several names goes by one of them.

    Links to a folder or file that is there by another name would make its pictures count twice, and
    training see what is held out.

    Raises OSError where `top` cannot be read; folders below that cannot are passed over.
    """
    real = top.resolve()
    # A link upwards would make the whole of the disk a part of this folder.
    seen = {_identity(folder) for folder in (real, *real.parents)}
    found: list[str] = []
    linked: list[str] = []
    folders, links = [""], list[str]()
    while folders or links:
        # Real folders first: what they hold goes by their own names.
        inside = folders.pop() if folders else links.pop(0)
        try:
            if inside:
                here = _identity(top / inside)
                if here in seen:
                    continue
                seen.add(here)
            with os.scandir(top / inside) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if not _is_folder(entry):
                        (linked if entry.is_symlink() else found).append(name)
                    elif entry.is_symlink():
                        links.append(name)
                    else:
                        folders.append(name)
        except OSError:
            if not inside:
                raise
    files = {os.path.realpath(top / name) for name in found} if linked else set()
    for name in linked:
        if (target := os.path.realpath(top / name)) not in files:
            files.add(target)
            found.append(name)
    return found


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(p.startswith(".") and p != ".." for p in parts)


def _unique_ids(names: list[str]) -> list[str]:
    """The stem of each name; where stems collide, the path without suffix; then the full path.

    Ids are printable: control characters and what is not UTF-8 become backslash escapes.
    """
    names = [_printable(name) for name in names]
    plain = [SUFFIX.sub("", name) for name in names]
    stems = [name.rsplit("/", 1)[-1] for name in plain]
    # Names that a zip holds twice are told apart by `_unique`.
    different = dict(zip(names, zip(stems, plain, strict=True), strict=True)).values()
    of_stem, of_plain = Counter(s for s, _ in different), Counter(p for _, p in different)
    return [
        stem if of_stem[stem] == 1 else path if of_plain[path] == 1 else name
        for stem, path, name in zip(stems, plain, names, strict=True)
    ]


def _companions(names: list[str]) -> set[int]:
    """Find the files that say by their names to hold no light but what belongs to another file.

    Such are `ngc1_mask.png` or `ngc1.weight.fits` where there is an `ngc1.fits` or an
    `ngc1_sci.fits`.  The words are those for the extensions of FITS files, without numbers.
    """
    plain = [SUFFIX.sub("", name) for name in names]
    there = set(plain)
    there |= {m[1] for name in plain if (m := LAST_WORD.fullmatch(name)) and is_science(m[2])}
    return {
        k
        for k, name in enumerate(plain)
        if (m := LAST_WORD.fullmatch(name)) and is_no_science(m[2]) and m[1] in there
    }


def _printable(name: str) -> str:
    # File systems' bytes that are no UTF-8 come as surrogates, U+DC80 to U+DCFF.
    name = re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name)
    name = name.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), name)


def _unique(ids: list[str]) -> list[str]:
    """`ids`, with a number after those that came before."""
    taken, result = set(ids), []
    seen: set[str] = set()
    for name in ids:
        fresh, n = name, 2
        while fresh in seen or (fresh != name and fresh in taken):
            fresh, n = f"{name}~{n}", n + 1
        seen.add(fresh)
        result.append(fresh)
    return result
