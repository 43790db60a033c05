"""Files to pictures: every format that is read, each behind bounds on what it may claim or become.

The content decides what a file is, never its name.  A file holds one picture or many:

    JPEG, PNG, BMP, GIF, WebP   one (animations are refused)
    TIFF                        one per page; thumbnails and masks between the pages are passed over
    FITS (also gzip, bzip2)     those of its science images, see `FitsPictures`
    HDF5                        those of its data set `images`, see `Hdf5Pictures`

A picture is turned as its Orientation tag says it is to be seen: cameras, and programs that turn
pictures without loss, write one.  Pictures keep the numbers they were written with.  Their type
says what the numbers mean:

    float32   light in 0..1, linear: formats of 8 bits, v / 255, the mean of the colours
    uint16    light in steps of unknown size: 16-bit formats, which may hold 10, 12 or 14 bits
    float64   physical units (counts, fluxes), of any size and sign: FITS, and floats anywhere

Files come from anybody.  Reading one may fail only with `UnusableImageError`, whose text is the
reason to count it under, and takes memory for MAX_PIXELS pixels at the most.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import h5py
import numpy as np
import tifffile
from PIL import Image, ImageFile, UnidentifiedImageError

MAX_PIXELS = 2**25  # of one picture, about 5,800 x 5,800
MAX_BYTES = 8 * MAX_PIXELS  # of a file that has to be held in memory, after decompression
MAX_PICTURES = 100_000  # in one file
MAX_DIRECTORIES = 10_000  # pages or extensions of one file, each of which takes a millisecond
MAX_WORK = 16 * MAX_PIXELS  # pixels times passes over them, for formats that paint in passes

GZIP, BZIP2, FITS = b"\x1f\x8b", b"BZh", b"SIMPLE  ="
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HDF5 = b"\x89HDF\r\n\x1a\n"
PLAIN = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF",
    b"RIFF": "WEBP",
}  # fmt: skip
HEAD = 32  # bytes that tell the format
ORIENTATION = 274  # a tag of TIFF and Exif
FEW = 16  # a last axis shorter than this, after longer ones, is bands: no galaxy is so narrow
LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # Pillow's names of pixel layouts
READABLE = (1, 8, 32946)  # TIFF compressions that tifffile decodes by itself: none, deflate

SCIENCE = re.compile(r"(SCI|SCIENCE|IMAGE)\d*")
NOT_SCIENCE = re.compile(
    r"(ERR|ERRORS?|ERRS?|STD|STDEV|STDDEV|RMS|SIG|SIGMA|UNC|UNCERT|UNCERTAINTY|NOISE"
    r"|WHT|WGT|WT|WEIGHTS?|WEIGHTMAP|VAR|VARIANCE|IVAR|INVVAR|IVARIANCE"
    r"|DQ|BPM|BPMASK|MSK|MASKS?|MASKED|FLAGS?|QUALITY|QUAL|CTX|CON|CONTEXT"
    r"|EXP|EXPOSURE|EXPTIME|EXPMAP|TIME|NSAMP|SAMP|COV|COVERAGE|NEXP|AREA|PSF"
    r"|STAT|ERRMAP|RMSMAP|NOISEMAP|VARMAP|COVMAP|NMAP|NIMAGE|HITS?|FLG|BADPIX"
    r"|CONF|CONFIDENCE|CONFMAP|MASKBITS|DEPTH|GALDEPTH|PSFDEPTH|PSFSIZE|CHI|CHISQ|BGMOD"
    r"|BKG|BACKGROUND|SKY|SEG|SEGM|SEGMAP|SEGMENTATION|MODEL|RESID|RESIDUALS?)\d*"
)

# tifffile logs what is wrong with a file; a program that has not set up logging shall not print it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class UnusableImageError(Exception):
    """One picture that cannot be used; `str(error)` is the reason it is counted under."""


TOO_LARGE = "too large"
UNREADABLE = "unreadable"
NO_IMAGE = "not an image"
NOT_DECODED = "a TIFF compression that is not read; save it without"


class Pictures:
    """The pictures in one open file: `len(pictures)`, and `read(k)` for k from 0.

    `deep` says whether they are of type uint16, and `row_order` whether the first row of a picture
    is meant to be seen at its "top" or at its "bottom".
    """

    deep = False
    row_order = "top"

    def __len__(self) -> int:
        return 1

    def read(self, k: int) -> np.ndarray:
        """Picture `k`, (height, width), of a type that says what its numbers mean (see above)."""
        with only_unusable():
            return self._read(k)

    def _read(self, k: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open beside the file itself."""


def open_pictures(file: IO[bytes], hdu: int | str | None = None) -> Pictures:
    """The pictures in a file that is open for reading, at its start.

    Looks at headers only, except in compressed FITS files.  hdu: of FITS files, the extension to
    read, by number or EXTNAME.

    Raises `UnusableImageError` with the reason where there are none.
    """
    with only_unusable():
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith((GZIP, BZIP2)):
            file = _decompressed(file, head)
            head = FITS
        if head.startswith(FITS):
            return FitsPictures(file, hdu)
        if head.startswith(TIFF):
            return TiffPictures(file)
        if head.startswith(HDF5):
            return Hdf5Pictures(file)
        if (kind := plain_kind(head)) is not None:
            return PlainPicture(file, kind, is_deep_png(head))
    raise UnusableImageError(NO_IMAGE)


def plain_kind(head: bytes) -> str | None:
    """Pillow's name of the format of a file that begins so, if it holds a single picture."""
    kind = next((kind for magic, kind in PLAIN.items() if head.startswith(magic)), None)
    return None if kind == "WEBP" and head[8:12] != b"WEBP" else kind


def is_deep_png(head: bytes) -> bool:
    """Tell whether a file that begins so is a PNG of 16 bits."""
    return plain_kind(head) == "PNG" and head[24:25] == b"\x10"


def is_image_file(head: bytes) -> bool:
    """Tell whether a file that begins so is of a format that is read."""
    return head.startswith((GZIP, BZIP2, FITS, HDF5, *TIFF)) or plain_kind(head) is not None


def rgb_to_intensity(rgb: np.ndarray) -> np.ndarray:
    """Mean over the colours of a uint8 (height, width, 3) picture, as float32 in 0..1."""
    # Sums of integers are exact, and four times as fast as a mean over the last axis.
    total = np.add(rgb[..., 0], rgb[..., 1], dtype=np.uint16)
    total += rgb[..., 2]
    return total * np.float32(1 / 765)


class PlainPicture(Pictures):
    """A JPEG, PNG, BMP, GIF or WebP file."""

    def __init__(self, file: IO[bytes], kind: str, deep: bool):
        self.file, self.kind, self.deep = file, kind, deep

    def _read(self, k: int) -> np.ndarray:
        with self._open() as picture:
            check_pixels(picture.size)
            if self.kind == "JPEG":
                _check_scans(self.file, picture.size)
            elif getattr(picture, "is_animated", False):
                raise UnusableImageError("an animation")
            values = self._deep(picture) if self.deep else _pillow_intensities(picture)
            return upright(values, _orientation(picture))

    def _open(self) -> ImageFile.ImageFile:
        self.file.seek(0)
        return Image.open(self.file, formats=[self.kind])

    def _deep(self, picture: ImageFile.ImageFile) -> np.ndarray:
        """The pixels of a PNG of 16 bits; of its colours Pillow gives the upper bytes only."""
        if picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint16)
        layout = picture.tile[0][3]
        if layout not in LOWER_BYTES:
            raise UnusableImageError("a grey PNG of 16 bits with alpha; drop the alpha channel")
        upper = np.asarray(picture)
        with self._open() as again:
            again.tile = [tile._replace(args=LOWER_BYTES[layout]) for tile in again.tile]
            lower = np.asarray(again)
        return intensities(upper * np.uint16(256) + lower, colours=3)


class TiffPictures(Pictures):
    """The pages of a TIFF or BigTIFF file that are pictures.

    Axes come from the file's own account of its samples.  Up to 4 samples of a pixel are colours or
    bands, which are averaged without the alpha channel; more are as many pictures.
    """

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.tiff = tifffile.TiffFile(file, is_ome=False)
        self.places: list[tuple[int, int]] = []
        seen: set[int] = set()
        for number in itertools.count():
            try:
                page = self._page(number)
            except IndexError:
                break
            if not page.subfiletype & 5:  # neither a thumbnail nor a mask
                self.places += [(number, k) for k in range(_tiff_planes(page))]
                self.deep |= page.dtype == np.uint16 and page.bitspersample == 16
            if number > MAX_DIRECTORIES or len(self.places) > MAX_PICTURES:
                raise UnusableImageError(TOO_LARGE)
            if page.offset in seen:  # the chain of pages bites its tail
                raise UnusableImageError(UNREADABLE)
            seen.add(page.offset)
        if not self.places:
            raise UnusableImageError(NO_IMAGE)
        if (self.tiff.is_shaped or self.tiff.is_imagej) and self.tiff.series[0].is_truncated:
            # All but the first of these pictures would be lost.
            raise UnusableImageError("a TIFF stack with a directory for its first page only")

    def __len__(self) -> int:
        return len(self.places)

    def _page(self, number: int) -> tifffile.TiffPage:
        page = self.tiff.pages[number]
        return page if isinstance(page, tifffile.TiffPage) else page.aspage()

    def _read(self, k: int) -> np.ndarray:
        number, plane = self.places[k]
        page = self._page(number)
        check_pixels(page.shape)
        eight = page.dtype == np.uint8 and page.samplesperpixel <= 4 and "Z" not in page.axes
        if eight or page.bitspersample not in (8, 16, 32, 64) or page.compression not in READABLE:
            return self._by_pillow(number, page)
        return upright(self._values(page, plane), page.tags.valueof(ORIENTATION, 1))

    def _values(self, page: tifffile.TiffPage, plane: int) -> np.ndarray:
        if page.photometric not in (0, 1, 2):
            raise UnusableImageError("a TIFF of unusual colours; use grey or RGB")
        if page.compression != 1:
            _check_strips(page)
        values = page.asarray()
        if page.photometric == 0 and values.dtype.kind == "u":  # white is zero
            values = np.iinfo(values.dtype).max - values
        if "Z" in page.axes:
            return intensities(values[plane].reshape(page.shape[1:3]))
        if "S" not in page.axes:
            return intensities(values)
        values = np.moveaxis(values, page.axes.index("S"), -1)
        samples = values.shape[-1]
        if samples > 4:
            return intensities(values[..., plane])
        alpha = samples == 2 or any(kind in (1, 2) for kind in page.extrasamples)
        return intensities(values, colours=samples - alpha)

    def _by_pillow(self, number: int, page: tifffile.TiffPage) -> np.ndarray:
        """A page that Pillow decodes, which turns it as its tag says."""
        self.file.seek(0)
        try:
            picture = Image.open(self.file, formats=["TIFF"])
            picture.seek(number)
        except UnidentifiedImageError as error:  # a TIFF it is, as tifffile has seen
            raise UnusableImageError(NOT_DECODED) from error
        with picture:
            check_pixels(picture.size)
            bits = page.bitspersample
            if picture.mode == "F" or picture.mode == "I":
                values = np.asarray(picture)
                if page.dtype == np.uint32:  # Pillow knows signed ones only
                    values = values.view(np.uint32)
                return values.astype(np.float64)
            if picture.mode.startswith("I;16"):
                values = np.asarray(picture).astype(np.uint16)
                if page.photometric == 0:  # white is zero, which Pillow heeds in 8 bits only
                    values = np.uint16(2**bits - 1) - values
                return values if bits == 16 else values * np.float32(1 / (2**bits - 1))
            if page.dtype != np.uint8 and page.bitspersample != 1:
                raise UnusableImageError(NOT_DECODED)
            return _pillow_intensities(picture)


class FitsPictures(Pictures):
    """The science images of a FITS file.

    Taken are the images named SCI, SCIENCE or IMAGE (EXTNAME) if there are any, and else all whose
    names do not say that they hold errors, weights, variances, masks, flags, exposures, the sky or
    a PSF; or the one that `hdu` chooses.  Axes of length 1 are dropped.  Two axes are a picture;
    of three, a first or else a last axis of 3 or 4 is colours or bands, which are averaged, but for
    those without data; a last axis of another length below FEW, after longer ones, counts bands,
    each a picture; and any other first axis counts pictures.  Of four, the first counts pictures
    and three are as above.
    """

    row_order = "bottom"

    def __init__(self, file: IO[bytes], hdu: int | str | None):
        from astropy.io import fits  # slow to import, and most sources need none of it

        file.seek(0, io.SEEK_END)
        size = file.tell()
        file.seek(0)
        self.file = file
        self.hdus = fits.open(file, memmap=False, lazy_load_hdus=True)
        found: list[tuple[str, int, Layout]] = []
        for number in itertools.count():
            try:
                one = self.hdus[number]
            except IndexError:
                break
            if number > MAX_DIRECTORIES:
                raise UnusableImageError(TOO_LARGE)
            chosen = hdu is None or (
                number == hdu if isinstance(hdu, int) else one.name == hdu.strip().upper()
            )
            if not chosen or not one.is_image or not one.shape or math.prod(one.shape) == 0:
                continue
            layout = Layout(one.shape)
            if layout.count:
                place = one.fileinfo()
                packed = hasattr(one, "compressed_data")
                if place["datLoc"] + (place["datSpan"] - 2880 if packed else one.size) > size:
                    raise UnusableImageError(UNREADABLE)  # truncated
                found.append((one.name, number, layout))
        if hdu is None:
            found = [x for x in found if not _says(NOT_SCIENCE, x[0])]
            found = [x for x in found if _says(SCIENCE, x[0])] or found
        elif not found:
            raise UnusableImageError(f"no image in HDU {hdu}")
        if sum(layout.count for _, _, layout in found) > MAX_PICTURES:
            raise UnusableImageError(TOO_LARGE)
        self.places = [(n, layout, k) for _, n, layout in found for k in range(layout.count)]
        self.checked: set[int] = set()
        if not self.places:
            raise UnusableImageError(NO_IMAGE)

    def __len__(self) -> int:
        return len(self.places)

    def _read(self, k: int) -> np.ndarray:
        number, layout, k = self.places[k]
        check_pixels(layout.part)
        hdu = self.hdus[number]
        if hasattr(hdu, "compressed_data") and number not in self.checked:
            self._check_tiles(number)
            self.checked.add(number)
        data = np.asarray(hdu.section[layout.index(k)], dtype=np.float64)
        return layout.picture(data)

    def _check_tiles(self, number: int) -> None:
        """Refuse a compressed image with deflated tiles that become more than they may."""
        from astropy.io import fits

        hdu = self.hdus[number]
        limit = 8 * min(math.prod(hdu.tile_shape), math.prod(hdu.shape)) + 2**16
        self.file.seek(0)
        raw = fits.open(self.file, memmap=False, disable_image_compression=True)[number]
        names = {"GZIP_COMPRESSED_DATA"}
        if hdu.compression_type.startswith("GZIP"):
            names.add("COMPRESSED_DATA")
        for name in names & set(raw.columns.names):
            for tile in raw.data[name]:
                _check_inflated(np.asarray(tile).tobytes(), limit, zlib.MAX_WBITS | 32)

    def close(self) -> None:
        """Let go of the parsed file."""
        self.hdus.close()


class Hdf5Pictures(Pictures):
    """The pictures in an HDF5 file: its data set `images`, or the only one that may be pictures.

    Shapes are (n, height, width), with colours (n, height, width, 3 or 4) or (n, 3 or 4, height,
    width), or (height, width) and (height, width, 3 or 4) for one picture.  Four colours of an
    integer type are RGB and alpha.  Two, or 5 and more, along the last axis are bands, each a
    picture.  Only data that lie in the file itself are read.
    """

    def __init__(self, file: IO[bytes]):
        self.file = h5py.File(file, "r")
        self.data = self._find()
        data, shape = self.data, self.data.shape
        if data.is_virtual or data.external is not None:
            raise UnusableImageError("HDF5 images that lie in other files")
        self.layout = Layout(shape, stack=True)
        if not self.layout.count:
            raise UnusableImageError(NO_IMAGE)
        stored = data.id.get_storage_size()
        if self.layout.count > MAX_PICTURES or data.nbytes > 2000 * stored:
            raise UnusableImageError(TOO_LARGE)  # or nothing is there, for all it claims
        chunk = math.prod(data.chunks or (1,)) * data.dtype.itemsize
        if chunk > MAX_BYTES // 4:
            raise UnusableImageError(TOO_LARGE)
        self.deep = data.dtype.kind == "u" and data.dtype.itemsize == 2

    def _find(self) -> h5py.Dataset:
        found = {}
        for name in itertools.islice(self.file, 1000):
            if isinstance(self.file.get(name, getlink=True), h5py.HardLink):
                item = self.file[name]
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "uif" and item.ndim > 1:
                    found[name] = item
        if "images" in found:
            return found["images"]
        if len(found) != 1:
            raise UnusableImageError("an HDF5 file without a data set `images`")
        return next(iter(found.values()))

    def __len__(self) -> int:
        return self.layout.count

    def _read(self, k: int) -> np.ndarray:
        check_pixels(self.layout.part)
        data = self.data[self.layout.index(k)]
        return self.layout.picture(data, alpha=data.dtype.kind == "u")

    def close(self) -> None:
        """Close the file as HDF5 sees it."""
        self.file.close()


class Layout:
    """How the pictures lie in an array of a given shape; see `FitsPictures`.

    count: of pictures, 0 if the array holds none.  stack: a single further axis counts pictures
    where it comes first, even if there are 3 or 4 of them.  part: the shape of one picture with its
    colours.
    """

    def __init__(self, shape: tuple[int, ...], stack: bool = False):
        axes = [k for k, n in enumerate(shape) if n > 1]
        sides = [shape[k] for k in axes]
        self.dimensions, self.counted, self.colours = len(shape), axes[:-2], None
        stack = stack and len(sides) == 3 and axes[0] == 0
        if len(sides) > 2 and not stack and sides[-3] in (3, 4):
            self.counted, self.colours = axes[:-3], 0
        elif len(sides) > 2 and sides[-1] in (3, 4):
            self.counted, self.colours = axes[:-3], 2
        elif len(sides) > 2 and sides[-1] < FEW <= min(sides[-3:-1]):
            self.counted = [*axes[:-3], axes[-1]]
        self.sizes = [shape[k] for k in self.counted]
        self.part = tuple(shape[k] for k in axes if k not in self.counted)
        usable = len(axes) >= 2 and len(self.counted) <= 2 and 0 not in shape
        self.count = math.prod(self.sizes) if usable else 0

    def index(self, k: int) -> tuple[Any, ...]:
        """Index of picture `k` in the array."""
        whole: list[Any] = [slice(None)] * self.dimensions
        for axis, n in zip(reversed(self.counted), reversed(self.sizes), strict=True):
            k, whole[axis] = divmod(k, n)
        return tuple(whole)

    def picture(self, part: np.ndarray, alpha: bool = False) -> np.ndarray:
        """One picture (height, width) from its part of the array; alpha: of four colours, one."""
        part = part.reshape(self.part)
        if self.colours is None:
            return intensities(part)
        part = np.moveaxis(part, self.colours, -1)
        return intensities(part, 3 if alpha else part.shape[-1])


def intensities(values: np.ndarray, colours: int | None = None) -> np.ndarray:
    """One picture as the type that says what its numbers mean (see the top of this module).

    colours: average over so many, the first along the last axis; None if there is no such axis.
        Of floats, bands of one value or NaN are left out.
    """
    kind = values.dtype
    if kind.kind not in "buif":
        raise UnusableImageError(NO_IMAGE)
    if colours is not None:
        if kind == np.uint8 and colours == 3:
            return rgb_to_intensity(values)
        values = values[..., :colours]
        if kind.kind == "f":
            values = _with_data(values)
        values = values.mean(axis=-1, dtype=np.float64)
    if kind == np.uint8:
        return (values * np.float32(1 / 255)).astype(np.float32)
    if kind.kind == "u" and kind.itemsize == 2:
        return np.rint(values).astype(np.uint16)
    return values.astype(np.float64)


def _with_data(bands: np.ndarray) -> np.ndarray:
    """The bands (height, width, n) that hold more than one value or NaN, if any do.

    Surveys fill a band in which they did not look with zeros or NaN; an alpha channel is full of 1.
    """
    flat = bands.reshape(-1, bands.shape[-1])
    some = (np.fmin.reduce(flat) < np.fmax.reduce(flat)).nonzero()[0]
    return bands if len(some) in (0, bands.shape[-1]) else bands[..., some]


def as_picture(image: Any) -> np.ndarray:
    """A picture of one of the three types that say what its numbers mean; masked pixels are NaN."""
    if isinstance(image, np.ma.MaskedArray):
        image = np.ma.filled(image.astype(np.float64), np.nan)
    image = np.asarray(image)
    if image.ndim != 2:
        raise UnusableImageError("not of two axes")
    return image if image.dtype == np.float32 else intensities(image)


def check_pixels(shape: Iterable[int]) -> None:
    """Refuse a picture of more than MAX_PIXELS pixels, or of 4 colours of so many."""
    sides = sorted((int(n) for n in shape), reverse=True)
    if math.prod(sides[:2]) > MAX_PIXELS or math.prod(sides) > 4 * MAX_PIXELS:
        raise UnusableImageError(TOO_LARGE)


def read_bounded(stream: Any) -> io.BytesIO:
    """All of a stream, in memory, or `UnusableImageError` where that is more than MAX_BYTES."""
    content = io.BytesIO()
    while part := stream.read(2**20):
        content.write(part)
        if content.tell() > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
    content.seek(0)
    return content


@contextmanager
def only_unusable() -> Iterator[None]:
    """Turn whatever a decoder raises into `UnusableImageError`, and keep its warnings to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnusableImageError:
            raise
        except UnidentifiedImageError as error:
            raise UnusableImageError(NO_IMAGE) from error
        except (MemoryError, Image.DecompressionBombError) as error:
            raise UnusableImageError(TOO_LARGE) from error
        except Exception as error:
            raise UnusableImageError(UNREADABLE) from error


def upright(values: np.ndarray, orientation: Any) -> np.ndarray:
    """Turn a picture (height, width) as its Orientation tag, from 1 to 8, says it is to be seen."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:  # what a camera wrote is no reason to lose a picture
        return 1


def _pillow_intensities(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("L", "LA", "1"):
        return np.asarray(picture.convert("L")) * np.float32(1 / 255)
    return rgb_to_intensity(np.asarray(picture.convert("RGB")))


def _decompressed(file: IO[bytes], head: bytes) -> IO[bytes]:
    """The FITS file in a gzip or bzip2 file, in memory."""
    stream = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else bz2.BZ2File(file)
    if stream.read(len(FITS)) != FITS:
        raise UnusableImageError(NO_IMAGE)
    stream.seek(0)
    return read_bounded(stream)


def _check_scans(file: IO[bytes], size: tuple[int, int]) -> None:
    """Refuse a progressive JPEG that paints over itself a great many times."""
    file.seek(0)
    if file.read().count(b"\xff\xda") * math.prod(size) > MAX_WORK:
        raise UnusableImageError(TOO_LARGE)


def _tiff_planes(page: tifffile.TiffPage) -> int:
    """How many pictures a page holds."""
    if "Z" in page.axes:
        return int(page.shape[page.axes.index("Z")])
    return page.samplesperpixel if page.samplesperpixel > 4 else 1


def _check_inflated(content: bytes, limit: int, wbits: int) -> None:
    """Refuse deflated data that become more than `limit` bytes."""
    decoder = zlib.decompressobj(wbits)
    made = 0
    while content and not decoder.eof:
        made += len(decoder.decompress(content, 2**20))
        content = decoder.unconsumed_tail
        if made > limit:
            raise UnusableImageError(TOO_LARGE)


def _check_strips(page: tifffile.TiffPage) -> None:
    """Refuse deflated strips or tiles of a TIFF that become more than they may."""
    assert page.dtype is not None
    limit = math.prod(page.chunks) * page.dtype.itemsize + 2**16
    if len(page.dataoffsets) * (limit - 2**16) > 2 * page.nbytes + 2**20:
        raise UnusableImageError(TOO_LARGE)
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        _check_inflated(file.read(min(count, 2 * limit)), limit, zlib.MAX_WBITS)


def _says(words: re.Pattern[str], name: str) -> bool:
    """Tell whether one of the words that make up an EXTNAME is among `words`."""
    return any(words.fullmatch(part) for part in re.split(r"[^A-Z0-9]+", name.upper()))
