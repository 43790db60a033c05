"""Dropout: leaves units out at random."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from layerkit.backends import cuda, philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Number, Tops


class Dropout(Layer):
    """y = x * mask / (1 - ratio) while training; y = x in a net of phase "test" and in `infer`.

    Args:
        ratio: share of elements set to zero, in [0, 1), default 0.5.

    Source: Srivastava et al. (2014), scaled while training ("inverted dropout").
    """

    def __init__(
        self, name: str, bottom: str, *, ratio: Annotated[float, Number(least=0, below=1)] = 0.5,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.ratio = ratio

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """The top has the bottom's shape; no parameters."""
        self.mask = self.buffer(shapes[0])
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = x * mask, with a mask of 0 and 1 / (1 - ratio)."""
        mask = self.mask.data
        if self.run.training:
            mask[...] = self.uniform(mask.shape) >= self.ratio
            mask *= 1 / (1 - self.ratio)
        else:
            mask.fill(1)
        self.xp.multiply(bottoms[0].data, mask, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """dx = dy * mask."""
        if bottoms[0].diff is not None:
            self.xp.multiply(tops[0].diff, self.mask.data, out=bottoms[0].diff)

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = x * mask, drawn as it is needed."""
        self._launch(bottoms[0].data, tops[0].data)

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """dx = dy * mask, drawn again."""
        if bottoms[0].diff is not None:
            self._launch(tops[0].diff, bottoms[0].diff)

    def _launch(self, x: Array, y: Array) -> None:
        run, device = self.run, self.run.device
        assert device is not None
        device.launch(
            CUDA, "dropout", device.blocks(-(-y.size // 4)), y.size, x, y,
            np.float64(self.ratio if run.training else 0), float(1 / (1 - self.ratio))
            if run.training else 1.0, *philox.keys(run.seed, self.stream),
            device.clock,
        )


# CUDA.

CUDA = cuda.source(philox.CUDA + r"""
KERNEL dropout(
    i64 size, const real* x, real* y, double ratio, real scale, u64 seed, u32 stream,
    const i64* clock)
{
    i64 block = place();
    if (4 * block >= size) return;
    u32 words[4];
    philox_block((u32)block, seed, stream, (u64)clock[PASS], words);
    for (i64 k = 0; k < 4 && 4 * block + k < size; ++k) {
        i64 j = 4 * block + k;
        y[j] = x[j] * (uniform_of(words[k]) >= ratio ? scale : (real)0);
    }
}
""")
