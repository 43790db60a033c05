"""FITS files, read by Astropy."""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from layerkit.galaxy.images.decode.axes import MIN_SIDE, Layout
from layerkit.galaxy.images.decode.bounds import (
    MAX_BYTES,
    MAX_DIRECTORIES,
    MAX_PICTURES,
    NO_IMAGE,
    TOO_LARGE,
    UNREADABLE,
    UnusableImageError,
    check_inflated,
    check_pixels,
)
from layerkit.galaxy.images.decode.formats import planes
from layerkit.galaxy.images.decode.formats.pictures import Pictures
from layerkit.galaxy.images.decode.formats.planes import Planes, value_of
from layerkit.galaxy.images.decode.scales import scales_at
from layerkit.galaxy.images.decode.science import (
    BESIDE_SCIENCE,
    COMPOUND,
    KEYWORDS,
    NOT_SCIENCE,
    SCIENCE,
    SUBTRACTED,
    says,
    words_of,
)

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

# Axes whose planes show one object, by the first letters of CTYPE (Greisen et al. 2006, A&A 446,
# 747, table 1, and Rots et al. 2015, A&A 574, A36); AIPS and others write FELO and LAMBDA.
OF_ONE = ("FREQ", "ENER", "WAVN", "VRAD", "WAVE", "VOPT", "ZOPT", "AWAV", "VELO", "BETA", "FELO",
          "LAMB", "TIME", "UTC", "TAI", "TDB")  # fmt: skip
CUBE = "a cube of wavelengths or times, which show one object; save their sum as an image"
ONES = 2**32 - 1  # to which carrying at the end is a remainder
DAMAGED = (
    "damaged: its data do not have the checksum DATASUM in its header; fetch it again, or remove "
    "the keyword if they were changed on purpose"
)
BAND = re.compile(r"(.*)\[(\d{1,9})\]")
ONLY_OTHERS = "only weights, masks, models or the like; choose an image with hdu"
NO_INTENSITY = "Stokes parameters without the total intensity, I; save I as an image"


class FitsPictures(Pictures):
    """The science images of a FITS file.

    These are the images whose EXTNAME is SCI, SCIENCE or IMAGE; if there are none, all images
    except those named as errors, weights, variances, masks, flags, exposures, sky, models,
    residuals or PSFs.  Signal-to-noise ratios, limiting magnitudes, offsets and apertures are left
    out beside other images.  EXTTYPE of the Vera Rubin Observatory's pipelines, and others of
    KEYWORDS, tell as EXTNAME does.  GALFIT's model and residuals, which have no EXTNAME, are known
    by its keywords.  `Layout` interprets the axes, except that of the Stokes parameters, on which
    the total intensity is taken, and those of wavelengths and times, whose planes are no pictures
    of several galaxies.  Data that do not have the checksum DATASUM are refused.

    Args:
        file: the open file.
        hdu: number or EXTNAME of the extension to read instead; followed by "[N]", or "[N]" alone,
            it chooses the band N of a cube, counted from 0, rather than the mean of 3 or 4 bands.
        whole: True takes every image for one picture, whatever its name and axes; see `values`.

    Attributes:
        band: the one that is chosen of a cube, or None.
        named: whether the extension is chosen.
        images: the extension, the layout and the number in it of each picture.
        words: EXTNAME of each extension that may hold pictures, and KEYWORDS, by its number.
    """

    row_order = "bottom"

    def __init__(self, file: IO[bytes], hdu: int | str | None, whole: bool = False):
        from astropy.io import fits  # slow to import, and not needed for most sources

        hdu, self.band = _chosen(hdu)
        self.named = hdu is not None
        file.seek(0, io.SEEK_END)
        size = file.tell()
        file.seek(0)
        self.file = file
        self.hdus = fits.open(file, memmap=False, lazy_load_hdus=True, ignore_blank=True)
        self.unchecked: set[int] = set()  # images of which nothing has been read yet
        self.words: dict[int, str] = {}
        self.intensity: dict[int, tuple[int, int]] = {}  # axis and index of Stokes I, by HDU
        layouts: dict[int, Layout] = {}
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
            shape = list(one.shape)
            if (axis := _stokes_axis(one.header)) is not None:
                if (index := _intensity(one.header, axis)) is None:
                    reason = NO_INTENSITY
                    continue
                self.intensity[number] = len(shape) - axis, index
                shape[len(shape) - axis] = 1
            if not whole and self.band is None and _is_cube(one.header):
                reason = CUBE
                continue
            layout = Layout(tuple(shape))
            reason = layout.doubt or reason
            bands = layout.count if layout.bands is None else one.shape[layout.bands]
            if self.band is not None and layout.count and self.band >= bands:
                reason = f"no band {self.band}; there are {bands}, counted from 0"
                continue
            if whole or layout.count:
                place = one.fileinfo()
                packed = isinstance(one, fits.CompImageHDU)
                self.unchecked.add(number)
                if place["datLoc"] + (place["datSpan"] - 2880 if packed else one.size) > size:
                    raise UnusableImageError(UNREADABLE)  # truncated
                keys = (*KEYWORDS, *["OBJECT"] * galfit)
                words = " ".join([one.name, *(str(value_of(one.header, key, "")) for key in keys)])
                self.words[number], layouts[number] = words.strip(), layout
        numbers = list(layouts)
        if hdu is None and not whole:
            numbers = science_images(self.words)
            if layouts and not numbers and reason not in (CUBE, NO_INTENSITY):
                reason = ONLY_OTHERS
        elif not numbers and reason == NO_IMAGE:
            raise UnusableImageError(NO_IMAGE if hdu is None else f"no image in HDU {hdu}")
        counts = {n: 1 if whole else layouts[n].count for n in numbers}
        if sum(counts.values()) > MAX_PICTURES:
            raise UnusableImageError(TOO_LARGE)
        self.images = [
            (n, layouts[n], k)
            for n, count in counts.items()
            for k in range(count)
            if whole or self.band in (None, k) or layouts[n].bands is not None
        ]
        if not self.images:
            raise UnusableImageError(reason)

    def __len__(self) -> int:
        return len(self.images)

    def _read(self, k: int) -> np.ndarray:
        number, layout, _ = self.images[k]
        check_pixels(layout.part)
        part = self._numbers(number, self._part(k))
        return layout.picture(part) if self.band is None else layout.one_band(part)

    def field(self) -> tuple[int, int]:
        """Return the height and width of the only image in the file, of one band.

        Raises:
            UnusableImageError: several images, or one in colours.
        """
        if len(self.images) > 1:
            raise UnusableImageError(
                f"{len(self.images)} images, and positions are those in one; choose it with hdu"
            )
        layout = self.images[0][1]
        if layout.colours is not None and self.band is None:
            raise UnusableImageError("an image of several bands; choose one")
        height, width = layout.sides
        return height, width

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of the only image in the file; see `field`."""
        found = self._numbers(self.images[0][0], self._part(0, (rows, columns)))
        return found.reshape(rows.stop - rows.start, columns.stop - columns.start)

    def values(self, number: int) -> np.ndarray:
        """Read all of an image extension, float64; of Stokes parameters the total intensity."""
        return self._numbers(number, [slice(None)] * len(self.hdus[number].shape))

    def _part(self, k: int, window: tuple[slice, slice] | None = None) -> list[Any]:
        """Return the index of picture `k` in its HDU, or of a part of it."""
        number, layout, k = self.images[k]
        index = list(layout.index(k, self.band))
        if window is not None:
            shape = self.hdus[number].shape
            whole = [a for a, n in enumerate(shape) if n > 1 and index[a] == slice(None)]
            index[whole[0]], index[whole[1]] = window
        return index

    def planes(self, k: int, window: tuple[slice, slice] | None = None) -> Planes:
        """Read what the file says of the pixels of picture `k`, or of a part of it."""
        number, layout, _ = self.images[k]
        headers = self.hdus[number].header, self.hdus[0].header
        about = Planes(gain=planes.gain(headers), zero_point=planes.zero_point(headers))
        if layout.colours is not None and self.band is None:  # a mean of several
            return about
        shape = layout.sides if window is None else [part.stop - part.start for part in window]
        variance = missing = None
        one = None if self.band is None else layout.sides
        for kind, other in planes.beside(self.hdus, number, one):
            index, axes = self._part(k, window), self.hdus[number].shape
            if self.hdus[other].shape != axes:
                kept = [at for at, n in zip(index, axes, strict=True) if n > 1]
                if sum(n > 1 for n in self.hdus[other].shape) < len(kept):  # for every band
                    kept = list(window or [slice(None)] * 2)
                ends = iter(kept)
                index = [next(ends) if n > 1 else slice(None) for n in self.hdus[other].shape]
            elif number in self.intensity:  # which was looked for in the chosen extension alone
                self.intensity.setdefault(other, self.intensity[number])
            values = self._numbers(other, index).reshape(shape)
            if kind == "mask":
                bad = planes.unusable(values, (self.hdus[other].header, headers[1]))
                missing = bad if missing is None else missing | bad
            elif variance is None:
                variance = planes.as_variance(values, kind)
        return replace(about, variance=variance, missing=missing)

    def wcs(self, k: int) -> WCS | None:
        """Return the celestial part of the WCS of picture `k`, or None without a valid one."""
        from astropy.wcs import WCS

        header = self.hdus[self.images[k][0]].header
        if not any(str(value_of(header, f"CTYPE{a}", "")).strip() for a in (1, 2, 3, 4)):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about dates and keywords of other programs
                # Hubble's distortions are tables in extensions of the file.
                found = WCS(header, fobj=self.hdus).celestial
        except Exception:  # of any kind, from a header that contradicts itself
            return None
        return found if found.has_celestial else None

    def pixel_scale(self, k: int) -> float:
        """Return the arcseconds per pixel in the middle of picture `k`; see `scales_at`."""
        if (wcs := self.wcs(k)) is None:
            return math.nan
        height, width = self.images[k][1].sides
        return float(scales_at(wcs, np.array([(width - 1) / 2]), np.array([(height - 1) / 2]))[0])

    def _numbers(self, number: int, index: list[Any]) -> np.ndarray:
        """Read a part of an HDU, as float64."""
        from astropy.io import fits

        hdu = self.hdus[number]
        if number in self.unchecked:
            if isinstance(hdu, fits.CompImageHDU):
                self._check_tiles(number)
            else:
                self._check_sum(hdu.header, hdu.fileinfo()["datLoc"], hdu.size)
            self.unchecked.remove(number)
        if number in self.intensity:
            axis, at = self.intensity[number]
            index[axis] = slice(at, at + 1)
        numbers = np.asarray(hdu.section[tuple(index)])
        data = numbers.astype(np.float64)
        blank = value_of(hdu.header, "BLANK")
        if isinstance(blank, int) and hdu.header["BITPIX"] > 0:
            # Astropy would not apply BLANK where it is 0, nor to unsigned integers, and fails for
            # signed bytes.  Scaled as it scales, in the dtype of the pixels.
            step, zero = (value_of(hdu.header, *pair) for pair in (("BSCALE", 1), ("BZERO", 0)))
            marked = np.array(blank, np.result_type(numbers.dtype, np.int64))
            if numbers.dtype.kind == "f":
                marked = np.array(blank, numbers.dtype) * numbers.dtype.type(step)
            data[numbers == marked + zero] = np.nan
        softening, zero = (value_of(hdu.header, key) for key in ("BSOFTEN", "BOFFSET"))
        if isinstance(softening, int | float) and isinstance(
            zero, int | float
        ):  # Pan-STARRS stacks, in asinh magnitudes
            data = float(zero) + 2 * float(softening) * np.sinh(data * (math.log(10) / 2.5))
        return data

    def _check_tiles(self, number: int) -> None:
        """Refuse a compressed image with tiles that inflate to more than their size."""
        from astropy.io import fits

        hdu = self.hdus[number]
        limit = 8 * min(math.prod(hdu.tile_shape), math.prod(hdu.shape)) + 2**16
        self.file.seek(0)
        table = fits.open(self.file, memmap=False, disable_image_compression=True)[number]
        columns, header, start = table.columns, table.header, table.fileinfo()["datLoc"]
        names = {"GZIP_COMPRESSED_DATA"}
        if hdu.compression_type.startswith("GZIP"):
            names.add("COMPRESSED_DATA")
        # Astropy would refuse a table whose last block of 2,880 bytes is not filled.
        size = header["NAXIS1"] * header["NAXIS2"]
        self.file.seek(start)
        rows = np.frombuffer(self.file.read(size), columns.dtype.newbyteorder(">"))
        heap = start + header.get("THEAP", size)
        for name in names.intersection(columns.names):
            for count, offset in rows[name].tolist():
                self.file.seek(heap + offset)
                check_inflated(self.file.read(min(count, 2 * limit)), limit, gzipped=True)
        self._check_sum(header, start, size + header.get("PCOUNT", 0))

    def _check_sum(self, header: Header, start: int, size: int) -> None:
        """Compare data with the checksum in their header, if there is one and they are not huge."""
        told = str(value_of(header, "DATASUM", "")).strip()
        if told.isdecimal() and size <= MAX_BYTES:
            self.file.seek(start)
            if (datasum(self.file.read(size)) - int(told)) % ONES:
                raise UnusableImageError(DAMAGED)

    def close(self) -> None:
        """Close what Astropy opened."""
        self.hdus.close()


def _chosen(hdu: int | str | None) -> tuple[int | str | None, int | None]:
    """Split what chooses an extension, and perhaps a band in it, as "SCI[1]" does."""
    if not isinstance(hdu, str) or (found := BAND.fullmatch(hdu.strip())) is None:
        return hdu, None
    name = found[1].strip()
    return (int(name) if name.isdecimal() else name or None), int(found[2])


def science_images(words: dict[int, str]) -> list[int]:
    """Return the numbers of the science images among extensions; see `FitsPictures`.

    Args:
        words: what EXTNAME and other keywords of each extension say.
    """
    found = [n for n, said in words.items() if not says(said, NOT_SCIENCE, COMPOUND)]
    found = [n for n in found if not says(words[n], BESIDE_SCIENCE)] or found
    split = {n: words_of(words[n]) for n in found}
    whole = {n: [w for w in its if not SUBTRACTED.fullmatch(w)] for n, its in split.items()}
    found = [n for n in found if whole[n] == split[n] or whole[n] not in split.values()]
    return [n for n in found if says(words[n], SCIENCE)] or found


def datasum(data: bytes) -> int:
    """Compute the checksum of an extension's data: words of 32 bits, added with carry at the end.

    Source: Pence et al. (2010), "Definition of the FITS standard" 3.0, appendix J.
    """
    words = np.frombuffer(data.ljust(-(-len(data) // 4) * 4, b"\0"), ">u4")
    total = sum(int(words[k : k + 2**20].sum(dtype=np.uint64)) for k in range(0, len(words), 2**20))
    return total % ONES


def _is_cube(header: Header) -> bool:
    """Tell whether an image has a plane for each of several wavelengths or times.

    Three or four bands are colours.
    """
    axes = range(3, int(header["NAXIS"]) + 1)
    return any(
        str(value_of(header, f"CTYPE{axis}", "")).strip().upper().startswith(OF_ONE)
        and header[f"NAXIS{axis}"] not in (1, 3, 4)
        for axis in axes
    )


def _stokes_axis(header: Header) -> int | None:
    """Return the number of the axis of Stokes parameters, counted from 1 as in FITS, or None."""
    for axis in range(1, int(header["NAXIS"]) + 1):
        if str(value_of(header, f"CTYPE{axis}", "")).strip().upper() == "STOKES":
            return axis
    return None


def _intensity(header: Header, axis: int) -> int | None:
    """Return the index of I on the axis of Stokes parameters, or None if it is not there.

    The parameters are numbered (Greisen and Calabretta 2002, A&A 395, 1061, table 7): I is 1, Q, U
    and V are 2 to 4, and the correlations of single polarisations are negative.
    """
    start, step, at = (header.get(f"{key}{axis}", 1) for key in ("CRVAL", "CDELT", "CRPIX"))
    index = round(at - 1 + (1 - start) / step) if step else 0
    there = 0 <= index < header[f"NAXIS{axis}"]
    return index if there and abs(start + (index + 1 - at) * step - 1) < 0.01 else None


def _holds_stamps(dimensions: object) -> bool:
    """Tell whether the cells of a table column are pictures, by the column's TDIM."""
    sides = [int(n) for n in re.findall(r"\d+", str(dimensions))]
    return len(sides) >= 2 and min(sides[:2]) >= MIN_SIDE
