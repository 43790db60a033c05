"""LSTM and GRU; see recurrent.h."""

from __future__ import annotations

from typing import Any

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, or_nothing


class Recurrent(KernelRunner):
    """A layer with a state that goes through steps."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.gru = isinstance(layer, L.GRU)

    def settings(self) -> tuple[Any, ...]:
        """Return what is added in the forget gate, and which parameters get a gradient."""
        layer = self.layer
        trainable = tuple(p.trainable for p in layer.parameters.values())
        return getattr(layer, "forget", 0.0), layer.reverse, *trainable

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go through the steps."""
        layer = self.layer
        self.kernels.recurrent_forward(
            self.gru,
            getattr(layer, "forget", 0.0),
            layer.reverse,
            bottoms[0].data,
            *(p.data for p in layer.parameters.values()),
            *self._passage(),
            tops[0].data,
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go back through the steps, and compute all gradients."""
        layer = self.layer
        inputs, *passage = self._passage()
        self.kernels.recurrent_backward(
            self.gru,
            layer.reverse,
            inputs,
            layer.w.data,
            layer.u.data,
            *passage,
            tops[0].diff,
            layer.by_step(layer.slopes),
            layer.recurrent_slopes(),
            *(_diff(p) for p in layer.parameters.values()),
            or_nothing(bottoms[0].diff),
        )

    def _passage(self) -> list[Array]:
        """Return what both passes use, (steps, n, size)."""
        layer = self.layer
        other = layer.recalled if self.gru else layer.memories
        return [*map(layer.by_step, (layer.inputs, layer.values, layer.states, other))]


def _diff(parameter: Parameter) -> Array:
    return parameter.diff if parameter.trainable else NOTHING
