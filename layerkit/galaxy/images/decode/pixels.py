"""Numbers of pixels: what they mean, and means over colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.galaxy.images.decode.blank import bad_pixels, no_data, partly_blank
from layerkit.galaxy.images.decode.bounds import NO_IMAGE, UnusableImageError


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


def upright(values: np.ndarray, orientation: Any) -> np.ndarray:
    """Turn a picture (height, width) as its Orientation tag, from 1 to 8, says it is to be seen."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
