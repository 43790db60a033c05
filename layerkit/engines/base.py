"""Runners: a layer together with the code that runs it; the engine of array code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from layerkit.blob import Blob
from layerkit.layer import Layer

Call = Callable[[list[Blob], list[Blob]], None]


class Runner:
    """A layer that is run by its own array code; the base of those run by faster code.

    Attributes:
        layer: the layer, set up and with its parameters in place.
        forward_backward: for a loss: does what `forward` and then `backward` do, given a `top.diff`
            that is known beforehand.  None where they are called one after the other.
        backward_update: does what `backward` does, but changes the parameters at once, by a solver's
            update, instead of filling their diffs.  None where the solver does so afterwards.
    """

    forward_backward: Any = None
    backward_update: Any = None

    def __init__(self, layer: Layer):
        self.layer = layer

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the data of every top; see Layer.forward."""
        self.layer.forward(bottoms, tops)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs of parameters and bottoms; see Layer.backward."""
        self.layer.backward(bottoms, tops)


class ArrayEngine:
    """The engine that runs layers by their array code, on NumPy or CuPy: the specification."""

    name: ClassVar[str] = "array"
    threads: ClassVar[int] = 1

    def bind(self, layer: Layer) -> Runner:
        """Return the layer with its array code."""
        return Runner(layer)
