"""TIFF files, decoded by tifffile, or by Pillow where tifffile would need another package."""

from __future__ import annotations

import itertools
import logging
import math
from typing import IO

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from layerkit.galaxy.images.decode.bounds import (
    MAX_DIRECTORIES,
    MAX_PICTURES,
    NO_IMAGE,
    TOO_LARGE,
    UNREADABLE,
    UnusableImageError,
    check_inflated,
    check_pixels,
)
from layerkit.galaxy.images.decode.formats.pictures import Pictures
from layerkit.galaxy.images.decode.formats.plain import ORIENTATION, pillow_intensities
from layerkit.galaxy.images.decode.pixels import intensities, upright

READABLE = (1, 8, 32946)  # compressions that tifffile decodes by itself: none, deflate
NOT_DECODED = "an unsupported TIFF compression; save it uncompressed"

# tifffile logs faults of files, which a program without logging set up would print.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffPictures(Pictures):
    """The pages of a TIFF or BigTIFF file that are pictures.

    The tags of a page say what its axes are.  Up to 4 samples per pixel are colours or bands, which
    are averaged, the alpha channel left out; 5 or more samples are a picture each.
    """

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.tiff = tifffile.TiffFile(file, is_ome=False)
        self.layers: list[tuple[int, int]] = []  # page, and plane of the page, of each picture
        seen: set[int] = set()
        for number in itertools.count():
            try:
                page = self._page(number)
            except IndexError:
                break
            if not page.subfiletype & 5:  # neither a thumbnail nor a mask
                self.layers += [(number, k) for k in range(_tiff_planes(page))]
                self.deep |= page.dtype == np.uint16 and page.bitspersample == 16
            if number > MAX_DIRECTORIES or len(self.layers) > MAX_PICTURES:
                raise UnusableImageError(TOO_LARGE)
            if page.offset in seen:  # the chain of pages is a loop
                raise UnusableImageError(UNREADABLE)
            seen.add(page.offset)
        if not self.layers:
            raise UnusableImageError(NO_IMAGE)
        if (self.tiff.is_shaped or self.tiff.is_imagej) and self.tiff.series[0].is_truncated:
            # All pictures but the first would be lost.
            raise UnusableImageError(
                "a TIFF stack that lists its first page only; save it with a directory per page"
            )

    def __len__(self) -> int:
        return len(self.layers)

    def _page(self, number: int) -> tifffile.TiffPage:
        page = self.tiff.pages[number]
        return page if isinstance(page, tifffile.TiffPage) else page.aspage()

    def _read(self, k: int) -> np.ndarray:
        number, plane = self.layers[k]
        page = self._page(number)
        check_pixels(page.shape)
        eight_bit = page.dtype == np.uint8 and page.samplesperpixel <= 4 and "Z" not in page.axes
        own = page.compression in READABLE and page.predictor in (1, 2)  # none, horizontal
        if eight_bit or page.bitspersample not in (8, 16, 32, 64) or not own:
            return self._by_pillow(number, page)
        return upright(self._values(page, plane), page.tags.valueof(ORIENTATION, 1))

    def _values(self, page: tifffile.TiffPage, plane: int) -> np.ndarray:
        if page.photometric not in (0, 1, 2):
            raise UnusableImageError("an unsupported TIFF colour space; use grey or RGB")
        if page.compression != 1:
            _check_strips(page)
        values = page.asarray()
        if page.photometric == 0 and values.dtype.kind == "u":  # zero is white
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
        """Read a page with Pillow, which applies its Orientation tag."""
        self.file.seek(0)
        try:
            picture = Image.open(self.file, formats=["TIFF"])
            picture.seek(number)
        except UnidentifiedImageError as error:  # tifffile has seen that it is a TIFF
            raise UnusableImageError(NOT_DECODED) from error
        with picture:
            check_pixels(picture.size)
            bits = page.bitspersample
            if picture.mode == "F" or picture.mode == "I":
                values = np.asarray(picture)
                if page.dtype == np.uint32:  # which Pillow takes for signed
                    values = values.view(np.uint32)
                return values.astype(np.float64)
            if picture.mode.startswith("I;16"):
                values = np.asarray(picture).astype(np.uint16)
                if page.photometric == 0:  # zero is white, which Pillow inverts in 8 bits only
                    values = np.uint16(2**bits - 1) - values
                return values if bits == 16 else values * np.float32(1 / (2**bits - 1))
            if page.dtype != np.uint8 and page.bitspersample != 1:
                raise UnusableImageError(NOT_DECODED)
            return pillow_intensities(picture)


def _tiff_planes(page: tifffile.TiffPage) -> int:
    """Count the pictures on a page."""
    if "Z" in page.axes:
        return int(page.shape[page.axes.index("Z")])
    return page.samplesperpixel if page.samplesperpixel > 4 else 1


def _check_strips(page: tifffile.TiffPage) -> None:
    """Refuse strips or tiles that inflate to more than their share of the page."""
    assert page.dtype is not None
    limit = math.prod(page.chunks) * page.dtype.itemsize + 2**16
    if len(page.dataoffsets) * (limit - 2**16) > 2 * page.nbytes + 2**20:
        raise UnusableImageError(TOO_LARGE)
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        check_inflated(file.read(min(count, 2 * limit)), limit)
