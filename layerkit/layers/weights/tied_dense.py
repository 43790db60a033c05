"""TiedDense: a fully connected layer with the transposed weight of another."""

from __future__ import annotations

from typing import Unpack

from layerkit.backends.base import Array
from layerkit.blob import Parameter
from layerkit.initializers import Init
from layerkit.layer import Layer
from layerkit.layers.elementwise.neuron import Activation
from layerkit.layers.weights.dense import Dense
from layerkit.settings import Tops
from layerkit.settings.tuning import Lender, Tuning


class TiedDense(Dense):
    """Fully connected layer y = a(x W^T + b), where W is the weight of another Dense layer.

    It is the decoder of an autoencoder whose encoder is that layer.  W belongs to the other
    layer, which initialises, regularises and freezes it; both layers add to its gradient.

    Shapes: bottom (n, ...), flattened to (n, units of the other layer); top (n, inputs of the other
    layer).

    Args:
        to: name of the other layer, a Dense layer.
        neuron: activation a, by name ("relu", "tanh", ...); None for a linear layer.
        bias: initialiser of b, default 0; None for a layer without b.

    Parameters: bias (inputs of the other layer,), and those of the activation.

    Raises:
        NetError: no such Dense layer, or a bottom with another number of elements than it has
            units.

    Source: Vincent et al., "Stacked denoising autoencoders" (2010), "tied weights".
    """

    decided = (*Layer.decided, "to", "units", "neuron", "bias_init")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        to: Lender,
        neuron: Activation | None = None,
        bias: Init | None = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, bottom, units=1, neuron=neuron, bias=bias, tops=tops, **common)
        self.to = to

    def after(self) -> list[str]:
        """Name the other layer, whose inputs are this one's units."""
        return [self.to]

    def _weight(self, inputs: int) -> Parameter:
        w = self.used("weight", self.to)
        if len(w.shape) != 2:
            self.fail(
                f"to: the weight of layer {self.to!r} must have two axes, as that of a Dense layer "
                f"has, got shape {w.shape}"
            )
        self.units, units = w.shape
        if inputs != units:
            self.fail(
                f"its bottom {self.bottoms[0]!r} has {inputs} numbers for each example, but layer "
                f"{self.to!r}, whose weight it transposes, has {units} units"
            )
        return w

    def matrix(self, w: Array) -> Array:
        """Return the transpose."""
        return w.T

    def _differentiate_weight(self, x: Array, d: Array) -> None:
        self.backend.gemm(d.T, x, out=self.w.diff)
