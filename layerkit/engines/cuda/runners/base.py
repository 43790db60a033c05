"""Runners on a GPU: layers that are run by kernels, and by array code."""

from __future__ import annotations

from typing import Any

from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.activations import formula
from layerkit.engines.base import EngineRunner, Runner
from layerkit.layer import overrides
from layerkit.layers.elementwise.neuron import Neuron


class ArrayRunner(Runner):
    """A layer that is run by its array code, on CuPy."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        neuron = getattr(layer, "neuron", None)
        self.recordable = all(map(_replayable, [layer, *([neuron] if neuron else [])]))


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


def _replayable(layer: Any) -> bool:
    """Tell whether the class that defines a layer's passes says that they can be replayed."""
    passes = ("forward", "backward", "activate", "differentiate")
    defined = [name for name in passes if hasattr(layer, name)]
    return layer.recordable and overrides(type(layer), "recordable", defined)


Entering = tuple[list[Array], float, dict[str, str]]


class Activated(KernelRunner):
    """A layer that has an activation, or is one."""

    def activation(self) -> tuple[float, dict[str, str]]:
        """Return the setting of the activation, and the macro that names it."""
        neuron = self.layer if isinstance(self.layer, Neuron) else self.layer.neuron
        name, setting = formula(neuron)
        return setting, {"ACTIVATION": name}

    def entering(self, tops: list[Array], inner: list[Blob | None]) -> Entering:
        """Return where kernels that end in the activation write, and which one they end in.

        If the derivative is computed from the activation's input, they write that, end in none, and
        `activate` follows.
        """
        if inner[0] is None:
            return tops, *self.activation()
        return [blob.data for blob in inner if blob is not None], 0.0, {"ACTIVATION": "Linear"}

    def activate(self, top: Array, inner: Blob | None) -> None:
        """Compute y = a(x) where `entering` has left that to do."""
        if inner is not None:
            setting, defines = self.activation()
            self.each("activation", "activate", top.size, setting, inner.data, top, **defines)

    @staticmethod
    def known(top: Blob, inner: Blob | None) -> Array:
        """Return what the activation's derivative is computed from: y, or the activation's x."""
        return top.data if inner is None else inner.data
