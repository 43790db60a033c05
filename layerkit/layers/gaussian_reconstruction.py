"""GaussianReconstruction: how well a Gaussian with its own variance per pixel explains x."""

from __future__ import annotations

import math

from layerkit.backends.kernels import exp, kernel, log, log_product, parallel_for
from layerkit.blob import Blob
from layerkit.layers.loss import rows
from layerkit.layers.reconstruction import (
    PIECES,
    QUANTISATION_VARIANCE,
    Reconstruction,
    cpu_kernels,
    cuda_kernels,
)
from layerkit.settings import NotNegative, Tops


class GaussianReconstruction(Reconstruction):
    """-log N(x; mean, diag v) with v = exp(log_variance) + floor, summed over each example.

    loss = sum over pixels of [log(2 pi v) + (x - mean)^2 / v] / 2, in nats.

    Shapes: bottoms x, mean and log_variance (n, ...), of one shape; top (n,).

    Args:
        floor, weight: see Reconstruction.

    Source: Regier et al. (2015), E_q[log p(x|z)], with the exponential nonlinearity for f_Sigma.
    """

    def __init__(
        self, name: str, x: str, mean: str, log_variance: str, *,
        floor: NotNegative = QUANTISATION_VARIANCE, weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [x, mean, log_variance], floor, weight, tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The negative log likelihood of each example."""
        x, mean, log_variance = (rows(b.data) for b in bottoms)
        v = self.xp.exp(log_variance) + self.floor
        terms = self.xp.log(v) + (x - mean) ** 2 / v
        self.xp.sum(terms, axis=1, out=tops[0].data)
        tops[0].data[...] = 0.5 * (tops[0].data + x.shape[1] * math.log(2 * math.pi))

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """With r = (x - mean) / v: dx = r, d mean = -r, d log_variance = (1/v - r^2) e / 2.

        Here e = exp(log_variance) is the derivative of v; each is times the top's diff.
        """
        x, mean, log_variance = (rows(b.data) for b in bottoms)
        scale = tops[0].diff[:, None]
        e = self.xp.exp(log_variance)
        v = e + self.floor
        r = (x - mean) / v
        if bottoms[0].diff is not None:
            self.xp.multiply(scale, r, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            self.xp.multiply(-scale, r, out=rows(bottoms[1].diff))
        if bottoms[2].diff is not None:
            self.xp.multiply(0.5 * scale, (1 / v - r * r) * e, out=rows(bottoms[2].diff))

    forward_kernel, backward_kernel, forward_backward_kernel = cpu_kernels(
        lambda layer, team, data, diffs, floor, scale, loss, sums: likelihood(
            team, *data, floor, scale, loss, sums, *diffs
        )
    )
    forward_cuda, backward_cuda, forward_backward_cuda = cuda_kernels("""
__device__ inline void explain(
    real d, real v, real, real, real, real* term, real* r, real* by_skew)
{
    *by_skew = 0;
    *r = d / v;
    *term = log(v) + d * *r;
}
""")


# Kernels.

SMALLEST = 2.0**-126  # normal number in float32


@kernel(fastmath={"reassoc", "contract", "nsz", "arcp"})
def _likelihood_piece(i, x, mean, log_variance, floor, scale, sums, dx, dmean, dlog_variance):
    row, piece = i // PIECES, i % PIECES
    width = -(-x.shape[1] // (PIECES * 16)) * 16
    start, stop = min(piece * width, x.shape[1]), min((piece + 1) * width, x.shape[1])
    number = x.dtype.type
    base, one, half, s = number(floor), number(1), number(0.5), scale[row]
    xs, ms, ls = x[row, start:stop], mean[row, start:stop], log_variance[row, start:stop]
    total = number(0)
    if len(dmean) == 0 or len(dlog_variance) == 0:
        for j in range(xs.size):
            v = exp(ls[j]) + base
            difference = xs[j] - ms[j]
            total += log(v) + difference * (difference / v)
        if len(dmean) > 0:
            out = dmean[row, start:stop]
            for j in range(xs.size):
                out[j] = -s * ((xs[j] - ms[j]) / (exp(ls[j]) + base))
        if len(dlog_variance) > 0:
            out = dlog_variance[row, start:stop]
            for j in range(xs.size):
                e = exp(ls[j])
                inverse = one / (e + base)
                r = (xs[j] - ms[j]) * inverse
                out[j] = (half * s) * ((inverse - r * r) * e)
    else:
        dms, dls = dmean[row, start:stop], dlog_variance[row, start:stop]
        for j in range(xs.size):
            dls[j] = exp(ls[j])
        fourth = xs.size // 4 if base >= SMALLEST else 0
        e1, e2, e3 = dls[fourth:], dls[2 * fourth :], dls[3 * fourth :]
        for j in range(fourth):
            total += log_product(dls[j] + base, e1[j] + base, e2[j] + base, e3[j] + base)
        for j in range(4 * fourth, xs.size):
            total += log(dls[j] + base)
        for j in range(xs.size):
            e = dls[j]
            inverse = one / (e + base)
            difference = xs[j] - ms[j]
            r = difference * inverse
            total += difference * r
            dms[j] = -s * r
            dls[j] = (half * s) * ((inverse - r * r) * e)
    if len(dx) > 0:
        out = dx[row, start:stop]
        for j in range(xs.size):
            out[j] = s * ((xs[j] - ms[j]) / (exp(ls[j]) + base))
    sums[row, piece] = total


@kernel
def likelihood(team, x, mean, log_variance, floor, scale, loss, sums, dx, dmean, dlog_variance):
    """The loss of each row and its derivatives times `scale`; diffs without rows are left out."""
    parallel_for(team, _likelihood_piece, len(x) * PIECES, (
        x, mean, log_variance, floor, scale, sums, dx, dmean, dlog_variance
    ))
    for row in range(len(x)):
        loss[row] = 0.5 * (sums[row].sum() + x.shape[1] * math.log(2 * math.pi))
