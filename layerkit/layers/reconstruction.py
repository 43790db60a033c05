"""Reconstruction: what the layers that score a picture pixel by pixel have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layerkit.backends import cuda
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.loss import Loss, rows
from layerkit.settings import NotNegative, Tops

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that.
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12


class Reconstruction(Loss):
    """-log p(x | mean, variance) with variance = exp(log_variance) + floor, summed over pixels.

    Shapes: bottoms x, mean and log_variance (n, ...), of one shape; top (n,).

    Args:
        floor: variance that is always there.  The default is that of rounding x to 8 bits, for x
            in 0..1: without it the likelihood of a constant pixel has no bound.
        weight: see Loss.

    Attributes:
        degrees: of freedom of Student's t; a Gaussian has infinitely many.
        fold: E|T| of that distribution with mean 0 and variance 1.
        constant: of the loss, for each pixel.
    """

    degrees = math.inf
    fold = math.sqrt(2 / math.pi)
    constant = 0.5 * math.log(2 * math.pi)

    def __init__(
        self, name: str, bottoms: list[str], floor: NotNegative, weight: NotNegative,
        tops: Tops | None,
    ):
        super().__init__(name, bottoms, weight, tops)
        self.floor = floor

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """As any loss; a GPU needs room for the sums of pieces of an example."""
        if self.run.device is not None:
            self.sums = self.buffer((-(-math.prod(shapes[0]) // CHUNK),), "float64")
        return super().setup(shapes)


Methods = tuple[Callable[..., None], Callable[..., None], Callable[..., None]]


def methods(kind: str, run: Callable[[Any, list[Blob], list[Blob], list[Any]], None]) -> Methods:
    """Forward, backward and both, of a function of the layer, bottoms, tops and diffs to fill.

    Args:
        kind: with which their names end; a net tells kernels by it.
    """

    def forward(self: Any, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The negative log likelihood of each example."""
        run(self, bottoms, tops, [None] * len(bottoms))

    def backward(self: Any, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The diffs, and the loss over again."""
        run(self, bottoms, tops, [b.diff for b in bottoms])

    def forward_backward(self: Any, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and diffs in one pass over the pixels."""
        run(self, bottoms, tops, [b.diff for b in bottoms])

    for method in (forward, backward, forward_backward):
        method.__name__ += f"_{kind}"
    return forward, backward, forward_backward


# CUDA.

CHUNK = 1024  # pixels of an example that a block of threads goes through

LIKELIHOOD = f"#define CHUNK {CHUNK}\n" + r"""
KERNEL likelihood(
    i64 pixels, i64 pieces, const real* x, const real* mean, const real* log_variance,
    const real* skew, real floor, real degrees, real fold, const real* scale, double* sums,
    real* dx, real* dmean, real* dlog_variance, real* dskew)
{
    i64 row = blockIdx.x / (u32)pieces, start = (i64)(blockIdx.x % (u32)pieces) * CHUNK;
    i64 stop = start + CHUNK < pixels ? start + CHUNK : pixels;
    real s = scale ? scale[row] : (real)0, total = 0;
    for (i64 j = row * pixels + start + threadIdx.x; j < row * pixels + stop; j += THREADS) {
        real e = exp(log_variance[j]), v = e + floor, d = x[j] - mean[j], term, r, by_skew;
        explain(d, v, skew ? skew[j] : (real)0, degrees, fold, &term, &r, &by_skew);
        total += term;
        if (dx) dx[j] = s * r;
        if (dmean) dmean[j] = -s * r;
        if (dlog_variance) dlog_variance[j] = (real)0.5 * s * ((1 - d * r) * (e / v));
        if (dskew) dskew[j] = s * by_skew;
    }
    double sum = lanes_sum(total, THREADS);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

KERNEL likelihood_sums(i64 rows, i64 pieces, double constant, const double* sums, real* loss)
{
    i64 row = place();
    if (row >= rows) return;
    double total = 0;
    for (i64 piece = 0; piece < pieces; ++piece) total += sums[row * pieces + piece];
    loss[row] = (real)(0.5 * total + constant);
}
"""


def cuda_kernels(explain: str) -> Methods:
    """forward_cuda, backward_cuda and forward_backward_cuda.

    Args:
        explain: a CUDA function of a pixel's distance from its mean, its variance and skew, degrees
            and fold: twice its loss without the constant, and the loss's derivatives by distance
            and skew.
    """
    code = cuda.source(explain + LIKELIHOOD)

    def run(self: Any, bottoms: list[Blob], tops: list[Blob], diffs: list[Any]) -> None:
        device, x = self.run.device, rows(bottoms[0].data)
        (count, pixels), pieces = x.shape, self.sums.shape[0]
        device.launch(
            code, "likelihood", count * pieces, pixels, pieces,
            *[*(b.data for b in bottoms), None][:4], float(self.floor), float(self.degrees),
            float(self.fold), tops[0].diff, self.sums.data, *[*diffs, None][:4],
        )
        device.launch(
            code, "likelihood_sums", device.blocks(count), count, pieces,
            np.float64(pixels * self.constant), self.sums.data, tops[0].data,
        )

    return methods("cuda", run)
