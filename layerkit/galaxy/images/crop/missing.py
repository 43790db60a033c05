"""Pixels without data inside a galaxy's square, and a guess in their place.

A galaxy is unchanged by half a turn about its centre, as `detect` has it, so the light opposite a
missing pixel is the light that it would have had, but for noise and neighbours.  Pixels about the
centre itself may be missing with their opposites: the light around tells theirs.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from layerkit.galaxy.images.decode.blank import NoData
from layerkit.galaxy.images.decode.bounds import UnusableImageError

HARDLY = 0.01  # of a pixel's area that may be without data
REACHES = (3.0, 1.0)  # pixels, coarse to fine: deviations of the Gaussians under which light counts
ENOUGH = 0.05  # of such a Gaussian that must have data to count for more than the coarser one


def filled(image: np.ndarray, gaps: NoData | None) -> tuple[np.ndarray, np.ndarray]:
    """Fill pixels without data with the median of the others; also return their mask.

    Raises:
        UnusableImageError: there are no others.
    """
    if gaps is None:
        return image, np.zeros(image.shape, bool)
    missing = gaps.anywhere
    if missing.all():
        raise UnusableImageError("blank")
    return np.where(missing, np.median(image[~missing]), image), missing


def bridged(image: np.ndarray, missing: np.ndarray, sky: float, bins: int) -> np.ndarray:
    """Return an image whose missing pixels have the light around them; the sky's far from any.

    Args:
        image: (height, width).
        missing: mask of the pixels without data.
        sky: value far from pixels with data.
        bins: pixels of the image for each one of REACHES.
    """
    known = (~missing).astype(float)
    light = np.where(missing, 0.0, image - sky)
    around = np.zeros(image.shape)
    for reach in REACHES:
        share, total = (ndimage.gaussian_filter(k, reach * bins) for k in (known, light))
        around = (total + ENOUGH * around) / (share + ENOUGH)
    return np.where(missing, sky + around, image)


def mended(
    image: np.ndarray, missing: np.ndarray, centre: tuple[float, float], radius: float, sky: float
) -> np.ndarray:
    """Return an image whose missing pixels have the light of those opposite.

    If that is missing, too, or outside the image, they keep theirs up to a radius from the centre,
    and beyond it they have the sky's.

    Args:
        image: (height, width), `bridged`.
        missing: mask of the pixels without data.
        centre: y and x that they are opposite about, pixel k extending from k to k + 1.
        radius: in pixels.
        sky: value of the sky.
    """
    found, at = image.copy(), np.nonzero(missing)
    opposite = [round(2 * c - 1) - k for c, k in zip(centre, at, strict=True)]
    inside = np.ones(len(at[0]), bool)
    for k, n in zip(opposite, image.shape, strict=True):
        inside &= (k >= 0) & (k < n)
    rows, columns = (np.where(inside, k, 0) for k in opposite)
    known = inside & ~missing[rows, columns]
    near = np.hypot(*(k + 0.5 - c for c, k in zip(centre, at, strict=True))) < radius
    found[at] = np.where(known, image[rows, columns], np.where(near, image[at], sky))
    return found


def missing_at(
    missing: np.ndarray, y0: float, x0: float, side: float, size: int
) -> np.ndarray | None:
    """Return the mask of what is missing in a square resampled to (size, size); None if nothing.

    Args:
        missing: mask of the pixels without data, (height, width).
        y0, x0, side: top left corner and side of the square.
        size: pixels on a side of the result.
    """
    if not missing.any():
        return None
    box = tuple(np.clip([x0, y0, x0 + side, y0 + side], 0, [*missing.shape[::-1]] * 2))
    share = Image.fromarray(missing.astype(np.float32))
    found = np.asarray(share.resize((size, size), Image.Resampling.BILINEAR, box=box)) > HARDLY
    return found if found.any() else None
