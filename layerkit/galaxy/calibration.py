"""Calibration: whether pixels lie as far from their predicted means as their variances say."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import DataError

DEVIATIONS = (1, 2, 3)
NOMINAL = tuple(math.erf(k / math.sqrt(2)) for k in DEVIATIONS)  # 68.3%, 95.4%, 99.7%
QUINTILES = 5
EDGES = np.linspace(-8, 8, 129)  # of the histogram, in standard deviations


class Calibration(NamedTuple):
    """What `calibrate` found.

    Attributes:
        coverage: share of all pixels within 1, 2 and 3 predicted standard deviations, (3,).
        by_quintile: the same for each fifth of the pixels by predicted mean, darkest first, (5, 3).
        brightness: median predicted mean of each fifth, (5,).
        density: of the standardised residuals in the bins EDGES; what lies outside is in the
            outermost bins.
    """

    coverage: np.ndarray
    by_quintile: np.ndarray
    brightness: np.ndarray
    density: np.ndarray

    def metrics(self, prefix: str = "") -> dict[str, Any]:
        """For metrics.json: coverages, by quintiles too, and that of the quintile furthest off."""
        found: dict[str, Any] = {}
        for i, k in enumerate(DEVIATIONS):
            each = self.by_quintile[:, i]
            found[f"{prefix}coverage_{k}sd"] = float(self.coverage[i])
            found[f"{prefix}coverage_{k}sd_quintiles"] = each.tolist()
            found[f"{prefix}coverage_{k}sd_worst_quintile"] = float(
                each[np.abs(each - NOMINAL[i]).argmax()]
            )
        return found


class Rescaling(NamedTuple):
    """Factors that bring predicted standard deviations nearer to what they should cover.

    The likelihood sets a variance by the mean square of residuals, and residuals of real pictures
    have longer tails than a Gaussian's: a variance right for the tails is too large for the middle.

    Attributes:
        edges: predicted means that divide pixels into fifths, (4,).
        factors: of the standard deviation in each fifth, darkest first, (5,).
    """

    edges: np.ndarray
    factors: np.ndarray

    def variance(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """The rescaled variance of pixels of these predicted means and variances."""
        return variance * self.factors[np.searchsorted(self.edges, mean)] ** 2


def rescale(images: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Rescaling:
    """The factors that suit these images, none of which should be one trained on or judged by.

    One factor cannot bring both 68.3% of the pixels of a fifth within one standard deviation and
    95.4% within two, unless they are distributed as a Gaussian: it is chosen so that the larger of
    the two shares' errors is least.

    Args:
        images, mean, variance: (n, ...), of one shape; see `calibrate`.
    """
    predicted = np.asarray(mean, "float64").reshape(-1)
    edges = np.quantile(predicted, np.arange(1, QUINTILES) / QUINTILES)
    fifth = np.searchsorted(edges, predicted)
    away = (np.abs(images - mean) / np.sqrt(variance)).reshape(-1)
    factors = np.ones(QUINTILES)
    for i in range(QUINTILES):
        if (fifth == i).any():
            values = np.sort(away[fifth == i])
            one, two = np.quantile(values, NOMINAL[:2])
            tried = np.linspace(one, two / 2, 200)
            errors = [
                np.abs(np.searchsorted(values, k * tried) / len(values) - NOMINAL[k - 1])
                for k in (1, 2)
            ]
            factors[i] = max(tried[np.max(errors, axis=0).argmin()], 1e-3)
    return Rescaling(edges, factors)


def calibrate(images: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Calibration:
    """Standardised residuals (x - mean) / sqrt(variance) beside the standard normal.

    The fifths are of the predicted mean and not of the observed intensity: among the pixels that
    were seen bright are those that noise made bright, so that even a perfect prediction would be
    too low for them.  The prediction does not know the noise.

    The mean and variance are decoded from the mean of q(z | x) and leave out its spread, so that
    a perfectly trained model would cover a little less than is nominal.

    Args:
        images, mean, variance: (n, ...), of one shape; the variance with its floor.

    Raises:
        DataError: arrays that differ in shape, or no pixels.
    """
    if not images.shape == mean.shape == variance.shape or images.size == 0:
        raise DataError(
            "calibrate: expected images, means and variances of one shape, got "
            f"{images.shape}, {mean.shape} and {variance.shape}"
        )
    x, predicted, variance = (a.reshape(-1).astype("float64") for a in (images, mean, variance))
    residual = (x - predicted) / np.sqrt(variance)
    within = np.abs(residual)[:, None] <= np.array(DEVIATIONS)
    # Ranks, not quantiles: fifths of one size even where many pixels are predicted alike.
    fifths = np.array_split(np.argsort(predicted, kind="stable"), QUINTILES)
    count, _ = np.histogram(np.clip(residual, EDGES[0], EDGES[-1]), EDGES)
    return Calibration(
        within.mean(axis=0),
        np.array([within[f].mean(axis=0) if len(f) else within.mean(axis=0) for f in fifths]),
        np.array([np.median(predicted[f]) if len(f) else np.nan for f in fifths]),
        count / (len(x) * (EDGES[1] - EDGES[0])),
    )
