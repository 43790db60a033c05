"""Morphology: the statistics by which astronomers describe shapes of galaxies, without a model.

The sky level of each image, the median of its border, is subtracted, and the galaxy is described
within its Petrosian radius r_p, at which the mean intensity on a circle about the centre is a fifth
of the mean within it (Petrosian 1976).  The centre is the centroid of the light of the segment:
those pixels joined to the brightest one that stand out of the sky.

    concentration   5 log10(r_80 / r_20), radii of 80% and 20% of the light within 1.5 r_p
    asymmetry       sum |I - I_180| / sum |I| within 1.5 r_p, less the contribution of sky noise
    Gini            0 if all pixels within r_p are equally bright, 1 if one has all the light
    ellipticity     1 - b / a of the second moments of the segment
    half light      radius of the circle that holds half of the light within 1.5 r_p
    M20             log10 of the second moment of the brightest 20% of the light within r_p over
                    that of all of it

For the asymmetry the centre is rounded to half a pixel and, unlike Conselice's, not moved to
minimise it.  Compare only values that were measured here.

Sources: Bershady, Jangren and Conselice (2000) for concentration; Conselice, Bershady and Jangren
(2000) for asymmetry; Lotz, Primack and Madau (2004), eqs. 6 to 8, for Gini and M20.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, generate_binary_structure, label
from scipy.stats import ks_2samp

from layerkit.data.arrays import data_of
from layerkit.errors import DataError
from layerkit.galaxy.images.crop.units import INTENSITIES, intensities_of
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.inspection.display import short_repr
from layerkit.settings import fitting

STATISTICS = ("concentration", "asymmetry", "Gini", "ellipticity")
MIN_SIDE = 8  # pixels
MIN_SEGMENT = 8  # pixels
BORDER = 3  # pixels
SEGMENT_SIGMAS = 3.0  # above the sky, in the smoothed image
PETROSIAN_RATIO = 0.2
MAX_DRAWN = 1000  # images drawn from the prior
CHUNK = 64  # images that are measured together
IN_EACH = np.pad(generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0)))  # pixels touch
QUANTUM = INTENSITIES["stretched"].step


class Shape(NamedTuple):
    """The shape of one galaxy; see the top of this module.

    Attributes:
        half_light_radius: in pixels.
        axis_ratio: b / a.
        angle: of the major axis, in degrees from the axis of columns towards that of rows, in
            0..180.
        concentration, asymmetry, gini, m20: numbers without unit.
    """

    half_light_radius: float
    axis_ratio: float
    angle: float
    concentration: float
    asymmetry: float
    gini: float
    m20: float


AXIS_RATIO = Shape._fields.index("axis_ratio")
MEASURED = [Shape._fields.index(n) for n in ("concentration", "asymmetry", "gini", "axis_ratio")]


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
def evaluate_morphology(
    model: GalaxyModel, held_out: np.ndarray, seed: int = 0
) -> MorphologyComparison:
    """Measure held-out images and images drawn from the model with the noise that it predicts.

    Means alone would be smoother than any image.  Drawn pixels are clipped to the range of prepared
    galaxies in the model's units, which no image exceeds.

    Args:
        model: the model.
        held_out: images (n, side, side) it never saw, as they are under a mask; as many are drawn,
            at most 1000.
        seed: of the draw.
    """
    checked_model(model, "evaluate_morphology")
    drawn = model.sample(min(len(held_out), MAX_DRAWN), seed, noise=True)
    own = intensities_of(model.preparation)
    drawn = np.clip(drawn, own.least, own.most).reshape(-1, *held_out.shape[1:])
    return MorphologyComparison(
        measure_morphology(data_of(held_out), own.step), measure_morphology(drawn, own.step)
    )


def measure_morphology(images: np.ndarray, faintest: float = QUANTUM) -> np.ndarray:
    """Measure concentration, asymmetry, Gini and ellipticity of each image.

    Args:
        images: (N, H, W), one galaxy in each.
        faintest: see `describe`.

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
    shapes = describe(images, faintest)
    shapes[:, AXIS_RATIO] = 1 - shapes[:, AXIS_RATIO]
    return shapes[:, MEASURED]


def describe(images: np.ndarray, faintest: float | np.ndarray = QUANTUM) -> np.ndarray:
    """Measure the shapes of the galaxies in images, each by itself.

    Args:
        images: (n, H, W), with at least 8 pixels on a side.
        faintest: light above the sky that a pixel of the galaxy has at least, for all images or
            for each; by default a step of an 8-bit image, which is the noise of a sky that is
            smoother than that.

    Returns:
        (n, 7), in the order of `Shape`; a row of NaN if nothing stands out of the sky.
    """
    found = np.full((len(images), len(Shape._fields)), math.nan)
    faintest = np.broadcast_to(np.asarray(faintest, "float64"), len(images))
    for first in range(0, len(images), CHUNK):
        rows = slice(first, first + CHUNK)
        _describe(images[rows].astype("float64"), faintest[rows], found[rows])
    return found


def _describe(images: np.ndarray, faintest: np.ndarray, found: np.ndarray) -> None:
    """Measure a few images, and write their shapes into the rows of `found`."""
    rows, columns, border = _grid(images.shape[1:])
    finite = np.isfinite(images).all(axis=(1, 2))
    light = np.where(finite[:, None, None], images, 0)
    light -= np.median(light[:, border], axis=1)[:, None, None]
    smooth = gaussian_filter(light, (0, 1, 1))
    sky = smooth[:, border]
    noise = 1.4826 * np.median(np.abs(sky - np.median(sky, axis=1, keepdims=True)), axis=1)
    least = np.maximum(SEGMENT_SIGMAS * noise, faintest)
    within = smooth[:, BORDER:-BORDER, BORDER:-BORDER]
    peak = np.unravel_index(within.reshape(len(light), -1).argmax(axis=1), within.shape[1:])
    segments, _ = label(smooth > least[:, None, None], IN_EACH)
    which = segments[np.arange(len(light)), BORDER + peak[0], BORDER + peak[1]]
    segment = segments == np.where(which, which, -1)[:, None, None]
    weight = np.where(segment, np.maximum(light, 0.0), 0.0)
    total = weight.sum(axis=(1, 2))
    good = finite & (np.count_nonzero(segment, axis=(1, 2)) >= MIN_SEGMENT) & (total > 0)
    if not good.any():
        return
    light, weight, total = light[good], weight[good], total[good]

    down, across = weight.sum(axis=2), weight.sum(axis=1)
    y, x = down @ rows[:, 0] / total, across @ columns[0] / total
    dy, dx = rows[:, 0] - y[:, None], columns[0] - x[:, None]
    yy, xx = (down * dy * dy).sum(axis=1) / total, (across * dx * dx).sum(axis=1) / total
    xy = (dy[:, None] @ weight @ dx[:, :, None]).reshape(-1) / total
    small, large = np.linalg.eigvalsh(np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2)).T
    ratio = np.sqrt(np.where(large > 0, small.clip(0) / np.where(large > 0, large, 1), 1.0))
    angle = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy)) % 180

    radius = np.sqrt((dy * dy)[:, :, None] + (dx * dx)[:, None])
    petrosian = _petrosian_radii(light, radius)
    for k, row in enumerate(np.flatnonzero(good)):
        one, inside = light[k], radius[k] <= petrosian[k]
        half_light, concentration = _growth(one, radius[k], 1.5 * petrosian[k])
        found[row] = Shape(
            half_light_radius=half_light,
            axis_ratio=ratio[k],
            angle=angle[k],
            concentration=concentration,
            asymmetry=_asymmetry(one, y[k], x[k], 1.5 * petrosian[k], border),
            gini=gini(one[inside]),
            m20=m20(one[inside], rows[inside], columns[inside]),
        )


@functools.lru_cache(maxsize=8)
def _grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row and column of each pixel, and the mask of the border, all read-only."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    border = np.ones(shape, bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    for array in (rows, columns, border):
        array.flags.writeable = False
    return rows, columns, border


def border_of(shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of the pixels by whose median the sky is measured, read-only."""
    return _grid(shape)[2]


def _petrosian_radii(light: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Measure r_p in pixels: the largest circle within the image if none is dim enough."""
    count, most = len(light), min(light.shape[1:]) // 2
    ring = np.rint(radius).astype(np.intp).reshape(count, -1)
    rings = int(ring.max(initial=0)) + 1
    ring += rings * np.arange(count)[:, None]
    flux, pixels = (
        np.bincount(ring.reshape(-1), weights, rings * count).reshape(count, rings)
        for weights in (light.reshape(-1), None)
    )
    mean = flux / np.maximum(pixels, 1)
    within = np.cumsum(flux, axis=1) / np.maximum(np.cumsum(pixels, axis=1), 1)
    dim = mean[:, 2:most] < PETROSIAN_RATIO * within[:, 2:most]
    return np.where(dim.any(axis=1), dim.argmax(axis=1) + 2.0, float(most))


def _growth(light: np.ndarray, radius: np.ndarray, limit: float) -> tuple[float, float]:
    """Measure the half-light radius in pixels, and 5 log10(r_80 / r_20), of light within a limit.

    Both are read from the curve of growth, the light of all pixels up to a distance.
    """
    near = np.flatnonzero(radius.reshape(-1) <= limit)
    if not len(near):
        return math.nan, math.nan
    radius, light = radius.reshape(-1)[near], light.reshape(-1)[near]
    # Only rings in which the curve reaches a share are sorted by distance.
    ring = radius.astype(np.intp)
    flux, pixels = np.bincount(ring, light), np.bincount(ring)
    growth = np.cumsum(flux)
    if growth[-1] <= 0:
        return math.nan, math.nan
    counts = []
    for share in (0.2, 0.5, 0.8):
        k = int(np.argmax(growth >= share * growth[-1]))
        own = np.flatnonzero(ring == k)
        steps = light[own[np.argsort(radius[own])]].cumsum() + (growth[k] - flux[k])
        reached = steps >= share * growth[-1]
        reached[-1] = True  # but for rounding
        counts.append(int(pixels[:k].sum()) + int(np.argmax(reached)) + 1)
    # Circles end at the first pixel that reaches these shares; their area is that of their pixels.
    least, half, most = counts
    return math.sqrt(half / math.pi), 2.5 * math.log10(most / least)


def _asymmetry(light: np.ndarray, y: float, x: float, limit: float, border: np.ndarray) -> float:
    """Measure the share of light that a half turn about (y, x) moves, less the sky's."""
    twice_y, twice_x = round(2 * y), round(2 * x)
    # The rectangle that a half turn about (y, x) maps to itself, read backwards, is that turn.
    part = tuple(
        slice(max(0, twice - n + 1), min(n, twice + 1))
        for twice, n in zip((twice_y, twice_x), light.shape, strict=True)
    )
    down, across = (
        (np.arange(span.start, span.stop) - twice / 2) ** 2
        for span, twice in zip(part, (twice_y, twice_x), strict=True)
    )
    inside = np.add.outer(down, across) <= limit * limit
    kept = light[part]
    own, turned = kept[inside], kept[::-1, ::-1][inside]
    norm = np.abs(own).sum()
    if norm == 0:
        return math.nan
    sky = np.abs(light[border] - light[::-1, ::-1][border]).mean()
    return float((np.abs(own - turned).sum() - sky * len(own)) / norm)


def gini(values: np.ndarray) -> float:
    """Compute the Gini coefficient of absolute values, in 0..1; NaN if all are zero.

    Source: Lotz, Primack and Madau (2004), eq. 6.
    """
    x = np.sort(np.abs(values.reshape(-1)))
    n = len(x)
    if n < 2 or x[-1] == 0:
        return math.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) @ x) / (x.mean() * n * (n - 1)))


def m20(light: np.ndarray, y: np.ndarray, x: np.ndarray) -> float:
    """Compute M20 of pixels; NaN if their light is not above zero.

    It is log10 of the second moment of the brightest pixels, those with 20% of the light, over the
    second moment of all, about the centre for which the latter is least: the centroid.

    Args:
        light: of each pixel, (n,).
        y, x: where each is, (n,).

    Source: Lotz, Primack and Madau (2004), eqs. 7 and 8.
    """
    total = light.sum()
    if total <= 0:
        return math.nan
    moments = light * ((y - (light @ y) / total) ** 2 + (x - (light @ x) / total) ** 2)
    falling = np.sort(light)[::-1]
    faintest = falling[np.argmax(np.cumsum(falling) >= 0.2 * total)]
    brightest = light >= faintest
    part, whole = moments[brightest].sum(), moments.sum()
    return math.log10(part / whole) if part > 0 and whole > 0 else math.nan


def _median(values: np.ndarray) -> float | None:
    """Return the median of the finite values; None if there are none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _ks_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the Kolmogorov-Smirnov distance, in 0..1; None if either has no finite values."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return float(ks_2samp(a, b).statistic) if len(a) and len(b) else None
