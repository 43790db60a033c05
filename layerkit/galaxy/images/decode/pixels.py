"""Pixel values: the dtype that says what they mean, and averages over colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.data.arrays import mask_of
from layerkit.galaxy.images.decode.blank import bad_pixels, no_data, partly_blank
from layerkit.galaxy.images.decode.bounds import NO_IMAGE, UnusableImageError

LIGHT = (-0.25, 1.25)  # of float32 pictures: linear light in 0..1, and what noise may do to it
NO_LIGHT = "float32 with numbers far from 0..1; give counts and fluxes as float64"


def intensities(values: np.ndarray, colours: int | None = None) -> np.ndarray:
    """Return a picture in the dtype that says what its values mean (see `decode`).

    Pixels without data become NaN in physical units.  Light has no such value: it becomes 0 outside
    a band that ends within the picture, which counts as no data at the border.

    Args:
        values: (height, width), or (height, width, n) with colours or bands.
        colours: how many of the n to average, the first ones; None if there is no such axis.
            Bands that are constant or NaN are left out.

    Returns:
        float32, uint16 or float64 (height, width).

    Raises:
        UnusableImageError: the values are not real numbers.
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
            if (gaps := no_data(band)) is not None:  # the mean would hide them
                band[gaps.anywhere] = np.nan
    if colours is not None:
        # Light has no NaN, but a constant region at the border counts as no data.
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
    """Average the colours of an 8-bit picture.

    Constant colours hold no data and are left out.  Outside a colour that ends within the picture
    the result is 0, like a blank border.

    Args:
        rgb: uint8 (height, width, 3).

    Returns:
        float32 (height, width) in 0..1.
    """
    # Testing every pixel would take as long as adding them up, so test a sample first.
    sample = _with_data(rgb[::16, ::16])
    if sample.shape[-1] < 3 and (some := _with_data(rgb)).shape[-1] < 3:
        return some.mean(axis=-1, dtype=np.float32) * np.float32(1 / 255)
    # Integer sums are exact, and four times as fast as a mean over the last axis.
    total = np.add(rgb[..., 0], rgb[..., 1], dtype=np.uint16)
    total += rgb[..., 2]
    if (gaps := partly_blank(rgb)) is not None:
        total[gaps] = 0
    return total * np.float32(1 / 765)


def _with_data(bands: np.ndarray) -> np.ndarray:
    """Select the bands of (height, width, n) that are not constant; all bands if every one is.

    Surveys fill a band that they did not observe with zeros or NaN, and an unused alpha channel is
    constant too.
    """
    flat = np.ascontiguousarray(bands.reshape(-1, bands.shape[-1]).T)  # fast to reduce
    some = (np.fmin.reduce(flat, axis=1) < np.fmax.reduce(flat, axis=1)).nonzero()[0]
    return bands if len(some) in (0, bands.shape[-1]) else bands[..., some]


def as_picture(image: Any) -> np.ndarray:
    """Return any array as a picture in the dtype that says what its values mean (see `decode`).

    Masked pixels become NaN, so that a masked uint16 picture is one in physical units.

    Args:
        image: an array, nested lists, or an object with data and a mask, such as `CCDData`.

    Raises:
        UnusableImageError: the array is not two-dimensional, or not of real numbers; or it is of
            float32 and holds numbers too far from 0..1 to be light.
    """
    mask = mask_of(image)
    if not hasattr(image, "__array__") and isinstance(
        data := getattr(image, "data", None), np.ndarray
    ):
        image = data  # Astropy's NDData
    image = np.asarray(image)
    if image.ndim != 2:
        raise UnusableImageError("not two-dimensional")
    if image.size == 0:
        raise UnusableImageError("blank")
    if not image.dtype.isnative:  # byte order says nothing about what the values mean
        image = image.astype(image.dtype.newbyteorder("="))
    if mask is not None and mask.any():
        image = _without_masked(image, mask)
    if image.dtype != np.float32:
        return intensities(image)
    check_light(image)
    return image


def check_light(image: np.ndarray) -> None:
    """Refuse a float32 picture with numbers too far from 0..1 to be light.

    Resampling and noise may bring light a little out of 0..1.  Counts or fluxes would be cut off
    at 1; whether they are linear light is not for their size to decide, which differs from picture
    to picture.

    Raises:
        UnusableImageError: there are such numbers.
    """
    if image.dtype == np.float32 and image.size:
        low, high = LIGHT
        if image.min() >= low and image.max() <= high:  # and none is NaN
            return
        with np.errstate(invalid="ignore"):
            outside = (image < low) | (image > high)
        if outside.any() and (outside & ~bad_pixels(image)).any():
            raise UnusableImageError(NO_LIGHT)


def _without_masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture of floats, with NaN where the mask is true."""
    try:
        mask = np.broadcast_to(mask, image.shape)
    except ValueError as error:
        raise UnusableImageError("a mask of another shape") from error
    if image.dtype == np.uint8:
        image = intensities(image)
    if image.dtype.kind not in "f":
        image = image.astype(np.float64)
    return np.where(mask, image.dtype.type(np.nan), image)


def upright(values: np.ndarray, orientation: Any) -> np.ndarray:
    """Rotate and mirror a picture (height, width) as its Orientation tag, 1 to 8, asks."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
