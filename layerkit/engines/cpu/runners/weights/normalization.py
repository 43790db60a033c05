"""BatchNorm, LayerNorm and GroupNorm; see normalization.h."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, or_nothing


class Normalization(KernelRunner):
    """Groups of each example, which are neighbours in memory."""

    one = False  # gain for a group

    def groups(self, rows: int) -> tuple[int, int, int]:
        """Return the shape of arrays whose groups are normalised over the first and last axis."""
        groups, size = self.layer.view
        return 1, rows * groups, size

    def settings(self) -> tuple[Any, ...]:
        """Return epsilon, and which parameters get a gradient."""
        layer = self.layer
        return layer.epsilon, *(p is not None and p.trainable for p in (layer.g, layer.b))

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y, each group normalised by its own mean and variance."""
        self.normalize(bottoms, tops, 0.0, NOTHING, NOTHING)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.differentiate(bottoms, tops, True)

    def normalize(
        self, bottoms: list[Blob], tops: list[Blob], momentum: float, mean: Array, variance: Array
    ) -> None:
        """Compute y; running estimates follow, or at a momentum of 1 are used."""
        layer, y = self.layer, tops[0].data
        self.kernels.normalize(
            bottoms[0].data,
            *(NOTHING if p is None else p.data for p in (layer.g, layer.b)),
            self._sizes(len(y)),
            layer.epsilon,
            momentum,
            layer.normalized.data,
            self.inverse(),
            mean,
            variance,
            y,
        )

    def differentiate(self, bottoms: list[Blob], tops: list[Blob], through: bool) -> None:
        """Compute all gradients; `through` mean and variance, where they were those of x."""
        layer, dy = self.layer, tops[0].diff
        self.kernels.normalize_backward(
            layer.normalized.data,
            self.inverse(),
            NOTHING if layer.g is None else layer.g.data,
            dy,
            self._sizes(len(dy)),
            through,
            _diff(layer.g),
            _diff(layer.b),
            or_nothing(bottoms[0].diff),
        )

    def inverse(self) -> Array:
        """Return the array for 1 / sqrt(variance + epsilon) of each group."""
        return self.layer.inverse.data

    def _sizes(self, rows: int) -> Array:
        layer = self.layer
        return np.array([*self.groups(rows), layer.count, layer.spread, self.one], np.int64)


class BatchNorm(Normalization):
    """Groups that are channels of the batch, and running estimates that follow them."""

    one = True

    def groups(self, rows: int) -> tuple[int, int, int]:
        """Return the shape of arrays whose second axis counts channels."""
        before, channels, after = self.layer.view
        return rows * before, channels, after

    def settings(self) -> tuple[Any, ...]:
        """Return whether running estimates are used, how they follow, and what the others take."""
        layer = self.layer
        return layer.by_batch(), layer.momentum, *super().settings()

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y by the mean and variance of the batch, or by the running ones."""
        layer = self.layer
        layer.of_batch = layer.by_batch()
        if layer.of_batch:
            layer.check_count(len(tops[0].data))
        momentum = layer.momentum if layer.of_batch else 1.0
        self.normalize(bottoms, tops, momentum, layer.mean.data, layer.variance.data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.differentiate(bottoms, tops, self.layer.by_batch())

    def inverse(self) -> Array:
        """Return the array for 1 / sqrt(variance + epsilon) of each channel."""
        return self.layer.inverse.data[:1]


def _diff(parameter: Parameter | None) -> Array:
    return parameter.diff if parameter is not None and parameter.trainable else NOTHING
