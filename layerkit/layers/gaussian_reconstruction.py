"""GaussianReconstruction: how well a Gaussian with its own variance per pixel explains x."""

from __future__ import annotations

import math

import numpy as np

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.backends.kernels import exp, kernel, log, parallel_for
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.loss import Loss, rows

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that.
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12


class GaussianReconstruction(Loss):
    """-log N(x; mean, diag v) with v = exp(log_variance) + floor, summed over each example.

    loss = sum over pixels of [log(2 pi v) + (x - mean)^2 / v] / 2, in nats.

    Shapes: bottoms x, mean and log_variance (n, ...), of one shape; top (n,).

    Args:
        floor: variance that is always there.  The default is that of rounding x to 8 bits, for x
            in 0..1: without it the likelihood of a constant pixel has no bound.
        weight: see Loss.

    Source: Regier et al. (2015), E_q[log p(x|z)], with the exponential nonlinearity for f_Sigma.
    """

    def __init__(
        self, name: str, x: str, mean: str, log_variance: str, *,
        floor: float = QUANTISATION_VARIANCE, weight: float = 1.0, tops: str | None = None,
    ):
        super().__init__(name, [x, mean, log_variance], weight, tops)
        if floor < 0:
            self.fail(f"floor must not be negative, got {floor}")
        self.floor = floor

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

    # With kernels.

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """As any loss; kernels need room for the sums of pieces of an example."""
        pieces = -(-math.prod(shapes[0]) // CHUNK) if self.run.device is not None else PIECES
        self.sums = self.buffer((pieces,), "float64")
        return super().setup(shapes)

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The negative log likelihood of each example."""
        self._run(bottoms, tops, [None, None, None])

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The diffs, and the loss over again."""
        self.forward_backward_kernel(bottoms, tops)

    def forward_backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and diffs in one pass over the pixels."""
        self._run(bottoms, tops, [b.diff for b in bottoms])

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        assert self.run.team is not None
        data = [rows(b.data) for b in bottoms]
        scale = tops[0].data if tops[0].diff is None else tops[0].diff
        likelihood(
            self.run.team.board, *data, self.floor, scale, tops[0].data, self.sums.data,
            *(data[0][:0] if d is None else rows(d) for d in diffs),
        )

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The negative log likelihood of each example."""
        self._launch(bottoms, tops, [None, None, None])

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The diffs, and the loss over again."""
        self.forward_backward_cuda(bottoms, tops)

    def forward_backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and diffs in one pass over the pixels."""
        self._launch(bottoms, tops, [b.diff for b in bottoms])

    def _launch(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        device, x = self.run.device, rows(bottoms[0].data)
        assert device is not None
        (count, pixels), pieces = x.shape, self.sums.shape[0]
        device.launch(
            CUDA, "likelihood", count * pieces, pixels, pieces, *(b.data for b in bottoms),
            float(self.floor), tops[0].diff, self.sums.data, *diffs,
        )
        device.launch(
            CUDA, "likelihood_sums", device.blocks(count), count, pieces,
            np.float64(pixels * math.log(2 * math.pi)), self.sums.data, tops[0].data,
        )


# Kernels.

PIECES = 4  # into which an example is cut


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
            e = exp(ls[j])
            v = e + base
            inverse = one / v
            difference = xs[j] - ms[j]
            r = difference * inverse
            total += log(v) + difference * r
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


# CUDA.

CHUNK = 1024  # pixels of an example that a block of threads goes through

CUDA = cuda.source(f"#define CHUNK {CHUNK}\n" + r"""
KERNEL likelihood(
    i64 pixels, i64 pieces, const real* x, const real* mean, const real* log_variance, real floor,
    const real* scale, double* sums, real* dx, real* dmean, real* dlog_variance)
{
    i64 row = blockIdx.x / (u32)pieces, start = (i64)(blockIdx.x % (u32)pieces) * CHUNK;
    i64 stop = start + CHUNK < pixels ? start + CHUNK : pixels;
    real s = scale ? scale[row] : (real)0, total = 0;
    for (i64 j = row * pixels + start + threadIdx.x; j < row * pixels + stop; j += THREADS) {
        real e = exp(log_variance[j]), v = e + floor, inverse = 1 / v;
        real difference = x[j] - mean[j], r = difference * inverse;
        total += log(v) + difference * r;
        if (dx) dx[j] = s * r;
        if (dmean) dmean[j] = -s * r;
        if (dlog_variance) dlog_variance[j] = (real)0.5 * s * ((inverse - r * r) * e);
    }
    double sum = lanes_sum(total, THREADS);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

KERNEL likelihood_sums(i64 rows, i64 pieces, double constant, const double* sums, real* loss)
{
    i64 row = place();
    if (row >= rows) return;
    double total = constant;
    for (i64 piece = 0; piece < pieces; ++piece) total += sums[row * pieces + piece];
    loss[row] = (real)(0.5 * total);
}
""")
