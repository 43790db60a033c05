"""Where galaxy images come from: a zip, a folder, FITS files, or the built-in Hubble picture.

Every source looks the same from outside: a name, a list of ids, and `read(i)`, which returns one
picture as a float32 array of intensities in 0..1.  Nothing is decoded before it is asked for.
"""

import bz2
import gzip
import io
import os
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from layerkit import hdf5
from layerkit.errors import DataError
from layerkit.files import open_regular
from layerkit.galaxy.layout import without_results

FITS_NAME = re.compile(r"\.(fits?|fts|fz)(\.gz|\.bz2)?$", re.IGNORECASE)
TIFF_MAGIC = (b"II*\0", b"MM\0*")
SUFFIX = re.compile(r"(\.(fits?|fts|fz))?\.[^./]+$", re.IGNORECASE)
PREPARED_FORMAT = "layerkit galaxy set"


class UnusableImageError(Exception):
    """One picture that cannot be used; `str(error)` is the reason it is counted under."""


class Source(Protocol):
    """A set of pictures, one galaxy near the centre of each.

    `name` is short and goes into messages and file attributes; `ids` are unique.  Sources can be
    pickled and sent to worker processes.
    """

    name: str
    ids: list[str]

    def __len__(self) -> int:
        """How many pictures (or things that should have been pictures) there are."""
        ...

    def read(self, i: int) -> np.ndarray:
        """Picture `i` as float32 (height, width) in 0..1; raises `UnusableImageError`."""
        ...


def is_prepared(path: str | os.PathLike | None) -> bool:
    """Whether `path` is an HDF5 file that `prepare` wrote, of this format version or another."""
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


def open_source(path: str | os.PathLike | None) -> Source:
    """Open a set of pictures of whatever kind `path` is.

    - None: the galaxies of the Hubble picture that scikit-image ships (`HubbleSource`).
    - a zip, such as Kaggle's `images_training_rev1.zip`: read in place, never unpacked;
    - a folder of JPEG, PNG, TIFF or FITS files, searched through all its subfolders, sorted;
    - a single picture or FITS file.

    Hidden files and `__MACOSX` entries are passed over; any other file that is not a picture keeps
    its place in the source, so that it is counted, and its `read` raises `UnusableImageError`.

    Raises `DataError` where the path is missing, empty, not to be read, or of another kind.
    """
    if path is None:
        from layerkit.galaxy.hubble import HubbleSource

        return HubbleSource()
    path = Path(path)
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; expected a zip, folder, FITS or HDF5")
        if path.is_dir():
            return FolderSource(path)
        if is_prepared(path):
            raise DataError(f"{path}: a prepared galaxy set, not pictures; open it with load()")
        with open(path, "rb") as file:
            head = file.read(8)
        if zipfile.is_zipfile(path):
            return ZipSource(path)
        if head.startswith(b"PK") or path.suffix.lower() == ".zip":
            raise DataError(f"{path}: not a zip file, or a truncated one; fetch it again")
        if FITS_NAME.search(path.name) or head[:4] in TIFF_MAGIC or _is_picture(path):
            return FolderSource(path.parent, [path.name], name=path.name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    raise DataError(
        f"{path}: not a zip, a picture, a FITS file or a prepared HDF5 set; give one of these, or a"
        " folder of pictures"
    )


class ZipSource:
    """The pictures in a zip file, read in place, in the order of their names in the archive."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        self.name = self.path.name
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = [e.filename for e in archive.infolist() if not e.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path}: not a readable zip file ({error}); fetch it again") from error
        self.entries = [name for name in dict.fromkeys(files) if not _hidden(name)]
        if not self.entries:
            raise DataError(f"{path}: an empty zip; expected JPEG, PNG, TIFF or FITS files in it")
        self.ids = _unique_ids(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handle": None}

    def read(self, i: int) -> np.ndarray:
        """Picture `i` as float32 (height, width) in 0..1; raises `UnusableImageError`."""
        # A file position shared between processes would be everyone's undoing: one handle each.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))
        try:
            content = self._handle[1].read(self.entries[i])
        # zlib.error, BadZipFile, RuntimeError (encrypted) and more: a bad member, whatever it is.
        except Exception as error:
            raise UnusableImageError("unreadable") from error
        return _decode(io.BytesIO(content), self.entries[i])


class FolderSource:
    """The pictures in a folder and its subfolders, sorted by path."""

    def __init__(
        self, path: str | os.PathLike, files: list[str] | None = None, name: str | None = None
    ):
        self.path = Path(path).absolute()
        self.name = name or self.path.name
        if files is None:
            os.listdir(self.path)  # raises where the folder may not be read; os.walk is silent
            found = (Path(top, f) for top, _, names in os.walk(self.path) for f in names)
            relative = sorted(f.relative_to(self.path).as_posix() for f in found)
            files = without_results(self.path, [f for f in relative if not _hidden(f)])
        if not files:
            raise DataError(f"{path}: an empty folder; expected JPEG, PNG, TIFF or FITS files")
        self.files = files
        self.ids = _unique_ids(files)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, i: int) -> np.ndarray:
        """Picture `i` as float32 (height, width) in 0..1; raises `UnusableImageError`."""
        try:
            content = (self.path / self.files[i]).read_bytes()
        except OSError as error:
            raise UnusableImageError("unreadable") from error
        return _decode(io.BytesIO(content), self.files[i])


def stretch(image: np.ndarray) -> np.ndarray:
    """Bring physical units (counts, fluxes) to 0..1, as in a picture of the sky.

    With m the median and s the robust standard deviation (1.4826 times the median absolute
    deviation) of the finite pixels, a pixel v becomes asinh((v - m + s) / 10s), divided by what
    the brightest pixel becomes, and clipped to 0..1.  Black is thus one s below the sky, faint
    wings stay linear, and cores are compressed, as in the colour pictures of Lupton et al. (2004,
    PASP 116, 133).  Pixels that are not finite stay so.
    """
    image = np.asarray(image, dtype=np.float64)
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return image.astype(np.float32)
    sky = np.median(finite)
    spread = 1.4826 * np.median(np.abs(finite - sky)) or finite.std() or 1.0
    scaled, white = (np.arcsinh((v - sky + spread) / (10 * spread)) for v in (image, finite.max()))
    return np.clip(scaled / white, 0, 1).astype(np.float32)


def rgb_to_intensity(rgb: np.ndarray) -> np.ndarray:
    """Mean over the colours of a uint8 (height, width, 3) picture, as float32 in 0..1."""
    # Sums of integers are exact, and four times as fast as a mean over the last axis.
    total = np.add(rgb[..., 0], rgb[..., 1], dtype=np.uint16)
    total += rgb[..., 2]
    return total * np.float32(1 / 765)


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _unique_ids(names: list[str]) -> list[str]:
    """The stem of each name; where stems collide, the path without suffix; then the full path."""
    plain = [SUFFIX.sub("", name) for name in names]
    stems = [name.rsplit("/", 1)[-1] for name in plain]
    of_stem, of_plain = Counter(stems), Counter(plain)
    return [
        stem if of_stem[stem] == 1 else path if of_plain[path] == 1 else name
        for stem, path, name in zip(stems, plain, names, strict=True)
    ]


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return False


def _decode(file: IO[bytes], name: str) -> np.ndarray:
    """One file as intensities in 0..1.  Its content is anybody's: nothing it holds is fatal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode_fits(file) if FITS_NAME.search(name) else _decode_picture(file)
        except UnusableImageError:
            raise
        except UnidentifiedImageError as error:
            raise UnusableImageError("not an image") from error
        except Exception as error:
            raise UnusableImageError("unreadable") from error


def _decode_picture(file: IO[bytes]) -> np.ndarray:
    head = file.read(4)
    file.seek(0)
    if head in TIFF_MAGIC:  # TIFF: Pillow lacks deep colours and float64
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            if page.bitspersample > 8:
                return _intensity(page.asarray())
    file.seek(0)
    with Image.open(file) as picture:
        if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
            return _intensity(np.asarray(picture))
        if picture.mode in ("L", "LA", "1"):
            return np.asarray(picture.convert("L")) * np.float32(1 / 255)
        return rgb_to_intensity(np.asarray(picture.convert("RGB")))


def _intensity(values: np.ndarray) -> np.ndarray:
    """Pixels of more than 8 bits, with or without colours and alpha, as intensities in 0..1."""
    if values.ndim == 3:
        colours = 3 if values.shape[2] >= 3 else 1
        values = values[..., :colours].mean(2, dtype=np.float64).astype(values.dtype)
    if values.dtype == np.uint16:
        return values * np.float32(1 / 65535)
    if values.min() >= 0 and values.max() <= 1:
        return values.astype(np.float32)
    return stretch(values)


def _decode_fits(file: IO[bytes]) -> np.ndarray:
    from astropy.io import fits  # slow to import, and most sources need none of it

    head = file.read(3)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        file = io.BytesIO(gzip.decompress(file.read()))
    elif head == b"BZh":
        file = io.BytesIO(bz2.decompress(file.read()))
    with fits.open(file, memmap=False) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.data is not None:
                data = np.asarray(hdu.data, dtype=np.float64)
                data = data.reshape([n for n in data.shape if n > 1])
                if data.ndim == 3:
                    data = data.mean(axis=0)
                if data.ndim != 2:
                    break
                return stretch(data)
    raise UnusableImageError("not an image")
