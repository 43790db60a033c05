"""GaussianReconstruction: how well a Gaussian with its own variance per pixel explains x."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layers.likelihoods.reconstruction import QUANTISATION_VARIANCE, Reconstruction
from layerkit.layers.losses.loss import rows
from layerkit.settings import NotNegative, Tops


class GaussianReconstruction(Reconstruction):
    """Loss -log N(x; mean, diag v) of each example, with v = exp(log_variance) + floor.

        loss = sum over pixels of [log(2 pi v) + (x - mean)^2 / v] / 2, in nats

    Shapes: bottoms x, mean, log_variance and, if there is one, mask (n, ...), of one shape; top
    (n,).

    Args:
        mask, floor, weight: see Reconstruction.

    Raises:
        DataError: a negative mask.

    Source: Regier et al. (2015), E_q[log p(x|z)], with the exponential nonlinearity for f_Sigma.
    """

    def __init__(
        self,
        name: str,
        x: str,
        mean: str,
        log_variance: str,
        mask: str | None = None,
        *,
        floor: NotNegative = QUANTISATION_VARIANCE,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [x, mean, log_variance], None, mask, floor, weight, tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        x, mean, log_variance, _, mask = self.arrays(bottoms)
        v = self.xp.exp(log_variance) + self.floor
        terms = self.xp.log(v) + self.distance(x, mean, mask) ** 2 / v
        self.add_up(terms, mask, tops[0])

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = r, d mean = -r, d log_variance = (1/v - r^2) e / 2, times the top's diff.

        Here r = (x - mean) / v, and e = exp(log_variance) is the derivative of v.  The mask is a
        factor of each.
        """
        x, mean, log_variance, _, mask = self.arrays(bottoms)
        scale = self.scale(tops[0], mask)
        e = self.xp.exp(log_variance)
        v = e + self.floor
        r = self.distance(x, mean, mask) / v
        if bottoms[0].diff is not None:
            self.xp.multiply(scale, r, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            self.xp.multiply(-scale, r, out=rows(bottoms[1].diff))
        if bottoms[2].diff is not None:
            self.xp.multiply(0.5 * scale, (1 / v - r * r) * e, out=rows(bottoms[2].diff))
