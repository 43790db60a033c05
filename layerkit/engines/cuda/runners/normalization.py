"""BatchNorm, LayerNorm and GroupNorm; see kernels/normalization.cu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.engines import common
from layerkit.engines.cuda.runners.base import KernelRunner, lanes


class Normalization(KernelRunner, common.Normalization):
    """Groups of each example, which are neighbours in memory."""

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether elements can be counted with 32 bits."""
        return layer.run.batch_size * math.prod(layer.normalized.shape) < 2**32

    def normalize(
        self, x: Array, y: Array, momentum: float, mean: Array | None, variance: Array | None
    ) -> None:
        """Compute y; running estimates follow, or at a momentum of 1 are used."""
        outer, groups, inner, *_ = sizes = self.sizes(len(y))
        self.launch(
            "normalization",
            "normalize",
            self.blocks(groups * lanes(outer * inner)),
            *sizes,
            lanes(outer * inner),
            x,
            *self.affine(),
            np.float64(self.layer.epsilon),
            np.float64(momentum),
            self.layer.normalized.data,
            self.inverse(),
            mean,
            variance,
            y,
        )

    def differentiate(self, dx: Array | None, dy: Array, through: bool) -> None:
        """Compute all gradients; `through` mean and variance, where they were those of x."""
        outer, groups, inner, count, *_ = sizes = self.sizes(len(dy))
        normalized, diffs = self.layer.normalized.data, self.affine_diffs()
        wanted = any(diff is not None for diff in diffs)
        if dx is not None or (self.one and wanted):
            self.launch(
                "normalization",
                "normalize_backward",
                self.blocks(groups * lanes(outer * inner)),
                *sizes,
                lanes(outer * inner),
                through,
                normalized,
                self.inverse(),
                self.affine()[0],
                dy,
                *diffs,
                dx,
            )
        if wanted and not self.one:
            share = lanes(dy.size // count)
            self.launch(
                "normalization",
                "sum_slopes",
                self.blocks(count * share),
                *sizes,
                share,
                normalized,
                dy,
                *diffs,
            )


class BatchNorm(Normalization, common.BatchNorm):
    """Groups that are channels of the batch, and running estimates that follow them."""
