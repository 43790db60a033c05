"""Morphology: the numbers by which astronomers describe shapes of galaxies, without a model.

Each picture gets its sky level subtracted (the median of its border), and is described within its
Petrosian radius r_p: that at which the mean intensity on a circle about the centre is a fifth of
the mean within it (Petrosian 1976).  The centre is the centroid of the light of the segment, the
pixels joined to the brightest one that stand out of the sky.

    concentration   5 log10(r_80 / r_20), radii of 80% and 20% of the light within 1.5 r_p
    asymmetry       sum |I - I_180| / sum |I| within 1.5 r_p, less what the sky's noise gives
    Gini            0 where all pixels within r_p are equally bright, 1 where one has all the light
    ellipticity     1 - b / a of the second moments of the segment

The centre is taken to the nearest half pixel for the asymmetry and not moved to make it least, as
Conselice does; both sides of a comparison must therefore be measured here.

Sources: Bershady, Jangren and Conselice (2000) for concentration; Conselice, Bershady and Jangren
(2000) for asymmetry; Lotz, Primack and Madau (2004), eq. 6, for Gini.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, label

from layerkit.errors import DataError

STATISTICS = ("concentration", "asymmetry", "Gini", "ellipticity")
BORDER = 3  # pixels
SEGMENT_SIGMAS = 3.0  # above the sky, in the smoothed picture
PETROSIAN = 0.2


def morphology(images: np.ndarray) -> np.ndarray:
    """Concentration, asymmetry, Gini and ellipticity of each image.

    Args:
        images: (N, H, W), one galaxy in each.

    Returns:
        (N, 4), in the order of STATISTICS; a row of NaN where nothing stands out of the sky.

    Raises:
        DataError: the images are not (N, H, W), or smaller than 8 pixels.
    """
    if images.ndim != 3 or min(images.shape[1:]) < 8:
        raise DataError(
            f"morphology: expected images (N, H, W), 8 pixels or more, got an array of "
            f"{images.shape}"
        )
    return np.array([_describe(image) for image in images]).reshape(-1, len(STATISTICS))


def _describe(image: np.ndarray) -> list[float]:
    nothing = [math.nan] * len(STATISTICS)
    if not np.isfinite(image).all():
        return nothing
    border = np.ones(image.shape, bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    light = image.astype("float64") - np.median(image[border])
    smooth = gaussian_filter(light, 1.0)
    noise = 1.4826 * np.median(np.abs(smooth[border] - np.median(smooth[border])))
    peak = np.unravel_index(smooth[~border].argmax(), smooth[~border].shape)[0]
    peak = np.flatnonzero(~border)[peak]
    # Where the sky is smoother than one step of an 8-bit picture, that step is the noise.
    segments, _ = label(smooth > max(SEGMENT_SIGMAS * noise, 1 / 255))
    which = segments.reshape(-1)[peak]
    if which == 0:
        return nothing
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.where(segments == which, np.maximum(light, 0.0), 0.0)
    total = weight.sum()
    if (segments == which).sum() < 8 or total <= 0:
        return nothing
    y, x = (weight * rows).sum() / total, (weight * columns).sum() / total
    dy, dx = rows - y, columns - x
    yy, xx, xy = ((weight * a).sum() / total for a in (dy * dy, dx * dx, dx * dy))
    small, large = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    ellipticity = 1 - math.sqrt(max(small, 0.0) / large) if large > 0 else 0.0

    radius = np.hypot(dy, dx)
    petrosian = _petrosian_radius(light, radius)
    concentration = _concentration(light, radius, 1.5 * petrosian)
    asymmetry = _asymmetry(light, y, x, 1.5 * petrosian, border)
    return [concentration, asymmetry, gini(light[radius <= petrosian]), ellipticity]


def _petrosian_radius(light: np.ndarray, radius: np.ndarray) -> float:
    """In pixels; that of the largest circle in the picture where none is dim enough."""
    ring = np.round(radius).astype(int).reshape(-1)
    flux, pixels = np.bincount(ring, light.reshape(-1)), np.bincount(ring)
    mean = flux / np.maximum(pixels, 1)
    within = np.cumsum(flux) / np.maximum(np.cumsum(pixels), 1)
    most = min(light.shape) // 2
    dim = np.flatnonzero(mean[2:most] < PETROSIAN * within[2:most])
    return float(dim[0] + 2) if len(dim) else float(most)


def _concentration(light: np.ndarray, radius: np.ndarray, limit: float) -> float:
    """5 log10(r_80 / r_20) within a limit, by the light's curve of growth."""
    order = np.argsort(radius, axis=None)
    r, flux = radius.reshape(-1)[order], light.reshape(-1)[order]
    growth = np.cumsum(flux[r <= limit])
    if not len(growth) or growth[-1] <= 0:
        return math.nan
    # The first pixel at which so much is reached; and each circle is of the area of its pixels.
    areas = [np.argmax(growth >= share * growth[-1]) + 1 for share in (0.2, 0.8)]
    return 2.5 * math.log10(areas[1] / areas[0])


def _asymmetry(light: np.ndarray, y: float, x: float, limit: float, border: np.ndarray) -> float:
    """The share of light that a half turn about (y, x) moves, less the sky's."""
    twice_y, twice_x = round(2 * y), round(2 * x)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    turned_rows, turned_columns = twice_y - rows, twice_x - columns
    inside = (np.hypot(rows - twice_y / 2, columns - twice_x / 2) <= limit) & (
        (turned_rows >= 0)
        & (turned_rows < light.shape[0])
        & (turned_columns >= 0)
        & (turned_columns < light.shape[1])
    )
    turned = light[turned_rows[inside], turned_columns[inside]]
    norm = np.abs(light[inside]).sum()
    if norm == 0:
        return math.nan
    sky = np.abs(light - light[::-1, ::-1])[border].mean()
    return float((np.abs(light[inside] - turned).sum() - sky * inside.sum()) / norm)


def gini(values: np.ndarray) -> float:
    """Lotz, Primack and Madau (2004), eq. 6: of absolute values, 0 to 1; NaN where all are zero."""
    x = np.sort(np.abs(values.reshape(-1)))
    n = len(x)
    if n < 2 or x[-1] == 0:
        return math.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) @ x) / (x.mean() * n * (n - 1)))
