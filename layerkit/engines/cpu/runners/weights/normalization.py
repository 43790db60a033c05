"""BatchNorm, LayerNorm and GroupNorm; see normalization.h."""

from __future__ import annotations

import numpy as np

from layerkit.backends.base import Array
from layerkit.engines import common
from layerkit.engines.cpu.runners.base import KernelRunner, or_nothing


class Normalization(KernelRunner, common.Normalization):
    """Groups of each example, which are neighbours in memory."""

    def normalize(
        self, x: Array, y: Array, momentum: float, mean: Array | None, variance: Array | None
    ) -> None:
        """Compute y; running estimates follow, or at a momentum of 1 are used."""
        self.kernels.normalize(
            x,
            *map(or_nothing, self.affine()),
            np.array(self.sizes(len(y)), np.int64),
            self.layer.epsilon,
            momentum,
            self.layer.normalized.data,
            self.inverse(),
            or_nothing(mean),
            or_nothing(variance),
            y,
        )

    def differentiate(self, dx: Array | None, dy: Array, through: bool) -> None:
        """Compute all gradients; `through` mean and variance, where they were those of x."""
        self.kernels.normalize_backward(
            self.layer.normalized.data,
            self.inverse(),
            or_nothing(self.affine()[0]),
            dy,
            np.array(self.sizes(len(dy)), np.int64),
            through,
            *map(or_nothing, self.affine_diffs()),
            or_nothing(dx),
        )


class BatchNorm(Normalization, common.BatchNorm):
    """Groups that are channels of the batch, and running estimates that follow them."""
