"""Runners that are alike in all engines with kernels: they call methods of the engine alone."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.base import EngineRunner


class Input(EngineRunner):
    """Nothing: the net puts the values in place before a pass."""

    integers = True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""


class Arithmetic(EngineRunner):
    """A sum or a product of blobs of one shape."""

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether no bottom is repeated along an axis."""
        return not layer.broadcasts


class Add(Arithmetic):
    """A sum, two blobs at a time."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the sum."""
        y = tops[0].data
        if len(bottoms) == 1:
            self.engine.copy(bottoms[0].data, y)
        else:
            self.engine.add_up([b.data for b in bottoms], y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                self.engine.copy(tops[0].diff, bottom.diff)


class Multiply(Arithmetic):
    """A product, two blobs at a time."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the product."""
        self._product([b.data for b in bottoms], tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx_i = dy times the product of the others."""
        for i, bottom in enumerate(bottoms):
            if bottom.diff is not None:
                others = [b.data for j, b in enumerate(bottoms) if j != i]
                self._product([tops[0].diff, *others], bottom.diff)

    def _product(self, factors: list[Array], out: Array) -> None:
        if len(factors) == 1:
            self.engine.copy(factors[0], out)
        product = factors[0]
        for factor in factors[1:]:
            self.engine.multiply(product, factor, out)
            product = out


class Reshape(EngineRunner):
    """A copy."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        self.engine.copy(bottoms[0].data.reshape(-1), tops[0].data.reshape(-1))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff back."""
        if bottoms[0].diff is not None:
            self.engine.copy(tops[0].diff.reshape(-1), bottoms[0].diff.reshape(-1))
