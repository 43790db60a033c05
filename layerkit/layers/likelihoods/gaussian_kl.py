"""GaussianKL: divergence of a diagonal Gaussian from the standard normal, or from another."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layers.losses.loss import Loss, rows
from layerkit.settings import NotNegative, Tops


class GaussianKL(Loss):
    """Divergence KL(N(mean, diag exp(log_variance)) || prior) of each example, in nats.

    Against the standard normal,

        loss = sum of [mean^2 + exp(log_variance) - log_variance - 1] / 2

    against N(prior_mean, diag exp(prior_log_variance)), a prior that is itself computed, as
    p(h | z) of a lower layer of latent variables is,

        loss = sum of [(mean - prior_mean)^2 / exp(prior_log_variance) + exp(t) - t - 1] / 2

    with t = log_variance - prior_log_variance.

    Shapes: bottoms (n, ...), all of one shape; top (n,).

    Args:
        mean, log_variance: those of the Gaussian.
        prior_mean, prior_log_variance: those of the prior; both, or neither for N(0, I).
        weight: see Loss.

    Raises:
        NetError: prior_mean without prior_log_variance.

    Source: Kingma and Welling (2014), appendix B; KL(q, p) of Regier et al. (2015).  Two Gaussians:
    section 6.2.3 of Murphy (2022), Probabilistic Machine Learning: An Introduction.
    """

    def __init__(
        self,
        name: str,
        mean: str,
        log_variance: str,
        prior_mean: str | None = None,
        prior_log_variance: str | None = None,
        *,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        prior = [b for b in (prior_mean, prior_log_variance) if b is not None]
        super().__init__(name, [mean, log_variance, *prior], weight, tops)
        if len(prior) == 1:
            self.fail("a prior needs both prior_mean and prior_log_variance")

    def _deviations(self, bottoms: list[Blob]) -> tuple[Array, Array, Array | float]:
        """Return mean - prior mean, log_variance - prior log-variance, 1 / prior variance."""
        mean, log_variance, *prior = (rows(b.data) for b in bottoms)
        if not prior:
            return mean, log_variance, 1.0
        return mean - prior[0], log_variance - prior[1], self.xp.exp(-prior[1])

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the divergence of each example; expm1 keeps it exact near zero."""
        mean, t, precision = self._deviations(bottoms)
        terms = mean * mean * precision + (self.xp.expm1(t) - t)
        tops[0].data[...] = 0.5 * terms.sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute, with m = (mean - prior_mean) / prior variance and all times the top's diff:

        d mean = m, d log_variance = (exp(t) - 1) / 2, d prior_mean = -m,
        d prior_log_variance = -[exp(t) - 1 + (mean - prior_mean) m] / 2.
        """
        mean, t, precision = self._deviations(bottoms)
        scale = tops[0].diff[:, None]
        m, v = mean * precision, self.xp.expm1(t)
        values = [m, 0.5 * v]
        if len(bottoms) == 4:
            values += [-m, -0.5 * (v + mean * m)]
        for bottom, value in zip(bottoms, values, strict=True):
            if bottom.diff is not None:
                self.xp.multiply(scale, value, out=rows(bottom.diff))
