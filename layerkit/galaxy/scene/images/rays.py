"""Rays: pixels sharper than the PSF, such as cosmic rays and hot pixels, which no source can be."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LEAST = 10.0  # deviations of the noise above which a pixel is looked at
MARGIN = 2.0  # by which a pixel must be sharper than a star, as PSFs are not known exactly
ROUNDS = 4  # a ray of several pixels is found from its ends


def sharp_pixels(values: np.ndarray, weights: np.ndarray, psfs: np.ndarray) -> np.ndarray:
    """Return the mask of pixels that stand out of those around them more than a star's would.

    The median of the eight pixels around is what is compared, those that are masked left out, so
    that a track across the picture is found, too.  No pixel is too sharp for a PSF so narrow that a
    star is one pixel.

    Args:
        values, weights: background-subtracted image and inverse variances, (bands, height, width).
        psfs: (bands, p, p), of unit sum, centred.

    Source: the comparison of sharpness with the PSF's is that of van Dokkum (2001, PASP 113, 1420).
    """
    found = np.zeros(values.shape, bool)
    for band, psf in enumerate(psfs):
        sharpest = MARGIN * _sharpness(psf)
        if not np.isfinite(sharpest):
            continue
        for _ in range(ROUNDS):
            usable = (weights[band] > 0) & ~found[band]
            around = _median_around(values[band], usable)
            noise = 1 / np.sqrt(np.where(usable, weights[band], 1.0))
            with np.errstate(invalid="ignore"):  # NaN where nothing around is usable
                excess = values[band] - sharpest * np.maximum(around, 0)
                new = usable & (excess > LEAST * noise * np.hypot(1, sharpest / 2))
            if not new.any():
                break
            found[band] |= new
    return found


def _sharpness(psf: np.ndarray) -> float:
    """Return how far a star's pixels stand out, wherever between pixels it lies; at most infinity.

    These are pixels of at least a third of the brightest.
    """
    most = 0.0
    padded = np.pad(psf, 2)
    for by in ((0, 0), (0, 0.25), (0, 0.5), (0.25, 0.25), (0.25, 0.5), (0.5, 0.5)):
        for step in {by, by[::-1]}:
            star = ndimage.shift(padded, step, order=3)
            around = _median_around(star, np.ones(star.shape, bool))
            bright = star > star.max() / 3
            with np.errstate(divide="ignore"):
                most = max(most, float((star[bright] / np.maximum(around[bright], 0)).max()))
    return most


def _median_around(image: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return the median of the usable ones of the eight pixels around each, NaN without any."""
    height, width = image.shape
    padded = np.pad(np.where(usable, image, np.nan), 1, constant_values=np.nan)
    views = [
        padded[i : i + height, j : j + width]
        for i in range(3)
        for j in range(3)
        if (i, j) != (1, 1)
    ]
    ordered = np.sort(views, axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2])
    return np.take_along_axis(ordered, np.minimum(middle, 7), axis=0).mean(axis=0)
