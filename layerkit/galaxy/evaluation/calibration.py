"""Calibration: do pixels lie as far from their predicted means as the predicted noise says?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layerkit.data.arrays import hidden
from layerkit.errors import DataError
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.inspection.display import short_repr
from layerkit.settings import fitting

DEVIATIONS = (1, 2, 3)
NOMINAL = tuple(math.erf(k / math.sqrt(2)) for k in DEVIATIONS)  # 68.3%, 95.4%, 99.7%
QUINTILES = 5
EDGES = np.linspace(-8, 8, 129)  # of the histogram's bins, in standard deviations


class Calibration(NamedTuple):
    """Coverage of pixels by the predicted noise.

    Attributes:
        coverage: share of all pixels within 1, 2 and 3 predicted standard deviations, (3,).  If
            the predicted noise is not Gaussian, its central intervals of 68.3%, 95.4% and 99.7%
            take their place.
        by_quintile: coverage of each fifth of the pixels by predicted mean, darkest first, (5, 3).
        brightness: median predicted mean of each fifth, (5,).
        density: histogram of the scores of all pixels in the bins of EDGES, per standard deviation.
        beyond: share of all pixels below the first of EDGES, and above the last, (2,).
    """

    coverage: np.ndarray
    by_quintile: np.ndarray
    brightness: np.ndarray
    density: np.ndarray
    beyond: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)

    def metrics(self) -> dict[str, Any]:
        """Return coverages for metrics.json: overall, by quintile, and the worst quintile's."""
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
    """Compare the scores of pixels with the standard normal, which they follow if noise is right.

    Fifths are by predicted mean rather than by observed intensity: noise itself makes some pixels
    bright, and even a perfect prediction would be too low for the pixels observed to be bright.

    Means and variances are decoded from the mean of q(z | x) and leave out its spread, so a
    perfectly trained model would cover slightly less than is nominal.

    Args:
        scores: (n, ...), such as (x - mean) / sd of Gaussian noise; see GalaxyModel.scores.  Those
            that are masked are left out.
        mean: the predicted means, of the shape of `scores`.

    Raises:
        DataError: the shapes differ, or there are no pixels.
    """
    if scores.shape != mean.shape or scores.size == 0:
        raise DataError(
            "calibrate: expected scores and means of one shape, got "
            f"{scores.shape} and {mean.shape}"
        )
    if (mask := hidden(scores)) is not None:
        scores, mean = np.ma.getdata(scores)[~mask], mean[~mask]
    score, predicted = (a.reshape(-1).astype("float64") for a in (scores, mean))
    within = np.abs(score)[:, None] <= np.array(DEVIATIONS)
    # Ranks rather than quantiles, for fifths of one size even if many predictions are equal.
    fifths = np.array_split(np.argsort(predicted, kind="stable"), QUINTILES)
    count, _ = np.histogram(score, EDGES)
    return Calibration(
        within.mean(axis=0),
        np.array([within[f].mean(axis=0) if len(f) else within.mean(axis=0) for f in fifths]),
        np.array([np.median(predicted[f]) if len(f) else np.nan for f in fifths]),
        count / (len(score) * (EDGES[1] - EDGES[0])),
        np.array([np.mean(score < EDGES[0]), np.mean(score > EDGES[-1])]),
    )


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate_calibration(
    model: GalaxyModel, images: np.ndarray, posterior: Posterior | None = None
) -> Calibration:
    """Calibrate a model's predicted noise on images; see `calibrate`.

    Args:
        model: the model.
        images: (n, side, side) that training never saw.
        posterior: q(z | x) of the images; None, the default, takes the encoder's.
    """
    checked_model(model, "evaluate_calibration")
    mean, _ = model.reconstruct(images, posterior)
    return calibrate(model.scores(images, posterior), mean)
