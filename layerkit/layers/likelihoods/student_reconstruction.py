"""StudentReconstruction: how well Student's t explains x, with a variance and a skew per pixel."""

from __future__ import annotations

import math
from typing import Annotated

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layers.likelihoods.reconstruction import QUANTISATION_VARIANCE, Reconstruction
from layerkit.layers.losses.loss import rows
from layerkit.settings import NotNegative, Number, Tops

# Kernels take log(1 + u^2 / (n - 2)) times n + 1 in float32, which rounds by n * 6e-8.
MOST_DEGREES = 1000
Degrees = Annotated[
    float, Number(above=2, most=MOST_DEGREES, hint="for more take GaussianReconstruction")
]


class StudentReconstruction(Reconstruction):
    """Loss -log p(x) of a skewed Student's t of given mean and variance, for each example.

    Its tails are heavier than a Gaussian's, so that pixels nothing predicts, such as those of
    another object, cost little and do not widen the variance of all others; and the two tails may
    differ, as for sky, which no picture shows darker than black.

    T, Student's t with n degrees of freedom scaled to variance 1, is skewed by a factor g: its
    positive side is stretched by g, its negative side shrunk by g.  With c = E|T|, the result has
    mean mu = c (g - 1/g) and variance s^2 = (1 - c^2) (g^2 + 1/g^2) + 2 c^2 - 1, so that

        x = mean + (y - mu) / s * sqrt(v),   v = exp(log_variance) + floor,   g = exp(skew)

    has the mean and variance that the bottoms give.  With u = y / g where y > 0, else y g,

        loss = sum over pixels of [log(v / s^2) + (n + 1) log(1 + u^2 / (n - 2))] / 2
               + log((g + 1/g) / 2) + constant, in nats

    Shapes: bottoms x, mean, log_variance and, if there are such, skew and mask (n, ...), of one
    shape; top (n,).

    Args:
        skew: the bottom that holds log g; without it the distribution is symmetric.
        degrees: n, the degrees of freedom, default 6; above 2, else there is no variance, and
            at most 1000: beyond, it is a Gaussian up to rounding; take GaussianReconstruction.
        mask, floor, weight: see Reconstruction.

    Raises:
        DataError: a negative mask.

    Source: Fernandez and Steel, "On Bayesian modeling of fat tails and skewness" (1998).
    """

    def __init__(
        self,
        name: str,
        x: str,
        mean: str,
        log_variance: str,
        skew: str | None = None,
        mask: str | None = None,
        *,
        degrees: Degrees = 6.0,
        floor: NotNegative = QUANTISATION_VARIANCE,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [x, mean, log_variance], skew, mask, floor, weight, tops)
        self.degrees = degrees

    @property
    def constant(self) -> float:  # type: ignore[override]
        """The constant of the loss, for each pixel."""
        n = self.degrees
        return math.lgamma(n / 2) - math.lgamma((n + 1) / 2) + 0.5 * math.log(math.pi * (n - 2))

    @property
    def fold(self) -> float:  # type: ignore[override]
        """The mean c = E|T|."""
        n, ratio = self.degrees, math.lgamma((self.degrees - 1) / 2) - math.lgamma(self.degrees / 2)
        return math.sqrt((n - 2) / math.pi) * math.exp(ratio)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        xp, n = self.xp, self.degrees
        v, _, g, _, variance, _, u = self._standardised(bottoms)
        terms = xp.log(v * (0.5 * (g + 1 / g)) ** 2 / variance)
        terms = terms + (n + 1) * xp.log1p(u * u / (n - 2))
        self.add_up(terms, self.arrays(bottoms)[4], tops[0])

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute, each times the top's diff and the mask:

        dx = r, d mean = -r, d log_variance = (1 - d r) e / 2v, and
        d skew = (g - 1/g) / (g + 1/g) - s'/s + q (mu' + s' d / sqrt(v)) - p u sign(y).

        Here d = x - mean, p = (n + 1) u / (n - 2 + u^2) = d loss / d u, q = p du/dy and
        r = q s / sqrt(v); e = exp(log_variance) is the derivative of v, and mu' and s' are those
        of mu and s by the skew.
        """
        xp, n, c = self.xp, self.degrees, self.fold
        v, standard, g, stretch, variance, y, u = self._standardised(bottoms)
        s, scale = xp.sqrt(variance), self.scale(tops[0], self.arrays(bottoms)[4])
        d = standard * xp.sqrt(v)
        p = (n + 1) * u / (n - 2 + u * u)
        q = p / stretch
        r = q * s / xp.sqrt(v)
        ds = (1 - c * c) * (g * g - 1 / (g * g)) / s
        e = xp.exp(rows(bottoms[2].data))
        values = [r, -r, 0.5 * (1 - d * r) * (e / v)]
        if self.skewed:
            values.append(
                (g - 1 / g) / (g + 1 / g)
                - ds / s
                + q * (c * (g + 1 / g) + ds * standard)
                - xp.where(y >= 0, p * u, -p * u)
            )
        for bottom, value in zip(bottoms[: len(values)], values, strict=True):
            if bottom.diff is not None:
                xp.multiply(scale, value, out=rows(bottom.diff))

    def _standardised(self, bottoms: list[Blob]) -> tuple[Array, ...]:
        """Return v, (x - mean) / sqrt(v), g, the factor y / u, s^2, y and u."""
        xp, c = self.xp, self.fold
        x, mean, log_variance, skew, mask = self.arrays(bottoms)
        g = xp.ones_like(mean) if skew is None else xp.exp(skew)
        v = xp.exp(log_variance) + self.floor
        variance = (1 - c * c) * (g * g + 1 / (g * g)) + (2 * c * c - 1)
        standard = self.distance(x, mean, mask) / xp.sqrt(v)
        y = c * (g - 1 / g) + xp.sqrt(variance) * standard
        stretch = xp.where(y >= 0, g, 1 / g)
        return v, standard, g, stretch, variance, y, y / stretch
