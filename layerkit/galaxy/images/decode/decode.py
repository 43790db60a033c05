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
from typing import IO

from layerkit.galaxy.images.decode.bounds import (
    NO_IMAGE,
    UnusableImageError,
    only_unusable,
    read_bounded,
)
from layerkit.galaxy.images.decode.formats.fits import FitsPictures
from layerkit.galaxy.images.decode.formats.hdf5 import Hdf5Pictures
from layerkit.galaxy.images.decode.formats.pictures import Pictures
from layerkit.galaxy.images.decode.formats.plain import PlainPicture
from layerkit.galaxy.images.decode.formats.tiff import TiffPictures
from layerkit.galaxy.images.decode.signatures import (
    BZIP2,
    FITS,
    GZIP,
    HDF5,
    HEAD,
    MATLAB,
    TIFF,
    is_deep_png,
    other_format,
    plain_kind,
)


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


def _decompressed(file: IO[bytes], head: bytes) -> tuple[IO[bytes], bytes]:
    """The FITS file in a gzip or bzip2 file, in memory, and how it begins."""
    stream = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else bz2.BZ2File(file)
    head = stream.read(HEAD)
    if not head.startswith(FITS):
        raise UnusableImageError(other_format(head) or NO_IMAGE)
    stream.seek(0)
    return read_bounded(stream), head
