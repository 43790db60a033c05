"""Convolution and Deconvolution; see windows.h."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, or_nothing, straight
from layerkit.layers.neuron import Neuron


class Windowed(KernelRunner):
    """Convolution and Deconvolution, example by example."""

    transposed: ClassVar[bool] = False

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.recordable = not isinstance(straight(layer.neuron)[1], Neuron)
        self.geometry = np.array([layer.kernel, layer.stride, layer.pad, *layer.grid], np.int64)

    def settings(self) -> tuple[Any, ...]:
        """Return the activation, and which parameters get a gradient."""
        layer = self.layer
        return *straight(layer.neuron), layer.w.trainable, layer.b.trainable

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x * W + b), or its transpose."""
        layer, y = self.layer, tops[0].data
        slope, neuron = straight(layer.neuron)
        self.kernels.windowed_forward(
            bottoms[0].data,
            self._matrix(layer.w.data),
            layer.b.data,
            slope,
            y,
            self.geometry,
            self.transposed,
        )
        if neuron:
            neuron.enter(layer.xp, y, layer.inner)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, y, d = self.layer, tops[0].data, tops[0].diff
        slope, neuron = straight(layer.neuron)
        before = layer.before.data if layer.neuron else d
        if neuron:
            neuron.leave(layer.xp, y, layer.inner, d, before)
            d = before
        w, b = layer.w, layer.b
        self.kernels.windowed_backward(
            bottoms[0].data,
            y,
            d,
            slope,
            before,
            self._matrix(w.data),
            self._matrix(w.diff) if w.trainable else NOTHING,
            b.diff if b.trainable else NOTHING,
            or_nothing(bottoms[0].diff),
            self.geometry,
            self.transposed,
        )

    def _matrix(self, weights: Array) -> Array:
        """Return W as the matrix that windows are multiplied by."""
        return weights.reshape(self.layer.window, -1)


class Deconvolution(Windowed):
    """The transpose of a Convolution."""

    transposed = True

    def _matrix(self, weights: Array) -> Array:
        return weights.reshape(len(weights), -1)
