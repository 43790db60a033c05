"""Sources that read files: a folder, a single file or a zip."""

from __future__ import annotations

import math
import os
import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.bounds import (
    MAX_BYTES,
    TOO_LARGE,
    UnusableImageError,
    only_unusable,
    read_bounded,
)
from layerkit.galaxy.images.decode.decode import open_pictures
from layerkit.galaxy.images.decode.formats.pictures import Pictures
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.decode.formats.signatures import (
    HEAD,
    is_deep_png,
    is_image_file,
    plain_kind,
)
from layerkit.galaxy.images.prepared import PREPARED_FORMAT, is_prepared
from layerkit.galaxy.images.sources.companions import companions
from layerkit.galaxy.images.sources.ids import numbered, printable, unique_ids
from layerkit.galaxy.images.sources.results import without_results
from layerkit.galaxy.layout import GALAXIES
from layerkit.saving.hdf5 import is_sealed

NO_SCALE = math.nan
NOT_REGULAR = "not a regular file"
COMPANION = "named as weights, a mask, a model or the like of another picture"
ONLY_RESULTS = (
    f"{{}}: only results of training runs; give one of their {GALAXIES}, or a {{}} of pictures"
)
FORMATS = "JPEG, PNG, TIFF, FITS or HDF5 files"


class FileSource:
    """Pictures in files, each of which may hold several pictures or none.

    Subclasses define how the file named `files[k]` is opened.

    Args:
        name: of the source.
        files: names of the files, with "/" between folders.
        hdu: the FITS extension to read, see `open_source`.

    Attributes:
        scales: arcseconds per pixel of each picture, NaN where its file does not say.
        row_order: "top" or "bottom", where the first row of a picture is displayed: that of most.
            Others are turned upside down as they are read, so that all angles are of one kind.
    """

    in_memory = False  # whether whole files are read before they are decoded
    windows = False  # whether names may have "\\" between folders

    def __init__(self, name: str, files: list[str], hdu: int | str | None):
        # The pictures of different extensions are different sets.
        self.name = printable(name) if hdu is None else f"{printable(name)}[{hdu}]"
        self.files, self.hdu = files, hdu
        self.reasons: dict[int, str] = {}  # why a file cannot be read, by its number
        self.pictures: list[tuple[int, int]] = []  # file, and number in the file, of each
        self.ids: list[str] = []
        self.deep: list[int] = []
        self.scales: list[float] = []
        self._last: tuple[int, int, IO[bytes], Pictures] | None = None
        orders = list[str]()  # of each file
        counts: Counter[str] = Counter()
        names = [name.replace("\\", "/") for name in files] if self.windows else files
        beside = companions(names)
        for k, plain in enumerate(unique_ids(names)):
            if k in beside:
                self.reasons[k] = COMPANION
            scales, deep, order = ([NO_SCALE], False, "") if k in beside else self._look_into(k)
            count = len(scales)
            self.scales += scales
            orders.append(order)
            counts[order] += count
            width = max(4, len(str(count - 1)))
            new = range(len(self.pictures), len(self.pictures) + count)
            self.pictures += [(k, number) for number in range(count)]
            self.ids += [f"{plain}[{n:0{width}d}]" for n in range(count)] if count > 1 else [plain]
            self.deep += new if deep else ()
        self._close()
        self.ids = numbered(self.ids)
        self.row_order = "bottom" if counts["bottom"] > counts["top"] else "top"
        self.turned = {k for k, order in enumerate(orders) if order not in ("", self.row_order)}

    def _open(self, k: int) -> Any:
        raise NotImplementedError

    def _look_into(self, k: int) -> tuple[list[float], bool, str]:
        """Return the scales of the pictures in file `k`, whether they are uint16, and row order.

        A file that cannot be read counts as one picture, and its reason is noted.
        """
        try:
            with only_unusable():
                with self._open(k) as file:
                    head = file.read(HEAD)
                if plain_kind(head) or not is_image_file(head):
                    return [NO_SCALE], is_deep_png(head), "top" if plain_kind(head) else ""
                pictures = self._opened(k)
                scales = [pictures.pixel_scale(n) for n in range(len(pictures))]
                return scales, pictures.deep, pictures.row_order
        except UnusableImageError as error:
            self.reasons[k] = str(error)
            return [NO_SCALE], False, ""

    def __len__(self) -> int:
        return len(self.pictures)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_last": None}

    def read(self, i: int) -> np.ndarray:
        """Read picture `i`; see `Source.read`.  Several threads may read at once."""
        k, number = self.pictures[i]
        if k in self.reasons:
            raise UnusableImageError(self.reasons[k])
        with only_unusable():  # which one thread does at a time, as all share the open file
            picture = self._opened(k).read(number)
        return picture[::-1] if k in self.turned else picture

    def planes(self, i: int) -> Planes:
        """Read what the file says of the pixels of picture `i`; see `Source`."""
        k, number = self.pictures[i]
        with only_unusable():
            found = self._opened(k).planes(number)
        return found.turned() if k in self.turned else found

    def _opened(self, k: int) -> Pictures:
        """Open file `k`, and keep it open, as its other pictures are likely to be read next."""
        # Forked processes would share a file's position, so each opens its own.
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
    """The pictures in a zip file, in the order of its directory; it is not unpacked.

    Args:
        path: the zip file.
        hdu: see `open_source`.

    Raises:
        DataError: it is not a zip file, or holds no files but results of training runs.
    """

    in_memory = True  # seeking back in a compressed entry would decompress it again
    windows = True

    def __init__(self, path: str | os.PathLike, hdu: int | str | None = None):
        self.path = Path(path).absolute()
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = [e.filename for e in archive.infolist() if not e.is_dir()]
                # Some programs on Windows write "\\" between folders, against the zip standard.
                plain = {name: name.replace("\\", "/") for name in files}
                files = [name for name in files if not _hidden(plain[name])]
                entries = {plain[name]: archive.getinfo(name) for name in files}
                kept = set(
                    without_results(
                        list(entries), lambda name: _is_prepared(archive, entries[name])
                    )
                )
        except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
            raise DataError(f"{path}: not a readable zip file ({error}); fetch it again") from error
        if not files:
            raise DataError(f"{path}: an empty zip; expected {FORMATS} in it")
        files = [name for name in files if plain[name] in kept]
        if not files:
            raise DataError(ONLY_RESULTS.format(path, "zip"))
        again = [name for name, count in Counter(files).items() for _ in range(count - 1)]
        files = list(dict.fromkeys(files))
        self.distinct = len(files)
        super().__init__(self.path.name, files + again, hdu)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_handle": None}

    def _open(self, k: int) -> Any:
        if k >= self.distinct:
            raise UnusableImageError("replaced by a later entry of that name in the zip")
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))
        archive = self._handle[1]
        entry = archive.getinfo(self.files[k])
        if entry.file_size > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
        if entry.flag_bits & 1:
            raise UnusableImageError("encrypted")
        return archive.open(entry)


def _is_prepared(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Tell whether an entry of a zip is a prepared set of galaxies, by its first bytes."""
    try:
        with only_unusable(), archive.open(entry) as file:
            return is_sealed(file, PREPARED_FORMAT)
    except UnusableImageError:
        return False


class FolderSource(FileSource):
    """The pictures in a folder and its subfolders, sorted by path; links are followed.

    Args:
        path: the folder.
        files: names of the files to read, relative to `path`; by default all.
        name: of the source; by default that of the folder.
        hdu: see `open_source`.

    Raises:
        DataError: there are no files, or none but results of training runs.
    """

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
            files = without_results(found, lambda name: is_prepared(self.path / name))
            if found and not files:
                raise DataError(ONLY_RESULTS.format(path, "folder"))
        if not files:
            raise DataError(f"{path}: an empty folder; expected {FORMATS}")
        super().__init__(name or self.path.name, files, hdu)

    def _open(self, k: int) -> Any:
        path = self.path / self.files[k]
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for a writer
            raise UnusableImageError(NOT_REGULAR)
        return open(path, "rb")


def _walk(top: Path) -> list[str]:
    """List the files under a folder, relative to it, each under one name only.

    If links gave a file several names, its pictures would count twice, and training might see
    pictures that are held out.  Subfolders that cannot be read are skipped.

    Raises:
        OSError: `top` cannot be read.
    """
    real = top.resolve()
    # A link to a folder above would make the whole disk part of this folder.
    seen = {_identity(folder) for folder in (real, *real.parents)}
    found: list[str] = []
    linked: list[str] = []
    folders, links = [""], list[str]()
    while folders or links:
        # Real folders come first, so that files get their real names.
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
