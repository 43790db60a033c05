"""Runners that are alike in all engines with kernels: they call methods of the engine alone."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.engines.base import EngineRunner


class Input(EngineRunner):
    """Nothing: the net puts the values in place before a pass."""

    integers = True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""


class Reshape(EngineRunner):
    """A copy."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        self.engine.copy(bottoms[0].data.reshape(-1), tops[0].data.reshape(-1))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff back."""
        if bottoms[0].diff is not None:
            self.engine.copy(tops[0].diff.reshape(-1), bottoms[0].diff.reshape(-1))


class Normalization(EngineRunner):
    """LayerNorm and GroupNorm: groups of each example, which are neighbours in memory.

    A subclass defines `normalize` and `differentiate` by kernels; see normalization.h.
    """

    one = False  # gain for a group

    def groups(self, rows: int) -> tuple[int, int, int]:
        """Return the shape of arrays whose groups are normalised over the first and last axis."""
        groups, size = self.layer.view
        return 1, rows * groups, size

    def sizes(self, rows: int) -> tuple[int, ...]:
        """Return the numbers of struct GroupsOf."""
        return *self.groups(rows), self.layer.count, self.layer.spread, int(self.one)

    def settings(self) -> tuple[Any, ...]:
        """Return epsilon, and which parameters get a gradient."""
        layer = self.layer
        return layer.epsilon, *(p is not None and p.trainable for p in (layer.g, layer.b))

    def inverse(self) -> Array:
        """Return the array for 1 / sqrt(variance + epsilon) of each group."""
        return self.layer.inverse.data

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y, each group normalised by its own mean and variance."""
        self.normalize(bottoms[0].data, tops[0].data, 0.0, None, None)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.differentiate(bottoms[0].diff, tops[0].diff, True)

    def normalize(
        self, x: Array, y: Array, momentum: float, mean: Array | None, variance: Array | None
    ) -> None:
        """Compute y; running estimates follow, or at a momentum of 1 are used."""
        raise NotImplementedError

    def differentiate(self, dx: Array | None, dy: Array, through: bool) -> None:
        """Compute all gradients; `through` mean and variance, where they were those of x."""
        raise NotImplementedError

    def affine(self) -> tuple[Array | None, Array | None]:
        """Return gain and bias, or None for one that there is not."""
        g, b = self.layer.g, self.layer.b
        return None if g is None else g.data, None if b is None else b.data

    def affine_diffs(self) -> tuple[Array | None, Array | None]:
        """Return the diffs of gain and bias, or None for one that is not wanted."""
        return _diff(self.layer.g), _diff(self.layer.b)


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

    def inverse(self) -> Array:
        """Return the array for 1 / sqrt(variance + epsilon) of each channel."""
        return self.layer.inverse.data[:1]

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y by the mean and variance of the batch, or by the running ones."""
        layer = self.layer
        layer.of_batch = layer.by_batch()
        if layer.of_batch:
            layer.check_count(len(tops[0].data))
        momentum = layer.momentum if layer.of_batch else 1.0
        mean, variance = layer.mean.data, layer.variance.data
        self.normalize(bottoms[0].data, tops[0].data, momentum, mean, variance)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.differentiate(bottoms[0].diff, tops[0].diff, self.layer.by_batch())


def _diff(parameter: Parameter | None) -> Array | None:
    return parameter.diff if parameter is not None and parameter.trainable else None
