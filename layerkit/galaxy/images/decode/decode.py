"""Files to pictures: every format that is read, each behind bounds on what it may claim or become.

The content decides what a file is, never its name.  A file holds one picture or many:

    JPEG, PNG, BMP, GIF, WebP   one (animations are refused)
    TIFF                        one per page; thumbnails and masks between the pages are passed over
    FITS (also gzip, bzip2)     those of its science images, see `FitsPictures`
    HDF5, MATLAB 7.3            those of its data set `images`, see `Hdf5Pictures`

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

from layerkit.galaxy.images.crop.blank import bad_pixels, no_data, partly_blank

MAX_PIXELS = 2**25  # of one picture, about 5,800 x 5,800
MAX_BYTES = 8 * MAX_PIXELS  # of a file that has to be held in memory, after decompression
MAX_PICTURES = 100_000  # in one file
MAX_DIRECTORIES = 10_000  # pages or extensions of one file, each of which takes a millisecond
MAX_WORK = 16 * MAX_PIXELS  # pixels times passes over them, for formats that paint in passes

GZIP, BZIP2, FITS = b"\x1f\x8b", b"BZh", b"SIMPLE  ="
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HDF5, MATLAB = b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file"
PLAIN = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF",
    b"RIFF": "WEBP",
}  # fmt: skip
TAR, TAR_PLACE = b"ustar", 257
OTHERS = {  # formats that are not read, and what to do about it
    b"\xfd7zXZ\0": "an xz file; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and give the folder",
    b"Rar!\x1a\x07": "a rar archive; unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"\x93NUMPY": "a NumPy array; save it as FITS or HDF5",
    b"#ASDF": "an ASDF file; save it as FITS or HDF5",
    b"CDF\1": "a netCDF file of before 4; convert it with nccopy -k nc4",
    b"CDF\2": "a netCDF file of before 4; convert it with nccopy -k nc4",
    b"PK\3\4": "a zip archive in a folder or another; give it by itself, or unpack it",
    b"PAR1": "a Parquet table; save its images as files",
    b"\x1f\x9d": "a compressed file; unpack it with gunzip",
    b"MATLAB 5.0 MAT-file": "a MATLAB file of before 7.3; save it with -v7.3",
}
ARCHIVE = "a tar archive; unpack it and give the folder"
HEAD = 264  # bytes that tell the format
ORIENTATION = 274  # a tag of TIFF and Exif
FEW = 16  # a last axis shorter than this, after longer ones, is bands: no galaxy is so narrow
NARROW = 8  # a picture of fewer pixels on one side than on the other holds no galaxy either
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
    r"|BKG|BACKGROUND|SKY|SEG|SEGM|SEGMAP|SEGMENTATION|MODELS?|RES|RESID|RESIDS|RESIDUALS?)\d*"
)

# tifffile logs what is wrong with a file; a program that has not set up logging shall not print it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class UnusableImageError(Exception):
    """One picture that cannot be used; `str(error)` is the reason it is counted under."""


TOO_LARGE = "too large"
UNREADABLE = "unreadable"
NO_IMAGE = "not an image"
OTHER_AXES = "axes of uncertain order; save as (n, height, width) or (n, height, width, 3)"
FLATTENED = "rows that look like flattened pictures; save them as (n, height, width)"
NOT_DECODED = "a TIFF compression that is not read; save it without"
NOT_UNPACKED = "an HDF5 compression that is not read; save it with gzip"


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
            file, head = _decompressed(file, head)
        if head.startswith(FITS):
            return FitsPictures(file, hdu)
        if head.startswith(TIFF):
            return TiffPictures(file)
        if head.startswith((HDF5, MATLAB)):
            return Hdf5Pictures(file, matlab=head.startswith(MATLAB))
        if (kind := plain_kind(head)) is not None:
            return PlainPicture(file, kind, is_deep_png(head))
    raise UnusableImageError(other_format(head) or NO_IMAGE)


def plain_kind(head: bytes) -> str | None:
    """Pillow's name of the format of a file that begins so, if it holds a single picture."""
    kind = next((kind for magic, kind in PLAIN.items() if head.startswith(magic)), None)
    return None if kind == "WEBP" and head[8:12] != b"WEBP" else kind


def is_deep_png(head: bytes) -> bool:
    """Tell whether a file that begins so is a PNG of 16 bits."""
    return plain_kind(head) == "PNG" and head[24:25] == b"\x10"


def is_image_file(head: bytes) -> bool:
    """Tell whether a file that begins so is of a format that is read."""
    known = (GZIP, BZIP2, FITS, HDF5, MATLAB, *TIFF)
    return head.startswith(known) or plain_kind(head) is not None


def other_format(head: bytes) -> str | None:
    """Name the format of a file that begins so and say what to do, if it is known but not read."""
    if head[TAR_PLACE:].startswith(TAR):
        return ARCHIVE
    return next((says for magic, says in OTHERS.items() if head.startswith(magic)), None)


def rgb_to_intensity(rgb: np.ndarray) -> np.ndarray:
    """Mean over the colours of a uint8 (height, width, 3) picture, as float32 in 0..1.

    Colours of one value hold no data, and are left out.  Where one of them ends within the picture
    it is black, as a blank border is.
    """
    few = _with_data(rgb[::16, ::16])  # to look at every pixel would take as long as to add them
    if few.shape[-1] < 3 and (some := _with_data(rgb)).shape[-1] < 3:
        return some.mean(axis=-1, dtype=np.float32) * np.float32(1 / 255)
    # Sums of integers are exact, and four times as fast as a mean over the last axis.
    total = np.add(rgb[..., 0], rgb[..., 1], dtype=np.uint16)
    total += rgb[..., 2]
    if (gaps := partly_blank(rgb)) is not None:
        total[gaps] = 0
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
        own = page.compression in READABLE and page.predictor in (1, 2)  # none, differences
        if eight or page.bitspersample not in (8, 16, 32, 64) or not own:
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
    names do not say that they hold errors, weights, variances, masks, flags, exposures, the sky, a
    model, its residuals or a PSF; or the one that `hdu` chooses.  GALFIT's model and residuals have
    no name, but are known by its keywords.  `Layout` says what the axes mean.
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
        reason, galfit = NO_IMAGE, False
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
            shapes = () if one.is_image else one.header["TDIM*"].values()
            if chosen and any(map(_holds_stamps, shapes)):
                reason = "a FITS table with images in its cells; save them as image extensions"
            if not one.is_image or not one.shape or math.prod(one.shape) == 0:
                continue
            galfit |= "LOGFILE" in one.header and ("COMP_1" in one.header or "1_XC" in one.header)
            if not chosen:
                continue
            layout = Layout(one.shape)
            reason = layout.doubt or reason
            if layout.count:
                place = one.fileinfo()
                packed = hasattr(one, "compressed_data")
                if place["datLoc"] + (place["datSpan"] - 2880 if packed else one.size) > size:
                    raise UnusableImageError(UNREADABLE)  # truncated
                name = f"{one.name} {one.header.get('OBJECT')}" if galfit else one.name
                found.append((name, number, layout))
        if hdu is None:
            if found and not (found := [x for x in found if not _says(NOT_SCIENCE, x[0])]):
                reason = "no FITS image but weights, masks, models or the like; choose one by hdu"
            found = [x for x in found if _says(SCIENCE, x[0])] or found
        elif not found and reason == NO_IMAGE:
            raise UnusableImageError(f"no image in HDU {hdu}")
        if sum(layout.count for _, _, layout in found) > MAX_PICTURES:
            raise UnusableImageError(TOO_LARGE)
        self.places = [(n, layout, k) for _, n, layout in found for k in range(layout.count)]
        self.checked: set[int] = set()
        if not self.places:
            raise UnusableImageError(reason)

    def __len__(self) -> int:
        return len(self.places)

    def _read(self, k: int) -> np.ndarray:
        number, layout, k = self.places[k]
        check_pixels(layout.part)
        hdu = self.hdus[number]
        if hasattr(hdu, "compressed_data") and number not in self.checked:
            self._check_tiles(number)
            self.checked.add(number)
        numbers = np.asarray(hdu.section[layout.index(k)])
        data = numbers.astype(np.float64)
        if numbers.dtype.kind == "u" and isinstance(blank := hdu.header.get("BLANK"), int):
            # Astropy heeds it in signed integers only.
            data[numbers == blank + hdu.header.get("BZERO", 0)] = np.nan
        softening, zero = (hdu.header.get(key) for key in ("BSOFTEN", "BOFFSET"))
        if softening is not None and zero is not None:  # stacks of Pan-STARRS, in asinh magnitudes
            data = float(zero) + 2 * float(softening) * np.sinh(data * (math.log(10) / 2.5))
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

    `Layout` says what the axes mean.  Four colours of an integer type are RGB and alpha.  MATLAB
    writes its axes in reverse, (height, width, 3, n) as (n, 3, width, height).  The attributes
    `scale_factor`, `add_offset`, `_FillValue` and `missing_value` of netCDF are heeded; scaled
    numbers, and those of 16 bits that may be missing, are physical.  Only data that lie in the file
    itself are read.
    """

    def __init__(self, file: IO[bytes], matlab: bool = False):
        self.file = h5py.File(file, "r")
        self.data = self._find()
        data, shape = self.data, self.data.shape
        if data.is_virtual or data.external is not None:
            raise UnusableImageError("HDF5 images that lie in other files")
        plan = data.id.get_create_plist()
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        self.known = all(h5py.h5z.filter_avail(number) for number in filters)
        self.matlab = matlab or "MATLAB_class" in data.attrs
        self.layout = Layout(shape, stack=not self.matlab)
        if not self.layout.count:
            raise UnusableImageError(self.layout.doubt or NO_IMAGE)
        stored = data.id.get_storage_size()
        if self.layout.count > MAX_PICTURES or data.nbytes > 2000 * stored:
            raise UnusableImageError(TOO_LARGE)  # or nothing is there, for all it claims
        chunk = math.prod(data.chunks or (1,)) * data.dtype.itemsize
        if chunk > MAX_BYTES // 4:
            raise UnusableImageError(TOO_LARGE)
        self.factor = self._attribute("scale_factor", 1.0)
        self.offset = self._attribute("add_offset", 0.0)
        self.fills = [
            fill for name in ("_FillValue", "missing_value")
            if (fill := self._attribute(name, np.nan)) == fill
        ]  # fmt: skip
        deep = data.dtype.kind == "u" and data.dtype.itemsize == 2
        self.physical = (self.factor, self.offset) != (1, 0) or (deep and bool(self.fills))
        self.deep = deep and not self.physical
        if len(shape) == 2 and self._is_flattened():
            raise UnusableImageError(FLATTENED)

    def _find(self) -> h5py.Dataset:
        found = {}
        for name in itertools.islice(self.file, 1000):
            if isinstance(self.file.get(name, getlink=True), h5py.HardLink):
                item = self.file[name]
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "uif" and item.ndim > 1:
                    found[name] = item
                elif name == "images" and isinstance(item, h5py.Dataset):
                    raise UnusableImageError(
                        "an HDF5 file whose `images` are no array of real numbers"
                    )
        if "images" in found:
            return found["images"]
        if len(found) != 1:
            raise UnusableImageError("an HDF5 file without a data set `images`")
        return next(iter(found.values()))

    def _attribute(self, name: str, default: float) -> float:
        """Return the number that an attribute of the data set holds."""
        if name not in self.data.attrs:
            return default
        known = self.data.attrs.get_id(name)
        if math.prod(known.shape) != 1 or known.dtype.kind not in "iuf":
            raise UnusableImageError(f"an HDF5 attribute `{name}` that is not one number")
        return float(np.ravel(self.data.attrs[name])[0])

    def _is_flattened(self) -> bool:
        """Tell whether rows are pictures: the pixel one of their sides further on is like this one.

        In a picture the pixel below is more so.
        """
        height, width = self.data.shape
        if (side := _flat_side(width)) is None or height == width:
            return False
        rows = np.asarray(self._part(slice(min(height, 2**22 // width))), np.float64)
        steps = [rows[:, lag:] - rows[:, :-lag] for lag in (side, width // side)]
        down, *along = (np.nanmean(np.abs(step)) for step in (rows[1:] - rows[:-1], *steps))
        return bool(min(along) < 0.8 * down)

    def _part(self, index: Any) -> np.ndarray:
        """Read a part of the data set; a filter that is not known may not have been used."""
        try:
            return self.data[index]
        except OSError as error:
            if self.known:
                raise
            raise UnusableImageError(NOT_UNPACKED) from error

    def __len__(self) -> int:
        return self.layout.count

    def _read(self, k: int) -> np.ndarray:
        check_pixels(self.layout.part)
        data = self._part(self.layout.index(k))
        alpha, light = data.dtype.kind == "u", data.dtype == np.uint8 and not self.physical
        if self.fills and (missing := np.isin(data, self.fills)).any():
            data = np.where(missing, np.nan, data / 255 if light else data)
        if self.physical:
            data = data.astype(np.float64) * self.factor + self.offset
        picture = self.layout.picture(data, alpha=alpha)
        if self.matlab and not self.layout.turned:
            picture = np.ascontiguousarray(picture.T)
        return picture.astype(np.float32) if light else picture

    def close(self) -> None:
        """Close the file as HDF5 sees it."""
        self.file.close()


class Layout:
    """How the pictures lie in an array of a given shape.

    Axes of length 1 are dropped.  Two axes are a picture; of three, a first or else a last axis of
    3 or 4 is colours or bands, which are averaged, but for those without data; a last axis of
    another length below FEW, after longer ones, counts bands, each a picture; and any other first
    axis counts pictures.  Of four, the first counts pictures and three are as above; or else the
    last counts pictures, and colours are the third, (height, width, 3, n), or the first, as in an
    array (n, height, width, 3) that MATLAB wrote in reverse.

    count: of pictures, 0 if the array holds none.  doubt: the reason, where its axes may mean
    several things.  stack: a single further axis counts pictures where it comes first, even if
    there are 3 or 4 of them.  part: the shape of one picture with its colours.
    """

    def __init__(self, shape: tuple[int, ...], stack: bool = False):
        axes = [k for k, n in enumerate(shape) if n > 1]
        sides = [shape[k] for k in axes]
        self.dimensions, self.counted, self.colours = len(shape), axes[:-2], None
        self.turned = False
        few = [n in (3, 4) for n in sides]
        stack = stack and len(sides) == 3 and axes[0] == 0
        if len(sides) > 2 and not stack and few[-3]:
            self.counted, self.colours = axes[:-3], 0
        elif len(sides) > 2 and few[-1]:
            self.counted, self.colours = axes[:-3], 2
        elif len(sides) == 4 and few[2]:
            self.counted, self.colours = axes[3:], 2
        elif len(sides) > 2 and sides[-1] < FEW <= min(sides[-3:-1]):
            self.counted = [*axes[:-3], axes[-1]]
        elif len(sides) == 4 and few[0] and sides[1] == sides[2] != sides[3]:
            self.counted, self.colours, self.turned = axes[3:], 0, True
        self.sizes = [shape[k] for k in self.counted]
        self.part = tuple(shape[k] for k in axes if k not in self.counted)
        usable = len(axes) >= 2 and len(self.counted) <= 2 and 0 not in shape
        self.doubt = self._doubt(axes) if usable else None
        self.count = math.prod(self.sizes) if usable and self.doubt is None else 0

    def _doubt(self, axes: list[int]) -> str | None:
        """Say why the axes may mean something else; None if they cannot."""
        picture = [n for k, n in enumerate(self.part) if k != self.colours]
        least, most = sorted(picture)
        if not self.counted and self.colours is None:
            flat = most > 4 * least and _flat_side(picture[1]) is not None
            return FLATTENED if flat else None
        if least == most:
            return None
        # As many of so narrow a picture, or as its other side is long?  Then that is the picture.
        several = self.counted == axes[:2] and self.sizes[0] in (3, 4, self.sizes[1])
        first = self.counted == axes[:1] and self.colours is None and self.sizes[0] == picture[0]
        return OTHER_AXES if least < NARROW or several or first else None

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
        if self.turned:
            part = part.swapaxes(0, 1)
        return intensities(part, 3 if alpha else part.shape[-1])


def intensities(values: np.ndarray, colours: int | None = None) -> np.ndarray:
    """One picture as the type that says what its numbers mean (see the top of this module).

    colours: average over so many, the first along the last axis; None if there is no such axis.
        Bands of one value or NaN are left out.

    In physical units, pixels that hold no data, of a band or of the picture, become NaN; in light,
    where a band ends within the picture, 0, which at the border is no data.
    """
    kind = values.dtype
    if kind.kind not in "buif":
        raise UnusableImageError(NO_IMAGE)
    if colours is not None:
        if kind == np.uint8 and colours == 3:
            return rgb_to_intensity(values)
        values = _with_data(values[..., :colours])
    if kind.kind in "if" or kind.itemsize > 2:
        values = values.astype(np.float64)
        if colours is None:
            values[bad_pixels(values)] = np.nan
        for band in np.moveaxis(values, -1, 0) if colours is not None else ():
            if (gaps := no_data(band)) is not None:  # which the mean would hide
                band[gaps.anywhere] = np.nan
    if colours is not None:
        # Light has no number for "nothing", but a constant region at the border is none.
        ended = partly_blank(values) if kind.kind == "u" and kind.itemsize <= 2 else None
        values = values.mean(axis=-1, dtype=np.float64)
        if ended is not None:
            values[ended] = 0
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
    if not image.dtype.isnative:  # the order of bytes says nothing of what the numbers mean
        image = image.astype(image.dtype.newbyteorder("="))
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


def _decompressed(file: IO[bytes], head: bytes) -> tuple[IO[bytes], bytes]:
    """The FITS file in a gzip or bzip2 file, in memory, and how it begins."""
    stream = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else bz2.BZ2File(file)
    head = stream.read(HEAD)
    if not head.startswith(FITS):
        raise UnusableImageError(other_format(head) or NO_IMAGE)
    stream.seek(0)
    return read_bounded(stream), head


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


def _flat_side(count: int) -> int | None:
    """Return the side of square pictures, grey or of three colours, of so many numbers each."""
    for colours in (1, 3):
        side = math.isqrt(count // colours)
        if side >= NARROW and colours * side**2 == count:
            return side
    return None


def _holds_stamps(dimensions: object) -> bool:
    """Tell whether the cells of a table's column, by its TDIM, are pictures."""
    sides = [int(n) for n in re.findall(r"\d+", str(dimensions))]
    return len(sides) >= 2 and min(sides[:2]) >= NARROW


def is_science(word: str) -> bool:
    """Tell whether a word in a name says that it names a science image."""
    return SCIENCE.fullmatch(word.upper()) is not None


def is_no_science(word: str) -> bool:
    """Tell whether a word in a name says that it names errors, weights, a mask or the like."""
    return NOT_SCIENCE.fullmatch(word.upper()) is not None


def _says(words: re.Pattern[str], name: str) -> bool:
    """Tell whether one of the words that make up an EXTNAME is among `words`."""
    return any(words.fullmatch(part) for part in re.split(r"[^A-Z0-9]+", name.upper()))
