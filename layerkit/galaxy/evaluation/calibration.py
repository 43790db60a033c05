"""Calibration: whether pixels lie as far from what is predicted as the predicted noise says."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layerkit.display import short_repr
from layerkit.errors import DataError

DEVIATIONS = (1, 2, 3)
NOMINAL = tuple(math.erf(k / math.sqrt(2)) for k in DEVIATIONS)  # 68.3%, 95.4%, 99.7%
QUINTILES = 5
EDGES = np.linspace(-8, 8, 129)  # of the histogram, in standard deviations


class Calibration(NamedTuple):
    """What `calibrate` found.

    Attributes:
        coverage: share of all pixels within 1, 2 and 3 predicted standard deviations, (3,); of a
            noise that is not Gaussian, within the intervals that hold as much as those of one.
        by_quintile: the same for each fifth of the pixels by predicted mean, darkest first, (5, 3).
        brightness: median predicted mean of each fifth, (5,).
        density: of the scores in the bins EDGES, per standard deviation, of all pixels.
        beyond: share of all pixels below the first of the EDGES, and above the last, (2,).
    """

    coverage: np.ndarray
    by_quintile: np.ndarray
    brightness: np.ndarray
    density: np.ndarray
    beyond: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)

    def metrics(self) -> dict[str, Any]:
        """For metrics.json: coverages, by quintiles too, and that of the quintile furthest off."""
        found: dict[str, Any] = {}
        for i, k in enumerate(DEVIATIONS):
            each = self.by_quintile[:, i]
            found[f"coverage_{k}sd"] = float(self.coverage[i])
            found[f"coverage_{k}sd_quintiles"] = each.tolist()
            found[f"coverage_{k}sd_worst_quintile"] = float(
                each[np.abs(each - NOMINAL[i]).argmax()]
            )
        return found


def calibrate(scores: np.ndarray, mean: np.ndarray) -> Calibration:
    """Pixels' scores, which are standard normal if the predicted noise is right.

    The fifths are of the predicted mean and not of the observed intensity: among the pixels that
    were seen bright are those that noise made bright, so that even a perfect prediction would be
    too low for them.  The prediction does not know the noise.

    The mean and variance are decoded from the mean of q(z | x) and leave out its spread, so that
    a perfectly trained model would cover a little less than is nominal.

    Args:
        scores: (n, ...), such as (x - mean) / sd of a Gaussian noise; see GalaxyModel.scores.
        mean: the predicted means, of the same shape.

    Raises:
        DataError: arrays that differ in shape, or no pixels.
    """
    if scores.shape != mean.shape or scores.size == 0:
        raise DataError(
            "calibrate: expected scores and means of one shape, got "
            f"{scores.shape} and {mean.shape}"
        )
    score, predicted = (a.reshape(-1).astype("float64") for a in (scores, mean))
    within = np.abs(score)[:, None] <= np.array(DEVIATIONS)
    # Ranks, not quantiles: fifths of one size even where many pixels are predicted alike.
    fifths = np.array_split(np.argsort(predicted, kind="stable"), QUINTILES)
    count, _ = np.histogram(score, EDGES)
    return Calibration(
        within.mean(axis=0),
        np.array([within[f].mean(axis=0) if len(f) else within.mean(axis=0) for f in fifths]),
        np.array([np.median(predicted[f]) if len(f) else np.nan for f in fifths]),
        count / (len(score) * (EDGES[1] - EDGES[0])),
        np.array([np.mean(score < EDGES[0]), np.mean(score > EDGES[-1])]),
    )
