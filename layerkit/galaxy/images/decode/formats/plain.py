"""JPEG, PNG, BMP, GIF and WebP files, decoded by Pillow."""

from __future__ import annotations

import math
import zlib
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from layerkit.galaxy.images.decode.bounds import (
    MAX_PIXELS,
    TOO_LARGE,
    UNREADABLE,
    UnusableImageError,
    check_pixels,
)
from layerkit.galaxy.images.decode.formats.pictures import Pictures
from layerkit.galaxy.images.decode.pixels import intensities, rgb_to_intensity, upright

ORIENTATION = 274  # number of this tag in TIFF and Exif
LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # Pillow's names of sample layouts
MAX_WORK = 16 * MAX_PIXELS  # pixels times scans, in a progressive JPEG
SIGNATURE = 8  # bytes, at the start of a PNG


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
            elif self.kind == "PNG":
                _check_chunks(self.file)
            values = self._deep(picture) if self.deep else pillow_intensities(picture)
            return upright(values, _orientation(picture))

    def _open(self) -> ImageFile.ImageFile:
        self.file.seek(0)
        return Image.open(self.file, formats=[self.kind])

    def _deep(self, picture: ImageFile.ImageFile) -> np.ndarray:
        """Return the pixels of a 16-bit PNG; Pillow drops the lower bytes of its colours."""
        if picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint16)
        layout = picture.tile[0][3]
        if layout not in LOWER_BYTES:
            raise UnusableImageError("a 16-bit grey PNG with alpha; drop the alpha channel")
        upper = np.asarray(picture)
        with self._open() as again:
            again.tile = [tile._replace(args=LOWER_BYTES[layout]) for tile in again.tile]
            lower = np.asarray(again)
        return intensities(upper * np.uint16(256) + lower, colours=3)


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the picture
        return 1


def pillow_intensities(picture: Image.Image) -> np.ndarray:
    """Return a picture of up to 8 bits as float32 in 0..1, averaged over its colours."""
    if picture.mode in ("L", "LA", "1"):
        return np.asarray(picture.convert("L")) * np.float32(1 / 255)
    return rgb_to_intensity(
        np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    )


def _check_scans(file: IO[bytes], size: tuple[int, int]) -> None:
    """Refuse a progressive JPEG with so many scans that it would take minutes to decode."""
    file.seek(0)
    if file.read().count(b"\xff\xda") * math.prod(size) > MAX_WORK:
        raise UnusableImageError(TOO_LARGE)


def _check_chunks(file: IO[bytes]) -> None:
    """Refuse a PNG with pixels or colours that do not have their CRC-32, which Pillow ignores.

    Other chunks are metadata.  Chunks that are cut off are left to Pillow.
    """
    file.seek(SIGNATURE)
    while len(head := file.read(8)) == 8 and (kind := head[4:]) != b"IEND":
        size = int.from_bytes(head[:4], "big")
        rest = file.read(size + 4)
        damaged = zlib.crc32(rest[:-4], zlib.crc32(kind)) != int.from_bytes(rest[-4:], "big")
        if damaged and len(rest) == size + 4 and kind[:1].isupper():
            raise UnusableImageError(UNREADABLE)
