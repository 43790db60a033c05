"""Embed and OneHot, and MatMul; see lookup.h and product.h."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import KernelRunner


class Embed(KernelRunner):
    """Rows of a table, by their numbers."""

    integers = True

    def settings(self) -> tuple[Any, ...]:
        """Return whether the table gets a gradient."""
        return (self.layer.w.trainable,)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy a row of W for each id."""
        self.layer.check_data(bottoms)
        self.kernels.embed(bottoms[0].data, self.layer.w.data, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW, the sum of dy over the places of each id."""
        if self.layer.w.trainable:
            self.kernels.embed_backward(bottoms[0].data, tops[0].diff, self.layer.w.diff)


class OneHot(KernelRunner):
    """Ones at the ids, and zeros."""

    integers = True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Write 1 at each id and 0 elsewhere."""
        layer = self.layer
        layer.check_data(bottoms)
        y = tops[0].data.reshape(-1, layer.count, layer.view[1])
        self.kernels.one_hot(bottoms[0].data, y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: ids have no gradient."""


class MatMul(KernelRunner):
    """Products of matrices, example by example."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a b."""
        self._products(*self.layer.factors(bottoms), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da and db."""
        for a, b, out in self.layer.slope_factors(bottoms, tops):
            self._products(a, b, out)

    def _products(self, *arrays: Array) -> None:
        self.engine.products(*(a.reshape(-1, *a.shape[-2:]) for a in arrays))
