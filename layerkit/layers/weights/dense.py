"""Dense: a fully connected layer."""

from __future__ import annotations

import math
from typing import Unpack

from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.elementwise.neuron import Activation, Neuron
from layerkit.settings import Count, NotNegative, Tops
from layerkit.settings.tuning import Tuning


class Dense(Layer):
    """Fully connected layer y = a(x W + b): the inner product layer of Caffe and Mocha.

    Shapes: bottom (n, ...), flattened to (n, inputs); top (n, units).

    Args:
        units: number of outputs.
        neuron: activation a, by name ("relu", "tanh", ...) or with settings of its own
            (`L.LeakyReLU.of(slope=0.1)`); None for a linear layer.
        weight: initialiser of W, by default "he" before a rectifier (ReLU, leaky ReLU, GELU, SiLU)
            and "xavier" otherwise.
        bias: initialiser of b, default 0; None for a layer without b.
        l1, l2: regularisation of W (not of b); see Parameter.

    Parameters: weight (inputs, units), bias (units,), and those of the activation (`slope` of
    "prelu", one number for each unit).

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors"
    (1986), equation 1.
    """

    recordable = True
    decided = (*Layer.decided, "units", "neuron", "weight_init", "bias_init", "l1", "l2")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        units: Count,
        neuron: Activation | None = None,
        weight: Init | None = None,
        bias: Init | None = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.units = units
        self.neuron = Neuron.named(neuron) if neuron else None
        rectifies = self.neuron is not None and self.neuron.rectifies
        self.weight_init = weight if weight is not None else "he" if rectifies else "xavier"
        self.bias_init = bias
        self.l1, self.l2 = l1, l2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W and b; return the top's shape, (units,)."""
        self.w = self._weight(math.prod(shapes[0]))
        self.b = (
            None
            if self.bias_init is None
            else self.parameter("bias", (self.units,), self.bias_init)
        )
        # x W + b, where the derivative is computed from it
        self.inner = self.neuron.room(self, (self.units,)) if self.neuron else None
        if self.neuron:
            self.before = self.buffer((self.units,))  # d loss / d (x W + b)
        return [(self.units,)]

    def _weight(self, inputs: int) -> Parameter:
        return self.parameter("weight", (inputs, self.units), self.weight_init, self.l1, self.l2)

    def matrix(self, w: Array) -> Array:
        """Return W or its diff as the matrix (inputs, units) that x is multiplied by."""
        return w

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W + b)."""
        x, y = bottoms[0].data, tops[0].data
        self.backend.gemm(x.reshape(len(x), -1), self.matrix(self.w.data), out=y)
        if self.b is not None:
            y += self.b.data
        if self.neuron:
            self.neuron.enter(self.xp, y, self.inner)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW = x^T d, db = sum of d over the batch and dx = d W^T, with d = dy * a'."""
        x, y, d = bottoms[0].data, tops[0].data, tops[0].diff
        if self.neuron:
            self.neuron.leave(self.xp, y, self.inner, d, self.before.data)
            d = self.before.data
        if self.w.trainable:
            self._differentiate_weight(x.reshape(len(x), -1), d)
        if self.b is not None and self.b.trainable:
            self.xp.sum(d, axis=0, out=self.b.diff)
        dx = bottoms[0].diff
        if dx is not None:
            self.backend.gemm(d, self.matrix(self.w.data).T, out=dx.reshape(len(x), -1))

    def _differentiate_weight(self, x: Array, d: Array) -> None:
        self.backend.gemm(x.T, d, out=self.w.diff)

    def multiplications(self) -> int:
        """Return the number of weights."""
        return self.w.size
