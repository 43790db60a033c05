"""Runners on a GPU: layers that are run by kernels, and by array code."""

from __future__ import annotations

from typing import Any

from layerkit import layers as L
from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.engines.base import EngineRunner, Runner
from layerkit.layer import overrides
from layerkit.layers.neuron import Neuron

ACTIVATIONS: dict[type, tuple[str, str | None]] = {  # in formulas/activations.h; its setting
    L.ReLU: ("Relu", None),
    L.LeakyReLU: ("LeakyRelu", "slope"),
    L.ELU: ("Elu", "alpha"),
    L.Sigmoid: ("Sigmoid", None),
    L.Tanh: ("Tanh", None),
    L.Softplus: ("Softplus", None),
    L.Exponential: ("Exponential", None),
    type(None): ("Linear", None),
}


class ArrayRunner(Runner):
    """A layer that is run by its array code, on CuPy."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.recordable = layer.recordable and overrides(
            type(layer), "recordable", ("forward", "backward")
        )


class KernelRunner(EngineRunner):
    """A layer that is run by CUDA kernels.

    Attributes:
        launch, blocks: methods of the engine.
    """

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.launch, self.blocks = engine.launch, engine.blocks

    def zeros(self, *shape: int) -> Array:
        """Return work space of the net's dtype."""
        return self.engine.backend.zeros(shape, self.layer.run.dtype)

    def each(self, source: str, name: str, size: int, *args: Any, **defines: Any) -> None:
        """Launch a kernel with a thread for each of `size` elements, its first argument."""
        self.launch(source, name, self.blocks(size), size, *args, **defines)

    def noise(self) -> tuple[Any, ...]:
        """Return what noise depends on: seed, stream and the clock."""
        layer = self.layer
        return *philox.keys(layer.run.seed, layer.stream), self.engine.clock


class Activated(KernelRunner):
    """A layer that has an activation, or is one."""

    def activation(self) -> tuple[float, dict[str, str]]:
        """Return the setting of the activation, and the macro that names it."""
        neuron = self.layer if isinstance(self.layer, Neuron) else self.layer.neuron
        name, setting = ACTIVATIONS[type(neuron)]
        return float(getattr(neuron, setting)) if setting else 0.0, {"ACTIVATION": name}
