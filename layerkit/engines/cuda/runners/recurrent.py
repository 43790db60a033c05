"""LSTM and GRU: products by cuBLAS, and one kernel for the rest of a step."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import KernelRunner


class Recurrent(KernelRunner):
    """A layer with a state that goes through steps; defines `advance` and `retreat`."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.product = layer.backend.gemm

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go through the steps."""
        self.layer.go(bottoms, tops, self)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go back through the steps, and compute all gradients."""
        self.layer.go_back(bottoms, tops, self)

    def at(self, buffer: Blob, step: int) -> Any:
        """Return the part of a buffer that belongs to a step, or None before the first."""
        return self.layer.by_step(buffer)[step] if step >= 0 else None

    @staticmethod
    def parts(dh: Array, dy: Array | None) -> tuple[Any, ...]:
        """Return both parts of d loss / d h, and how far apart the rows of the second are."""
        return dh, dy, 0 if dy is None else dy.strides[0] // dy.itemsize


class LSTM(Recurrent):
    """A state and a memory that gates write, keep and read."""

    def advance(self, step: int, product: Array | None) -> None:
        """Compute i, f, g and o, and c and h of them."""
        layer, state = self.layer, self.at(self.layer.states, step)
        self.each(
            "recurrent",
            "lstm_advance",
            state.size,
            layer.units,
            float(layer.forget),
            layer.b.data,
            product,
            self.at(layer.values, step),
            self.at(layer.memories, step - 1),
            self.at(layer.memories, step),
            state,
        )

    def retreat(self, step: int, dh: Array, dy: Array | None) -> None:
        """Compute the slopes of a step; see the layer's own."""
        layer = self.layer
        self.each(
            "recurrent",
            "lstm_retreat",
            dh.size,
            layer.units,
            step == layer.steps - 1,
            self.at(layer.values, step),
            self.at(layer.memories, step - 1),
            self.at(layer.memories, step),
            *self.parts(dh, dy),
            layer.memory_carried.data,
            self.at(layer.slopes, step),
        )


class GRU(Recurrent):
    """A state that one gate resets and another updates."""

    def advance(self, step: int, product: Array | None) -> None:
        """Compute r, z and m, and h of them."""
        layer, state = self.layer, self.at(self.layer.states, step)
        self.each(
            "recurrent",
            "gru_advance",
            state.size,
            layer.units,
            layer.b.data,
            product,
            self.at(layer.values, step),
            self.at(layer.recalled, step),
            self.at(layer.states, step - 1),
            state,
        )

    def retreat(self, step: int, dh: Array, dy: Array | None) -> None:
        """Compute the slopes of a step; see the layer's own."""
        layer = self.layer
        self.each(
            "recurrent",
            "gru_retreat",
            dh.size,
            layer.units,
            self.at(layer.values, step),
            self.at(layer.recalled, step),
            self.at(layer.states, step - 1),
            *self.parts(dh, dy),
            self.at(layer.slopes, step),
            self.at(layer.through, step),
        )
