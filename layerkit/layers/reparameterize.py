"""Reparameterize: samples a Gaussian so that gradients flow through the sample."""

from __future__ import annotations

from typing import Any

from layerkit.backends import cuda, philox
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops


class Reparameterize(Layer):
    """z = mean + sd * noise with noise ~ N(0, I) and sd = exp(log_variance / 2).

    Shapes: bottoms mean and log_variance (n, ...), of one shape; top z (n, ...).

    The noise depends on the net's seed, the layer's name and the number of the pass only.  Where
    the net is asked not to sample (`infer(..., sample=False)`), z = mean.

    Source: Kingma and Welling (2014), section 2.4; the sampling layer of Regier et al. (2015).
    """

    def __init__(self, name: str, mean: str, log_variance: str, *, tops: Tops | None = None):
        super().__init__(name, [mean, log_variance], tops)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that the shapes are equal; no parameters."""
        if shapes[0] != shapes[1]:
            self.fail(f"mean and log_variance must have one shape, got {shapes}")
        self.scaled = self.buffer(shapes[0])  # sd * noise
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """z = mean + exp(log_variance / 2) * noise."""
        mean, log_variance, scaled = bottoms[0].data, bottoms[1].data, self.scaled.data
        if self.run.sample:
            scaled[...] = self.normal(scaled.shape)
            scaled *= self.xp.exp(0.5 * log_variance)
        else:
            scaled.fill(0)
        self.xp.add(mean, scaled, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """d mean = dz; d log_variance = dz * sd * noise / 2."""
        dz = tops[0].diff
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = dz
        if bottoms[1].diff is not None:
            self.xp.multiply(dz, 0.5 * self.scaled.data, out=bottoms[1].diff)

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """z = mean + sd * noise, drawn as it is needed."""
        run, z = self.run, tops[0].data
        assert run.device is not None
        run.device.launch(
            CUDA, "reparameterize", run.device.blocks(-(-z.size // 4)), z.size, bottoms[0].data,
            bottoms[1].data, z, int(run.sample), *self._noise(),
        )

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Both diffs at once, with the noise drawn again."""
        device, dz = self.run.device, tops[0].diff
        assert device is not None
        device.launch(
            CUDA, "reparameterize_backward", device.blocks(-(-dz.size // 4)), dz.size,
            bottoms[1].data, dz, bottoms[0].diff, bottoms[1].diff, int(self.run.sample),
            *self._noise(),
        )

    def _noise(self) -> tuple[Any, ...]:
        """Seed, stream and where the number of the pass stands."""
        assert self.run.device is not None
        return (*philox.keys(self.run.seed, self.stream), self.run.device.clock)


# CUDA.

CUDA = cuda.source(philox.CUDA + r"""
KERNEL reparameterize(
    i64 size, const real* mean, const real* log_variance, real* z, i64 sample, u64 seed, u32 stream,
    const i64* clock)
{
    i64 block = place();
    if (4 * block >= size) return;
    double noise[4];
    normal_block((u32)block, seed, stream, (u64)clock[PASS], noise);
    for (int k = 0; k < 4 && 4 * block + k < size; ++k) {
        i64 j = 4 * block + k;
        real scaled = sample ? (real)noise[k] * exp((real)0.5 * log_variance[j]) : (real)0;
        z[j] = mean[j] + scaled;
    }
}

KERNEL reparameterize_backward(
    i64 size, const real* log_variance, const real* dz, real* dmean, real* dlog_variance,
    i64 sample, u64 seed, u32 stream, const i64* clock)
{
    i64 block = place();
    if (4 * block >= size) return;
    double noise[4];
    normal_block((u32)block, seed, stream, (u64)clock[PASS], noise);
    for (int k = 0; k < 4 && 4 * block + k < size; ++k) {
        i64 j = 4 * block + k;
        real scaled = sample ? (real)noise[k] * exp((real)0.5 * log_variance[j]) : (real)0;
        if (dmean) dmean[j] = dz[j];
        if (dlog_variance) dlog_variance[j] = dz[j] * ((real)0.5 * scaled);
    }
}
""")
