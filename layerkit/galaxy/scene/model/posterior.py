"""Layers of a Gaussian posterior: draws from it, and its prior."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.loss import Loss
from layerkit.settings import NotNegative, Tops


class GaussianDraws(Layer):
    """Draws from N(centre + root step, root root^T): centre + root (step + noise).

    `step`, a parameter, moves the mean in units of the posterior's own deviations, in which the
    problem is well-conditioned: with root root^T the inverse curvature of the objective, a step of
    gradient descent with rate 1 is a Gauss-Newton step (a natural gradient step, for noise that is
    not zero).  The statistics `centre` and `root` are set by whoever fits, between steps.

    Shapes: bottom (n, size), standard normal noise or zeros; top (n, size).

    Source: Kingma and Welling (2014), section 2.4; Khan and Rue (2023), "The Bayesian learning
    rule", section 3.
    """

    def __init__(self, name: str, noise: str, *, tops: Tops | None = None):
        super().__init__(name, [noise], tops)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare step, centre and root."""
        size = shapes[0][0]
        self.parameter("step", (size,), 0.0)
        self.statistic("centre", (size,), 0.0)
        self.statistic("root", (size, size), 0.0)
        return [(size,)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the draws."""
        centre, root = (self.statistics[k].data for k in ("centre", "root"))
        tops[0].data[...] = centre + (bottoms[0].data + self.parameters["step"].data) @ root.T

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d step = root^T sum of the top's diffs, d noise row by row."""
        given = tops[0].diff @ self.statistics["root"].data
        step = self.parameters["step"]
        step.diff[...] = given.sum(axis=0)
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = given


class GaussianPrior(Loss):
    """Loss (theta - mean)^T precision (theta - mean) / 2 of each row, in nats.

    Constants are left out.  Shapes: bottom (n, size); top (n,).

    Args:
        mean, precision: of the prior, shapes (size,) and (size, size).
    """

    shared = ("mean", "precision")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        mean: np.ndarray,
        precision: np.ndarray,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], weight, tops)
        self.mean, self.precision = mean, precision

    def _off(self, bottoms: list[Blob]) -> tuple[Any, Any]:
        off = bottoms[0].data - self.xp.asarray(self.mean)
        return off, off @ self.xp.asarray(self.precision)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each row."""
        off, product = self._off(bottoms)
        tops[0].data[...] = 0.5 * (off * product).sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute precision (theta - mean) times the top's diff."""
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = self._off(bottoms)[1] * tops[0].diff[:, None]
