"""GaussianKL: divergence of a diagonal Gaussian from the standard normal, or from another."""

from __future__ import annotations

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layers.loss import WIDE, Loss, rows
from layerkit.settings import NotNegative, Tops


class GaussianKL(Loss):
    """KL(N(mean, diag exp(log_variance)) || prior), summed over each example, in nats.

    Against the standard normal,

    loss = sum of [mean^2 + exp(log_variance) - log_variance - 1] / 2;

    against N(prior_mean, diag exp(prior_log_variance)), a prior that is itself computed, as
    p(h | z) of a lower layer of latent variables is,

    loss = sum of [(mean - prior_mean)^2 / exp(prior_log_variance) + exp(t) - t - 1] / 2
    with t = log_variance - prior_log_variance.

    Shapes: bottoms (n, ...), all of one shape; top (n,).

    Args:
        mean, log_variance: of the Gaussian.
        prior_mean, prior_log_variance: of the prior; both, or neither for N(0, I).
        weight: see Loss.

    Source: Kingma and Welling (2014), appendix B; KL(q, p) of Regier et al. (2015).  Two Gaussians:
    section 6.2.3 of Murphy (2022), Probabilistic Machine Learning: An Introduction.
    """

    def __init__(
        self, name: str, mean: str, log_variance: str, prior_mean: str | None = None,
        prior_log_variance: str | None = None, *, weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        prior = [b for b in (prior_mean, prior_log_variance) if b is not None]
        super().__init__(name, [mean, log_variance, *prior], weight, tops)
        if len(prior) == 1:
            self.fail("a prior needs both prior_mean and prior_log_variance")

    def _deviations(self, bottoms: list[Blob]) -> tuple[Array, Array, Array | float]:
        """mean - prior mean, log_variance - prior log-variance, 1 / prior variance."""
        mean, log_variance, *prior = (rows(b.data) for b in bottoms)
        if not prior:
            return mean, log_variance, 1.0
        return mean - prior[0], log_variance - prior[1], self.xp.exp(-prior[1])

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The divergence of each example; expm1 keeps it exact near zero."""
        mean, t, precision = self._deviations(bottoms)
        terms = mean * mean * precision + (self.xp.expm1(t) - t)
        tops[0].data[...] = 0.5 * terms.sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """With m = (mean - prior_mean) / prior variance, all times the top's diff:

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
