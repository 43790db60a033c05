"""Morphology: the statistics by which astronomers describe shapes of galaxies, without a model.

The sky level of each image, the median of its border, is subtracted, and the galaxy is described
within its Petrosian radius r_p, at which the mean intensity on a circle about the centre is a fifth
of the mean within it (Petrosian 1976).  The centre is the centroid of the light of the segment:
those pixels joined to the brightest one that stand out of the sky.

    concentration   5 log10(r_80 / r_20), radii of 80% and 20% of the light within 1.5 r_p
    asymmetry       sum |I - I_180| / sum |I| within 1.5 r_p, less the contribution of sky noise
    Gini            0 if all pixels within r_p are equally bright, 1 if one has all the light
    ellipticity     1 - b / a of the second moments of the segment

For the asymmetry the centre is rounded to half a pixel and, unlike Conselice's, not moved to
minimise it.  Compare only values that were measured here.

Sources: Bershady, Jangren and Conselice (2000) for concentration; Conselice, Bershady and Jangren
(2000) for asymmetry; Lotz, Primack and Madau (2004), eq. 6, for Gini.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, label
from scipy.stats import ks_2samp

from layerkit.display import short_repr
from layerkit.errors import DataError
from layerkit.galaxy.model.model import GalaxyModel, checked_model
from layerkit.settings import fitting

STATISTICS = ("concentration", "asymmetry", "Gini", "ellipticity")
MIN_SIDE = 8  # pixels
MIN_SEGMENT = 8  # pixels
BORDER = 3  # pixels
SEGMENT_SIGMAS = 3.0  # above the sky, in the smoothed image
PETROSIAN_RATIO = 0.2
MAX_DRAWN = 1000  # images drawn from the prior


@dataclass
class MorphologyComparison:
    """Morphology of held-out images and of images drawn from the model.

    Attributes:
        held_out: (n, 4), in the order of STATISTICS; see `measure_morphology`.
        drawn: (m, 4).
    """

    held_out: np.ndarray
    drawn: np.ndarray

    __repr__ = short_repr

    def metrics(self) -> dict[str, Any]:
        """Return medians and Kolmogorov-Smirnov distances of each statistic, for metrics.json.

        Images that could not be measured are left out; a number is None if there are no others.
        """
        return {
            name: {
                "held_out_median": _median(held_out),
                "sampled_median": _median(drawn),
                "ks_distance": _ks_distance(held_out, drawn),
            }
            for name, held_out, drawn in zip(STATISTICS, self.held_out.T, self.drawn.T, strict=True)
        }


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate_morphology(model: GalaxyModel, held_out: np.ndarray) -> MorphologyComparison:
    """Measure held-out images and images drawn from the model with the noise that it predicts.

    Means alone would be smoother than any image.  Drawn pixels are clipped to 0..1, which no image
    exceeds.

    Args:
        model: the model.
        held_out: images (n, side, side) it never saw; as many are drawn, at most 1000.
    """
    checked_model(model, "evaluate_morphology")
    drawn = model.sample(min(len(held_out), MAX_DRAWN), noise=True)
    drawn = np.clip(drawn, 0, 1).reshape(-1, *held_out.shape[1:])
    return MorphologyComparison(measure_morphology(held_out), measure_morphology(drawn))


def measure_morphology(images: np.ndarray) -> np.ndarray:
    """Measure concentration, asymmetry, Gini and ellipticity of each image.

    Args:
        images: (N, H, W), one galaxy in each.

    Returns:
        (N, 4), in the order of STATISTICS; a row of NaN if nothing stands out of the sky.

    Raises:
        DataError: the images are not (N, H, W), or have fewer than 8 pixels on a side.
    """
    if images.ndim != 3 or min(images.shape[1:]) < MIN_SIDE:
        raise DataError(
            f"morphology: expected images (N, H, W) with at least {MIN_SIDE} pixels on a side, got "
            f"an array of {images.shape}"
        )
    return np.array([_describe(image) for image in images]).reshape(-1, len(STATISTICS))


def _describe(image: np.ndarray) -> list[float]:
    """Measure the statistics of one image; all NaN if there is no galaxy in it."""
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
    # In a sky smoother than one step of an 8-bit image, that step is the noise.
    segments, _ = label(smooth > max(SEGMENT_SIGMAS * noise, 1 / 255))
    which = segments.reshape(-1)[peak]
    if which == 0:
        return nothing
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.where(segments == which, np.maximum(light, 0.0), 0.0)
    total = weight.sum()
    if (segments == which).sum() < MIN_SEGMENT or total <= 0:
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
    """Measure r_p in pixels: the largest circle within the image if none is dim enough."""
    ring = np.round(radius).astype(int).reshape(-1)
    flux, pixels = np.bincount(ring, light.reshape(-1)), np.bincount(ring)
    mean = flux / np.maximum(pixels, 1)
    within = np.cumsum(flux) / np.maximum(np.cumsum(pixels), 1)
    most = min(light.shape) // 2
    dim = np.flatnonzero(mean[2:most] < PETROSIAN_RATIO * within[2:most])
    return float(dim[0] + 2) if len(dim) else float(most)


def _concentration(light: np.ndarray, radius: np.ndarray, limit: float) -> float:
    """Measure 5 log10(r_80 / r_20) within a limit, from the light's curve of growth."""
    order = np.argsort(radius, axis=None)
    r, flux = radius.reshape(-1)[order], light.reshape(-1)[order]
    growth = np.cumsum(flux[r <= limit])
    if not len(growth) or growth[-1] <= 0:
        return math.nan
    # Circles end at the first pixel that reaches these shares; their area is that of their pixels.
    areas = [np.argmax(growth >= share * growth[-1]) + 1 for share in (0.2, 0.8)]
    return 2.5 * math.log10(areas[1] / areas[0])


def _asymmetry(light: np.ndarray, y: float, x: float, limit: float, border: np.ndarray) -> float:
    """Measure the share of light that a half turn about (y, x) moves, less the sky's."""
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
    """Compute the Gini coefficient of absolute values, in 0..1; NaN if all are zero.

    Source: Lotz, Primack and Madau (2004), eq. 6.
    """
    x = np.sort(np.abs(values.reshape(-1)))
    n = len(x)
    if n < 2 or x[-1] == 0:
        return math.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) @ x) / (x.mean() * n * (n - 1)))


def _median(values: np.ndarray) -> float | None:
    """Return the median of the finite values; None if there are none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _ks_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the Kolmogorov-Smirnov distance, in 0..1; None if either has no finite values."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return float(ks_2samp(a, b).statistic) if len(a) and len(b) else None
