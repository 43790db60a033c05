"""Convolution and Deconvolution; see windows.h."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, or_nothing, straight
from layerkit.layers.elementwise.neuron import Neuron
from layerkit.layers.pictures.windows import pictures


class Windowed(KernelRunner):
    """Convolution and Deconvolution, example by example."""

    transposed: ClassVar[bool] = False

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.recordable = not isinstance(straight(layer.neuron)[1], Neuron)
        self.geometry = np.array([*layer.windows.numbers, layer.groups], np.int64)

    def settings(self) -> tuple[Any, ...]:
        """Return the activation, and which parameters get a gradient."""
        layer = self.layer
        return *straight(layer.neuron), layer.w.trainable, bool(layer.b and layer.b.trainable)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x * W + b), or its transpose."""
        layer, y = self.layer, tops[0].data
        slope, neuron = straight(layer.neuron)
        self.kernels.windowed_forward(
            pictures(bottoms[0].data),
            layer.matrix(layer.w.data),
            layer.b.data if layer.b else NOTHING,
            slope,
            pictures(y),
            self.geometry,
            self.transposed,
        )
        if neuron:
            neuron.enter(layer.xp, pictures(y), layer.inner)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, y, d = self.layer, tops[0].data, tops[0].diff
        slope, neuron = straight(layer.neuron)
        before = layer.before.data if layer.neuron else d
        if neuron:
            neuron.leave(layer.xp, pictures(y), layer.inner, pictures(d), before)
            d = before
        w, b = layer.w, layer.b
        self.kernels.windowed_backward(
            pictures(bottoms[0].data),
            pictures(y),
            d,
            slope,
            before,
            layer.matrix(w.data),
            layer.matrix(w.diff) if w.trainable else NOTHING,
            b.diff if b and b.trainable else NOTHING,
            or_nothing(bottoms[0].diff),
            self.geometry,
            self.transposed,
        )


class Deconvolution(Windowed):
    """The transpose of a Convolution."""

    transposed = True
