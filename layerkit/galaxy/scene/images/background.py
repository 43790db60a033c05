"""Background and noise of an image, from a mesh of sigma-clipped cells."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from layerkit.galaxy.images.crop.slope import slope

CELL = 64  # pixels
CLIP = 3.0
STEEP = 1.0  # deviations of the noise by which a slope must rise from the middle to a corner


def background(image: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the smooth background of one band and the noise of a pixel.

    A plane is taken away first.  Cells of about 64 pixels are clipped at three standard deviations;
    a crowded cell takes its mode as 2.5 median - 1.5 mean.  The noise is that of differences
    between neighbours, or the median over cells of their standard deviation where that is more, as
    for correlated pixels.

    Args:
        image, usable: shape (height, width).

    Source: the mesh is that of Bertin and Arnouts (1996), "SExtractor", section 3.
    """
    plane = _plane(image, usable)
    image = image - plane
    height, width = image.shape
    rows, columns = max(1, round(height / CELL)), max(1, round(width / CELL))
    levels, deviations = np.full((rows, columns), np.nan), np.full((rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            part = (
                slice(i * height // rows, (i + 1) * height // rows),
                slice(j * width // columns, (j + 1) * width // columns),
            )
            values = image[part][usable[part]]
            if len(values) >= 32:
                levels[i, j], deviations[i, j] = _clipped(values)
    difference = _of_differences(image, usable)
    if np.isnan(levels).all():
        return np.zeros_like(image) + plane, difference
    levels[np.isnan(levels)] = np.nanmedian(levels)
    if rows * columns >= 4:
        levels = ndimage.median_filter(levels, 3, mode="nearest")
        difference = max(difference, float(np.nanmedian(deviations)))
    y = (np.arange(height) + 0.5) * rows / height - 0.5
    x = (np.arange(width) + 0.5) * columns / width - 0.5
    grid = np.meshgrid(y, x, indexing="ij")
    return plane + ndimage.map_coordinates(levels, grid, order=1, mode="nearest"), difference


def _plane(image: np.ndarray, usable: np.ndarray) -> np.ndarray | float:
    """Return the plane of a sky that slopes, else 0.

    Cells alone are flat up to the edges, and what they leave of a slope would be fitted as light.
    The wings of a galaxy slope, too, but not on the other side of the image.
    """
    plane = slope(image, usable, STEEP)
    if np.ndim(plane) == 0:
        return plane
    beyond = slope(image, usable & (plane < 0), STEEP / 2)
    return plane if np.ptp(beyond) > np.ptp(plane) / 2 else 0.0


def _clipped(values: np.ndarray) -> tuple[float, float]:
    """Return the mode and the standard deviation of the values that survive clipping."""
    for _ in range(20):
        middle, spread = np.median(values), values.std()
        kept = values[np.abs(values - middle) <= CLIP * spread]
        if len(kept) == len(values) or len(kept) < 16:
            break
        values = kept
    mean, middle, spread = float(values.mean()), float(np.median(values)), float(values.std())
    if spread > 0 and abs(mean - middle) < 0.3 * spread:
        return 2.5 * middle - 1.5 * mean, spread
    return middle, spread


def _of_differences(image: np.ndarray, usable: np.ndarray) -> float:
    """Return the deviation of a pixel from the median absolute difference of neighbours."""
    both = usable[:, 1:] & usable[:, :-1]
    differences = (image[:, 1:] - image[:, :-1])[both]
    if not len(differences):
        return 1.0
    spread = float(np.median(np.abs(differences)) * 1.4826 / np.sqrt(2))
    return spread or float(differences.std() / np.sqrt(2)) or 1.0
