"""Decoding of picture files: every supported format, with limits on what a file may demand.

The format is recognised by content, never by file name.  A file holds one picture or several:

    JPEG, PNG, BMP, GIF, WebP   one (animations are refused)
    TIFF                        one per page; thumbnails and masks among the pages are skipped
    FITS (also gzip, bzip2)     the science images, see `FitsPictures`
    HDF5, MATLAB 7.3            those of the data set `images`, see `Hdf5Pictures`

A picture is rotated and mirrored as its Orientation tag asks: cameras write this tag, and so do
programs that rotate without loss.  Pixels keep the values in the file.  The dtype says what the
values mean:

    float32   linear light in 0..1: 8-bit formats, v / 255, averaged over the colours
    uint16    linear light on an unknown scale: 16-bit formats, which may hold 10, 12 or 14 bits
    float64   physical units (counts, fluxes) of any magnitude and sign: FITS, and any float format

Files may be damaged or hostile.  Decoding one raises nothing but `UnusableImageError`, whose text
is the reason reported to the user, and needs memory for no more than MAX_PIXELS pixels.
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
from layerkit.galaxy.images.decode.formats.signatures import (
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
from layerkit.galaxy.images.decode.formats.tiff import TiffPictures


def open_pictures(file: IO[bytes], hdu: int | str | None = None, whole: bool = False) -> Pictures:
    """Find the pictures in a file.

    Only headers are read, except that a gzip or bzip2 file is decompressed.

    Args:
        file: opened for reading, at its start.
        hdu: the FITS extension to read, by number or EXTNAME; by default all science images.
        whole: see `FitsPictures`.

    Raises:
        UnusableImageError: the file holds no picture; the text is the reason.
    """
    with only_unusable():
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith((GZIP, BZIP2)):
            file, head = _decompressed(file, head)
        if head.startswith(FITS):
            return FitsPictures(file, hdu, whole)
        if head.startswith(TIFF):
            return TiffPictures(file)
        if head.startswith((HDF5, MATLAB)):
            return Hdf5Pictures(file, matlab=head.startswith(MATLAB))
        if (kind := plain_kind(head)) is not None:
            return PlainPicture(file, kind, is_deep_png(head))
    raise UnusableImageError(other_format(head) or NO_IMAGE)


def _decompressed(file: IO[bytes], head: bytes) -> tuple[IO[bytes], bytes]:
    """Decompress the FITS file in a gzip or bzip2 file into memory; also return its head."""
    stream = gzip.GzipFile(fileobj=file) if head.startswith(GZIP) else bz2.BZ2File(file)
    head = stream.read(HEAD)
    if not head.startswith(FITS):
        raise UnusableImageError(other_format(head) or NO_IMAGE)
    stream.seek(0)
    return read_bounded(stream), head
