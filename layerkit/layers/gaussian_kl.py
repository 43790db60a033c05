"""GaussianKL: divergence of a diagonal Gaussian from the standard normal."""

from __future__ import annotations

import math

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.backends.kernels import kernel
from layerkit.blob import Blob
from layerkit.layers.loss import WIDE, Loss, rows


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

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The divergence of each example."""
        self._launch(bottoms, tops, [])

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """All diffs at once, and the loss over again."""
        self._launch(bottoms, tops, [b.diff for b in bottoms])

    def forward_backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and diffs in one pass."""
        self._launch(bottoms, tops, [b.diff for b in bottoms])

    def _launch(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Two bottoms, or four where the prior is another; what is not there is passed as None."""
        device, mean = self.run.device, rows(bottoms[0].data)
        assert device is not None
        lanes = cuda.THREADS if mean.shape[1] > WIDE else 32
        four = [*(b.data for b in bottoms), None, None][:4]
        device.launch(
            CUDA, "divergence", device.blocks(len(mean) * lanes), *mean.shape, lanes, *four,
            tops[0].diff if diffs else None, tops[0].data, *[*diffs, *[None] * 4][:4],
        )


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


# CUDA.

CUDA = cuda.source(r"""
KERNEL divergence(
    i64 rows, i64 size, i64 lanes, const real* mean, const real* log_variance,
    const real* prior_mean, const real* prior_log_variance, const real* scale, real* loss,
    real* dmean, real* dlog_variance, real* dprior_mean, real* dprior_log_variance)
{
    i64 row = place() / lanes;
    double total = 0;
    if (row < rows) {
        double s = scale ? scale[row] : (real)0;
        for (i64 j = row * size + threadIdx.x % lanes; j < (row + 1) * size; j += lanes) {
            double m = mean[j], t = log_variance[j], precision = 1;
            if (prior_mean) {
                m -= prior_mean[j];
                t -= prior_log_variance[j];
                precision = exp(-(double)prior_log_variance[j]);
            }
            double v = expm1(t);
            total += m * m * precision + (v - t);
            if (dmean) dmean[j] = (real)(s * m * precision);
            if (dlog_variance) dlog_variance[j] = (real)(0.5 * s * v);
            if (dprior_mean) dprior_mean[j] = (real)(-s * m * precision);
            if (dprior_log_variance)
                dprior_log_variance[j] = (real)(-0.5 * s * (v + m * m * precision));
        }
    }
    total = lanes_sum(total, (u32)lanes);
    if (row < rows && threadIdx.x % lanes == 0) loss[row] = (real)(0.5 * total);
}
""")
