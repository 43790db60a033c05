"""Softplus: a smooth rectifier."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class Softplus(Neuron):
    """Activation y = log(1 + exp(x)), in a form that cannot overflow (Dugas et al., 2001)."""

    neuron_name = "softplus"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = max(x, 0) + log1p(exp(-|x|))."""
        xp.add(xp.maximum(x, 0), xp.log1p(xp.exp(-xp.abs(x))), out=y)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * sigmoid(x), with sigmoid(x) = 1 - exp(-y)."""
        xp.multiply(dy, -xp.expm1(-y), out=dx)
