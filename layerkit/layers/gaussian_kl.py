"""GaussianKL: divergence of a diagonal Gaussian from the standard normal."""

from __future__ import annotations

import math

from layerkit.backends.kernels import kernel
from layerkit.blob import Blob
from layerkit.layers.loss import Loss, pair_kernels, rows


class GaussianKL(Loss):
    """KL(N(mean, diag exp(log_variance)) || N(0, I)), summed over each example, in nats.

    loss = sum of [mean^2 + exp(log_variance) - log_variance - 1] / 2.

    Shapes: bottoms mean and log_variance (n, ...), of one shape; top (n,).

    Source: Kingma and Welling (2014), appendix B; KL(q, p) of Regier et al. (2015).
    """

    def __init__(
        self, name: str, mean: str, log_variance: str, *, weight: float = 1.0,
        tops: str | None = None,
    ):
        super().__init__(name, [mean, log_variance], weight, tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The divergence of each example; expm1 keeps it exact near zero."""
        mean, log_variance = (rows(b.data) for b in bottoms)
        terms = mean * mean + (self.xp.expm1(log_variance) - log_variance)
        tops[0].data[...] = 0.5 * terms.sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """d mean = mean; d log_variance = (exp(log_variance) - 1) / 2; times the top's diff."""
        mean, log_variance = (rows(b.data) for b in bottoms)
        scale = tops[0].diff[:, None]
        if bottoms[0].diff is not None:
            self.xp.multiply(scale, mean, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            self.xp.multiply(0.5 * scale, self.xp.expm1(log_variance), out=rows(bottoms[1].diff))

    # With kernels.

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The divergence of each example."""
        mean, log_variance = (rows(b.data) for b in bottoms)
        divergence(mean, log_variance, tops[0].data)

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Both diffs at once."""
        mean, log_variance = (rows(b.data) for b in bottoms)
        diffs = [mean[:0] if b.diff is None else rows(b.diff) for b in bottoms]
        divergence_backward(mean, log_variance, tops[0].diff, *diffs)

    # With CUDA.  Another prior than the standard normal is left to the array code.

    recordable = True

    def can_use_kernels(self) -> bool:
        """CUDA's are for the standard normal."""
        return self.run.device is None or len(self.bottoms) == 2

    forward_cuda, backward_cuda, forward_backward_cuda = pair_kernels(r"""
    __device__ inline double term(real mean, real log_variance)
    {
        double m = mean, v = log_variance;
        return m * m + (expm1(v) - v);
    }
    __device__ inline real by_first(real mean, real log_variance) { return mean; }
    __device__ inline real by_second(real mean, real log_variance)
    {
        return (real)0.5 * expm1(log_variance);
    }
    """, factor=0.5)


# Kernels.


@kernel
def divergence(mean, log_variance, loss):
    """In float64, as a latent space is small."""
    for row in range(len(loss)):
        total = 0.0
        for j in range(mean.shape[1]):
            m, v = float(mean[row, j]), float(log_variance[row, j])
            total += m * m + (math.expm1(v) - v)
        loss[row] = 0.5 * total


@kernel
def divergence_backward(mean, log_variance, scale, dmean, dlog_variance):
    """Diffs without rows are left out."""
    for row in range(len(dmean)):
        for j in range(mean.shape[1]):
            dmean[row, j] = scale[row] * mean[row, j]
    for row in range(len(dlog_variance)):
        for j in range(mean.shape[1]):
            dlog_variance[row, j] = 0.5 * scale[row] * math.expm1(float(log_variance[row, j]))
