"""Tanh: the hyperbolic tangent."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class Tanh(Neuron):
    """Activation y = tanh(x)."""

    neuron_name = "tanh"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = tanh(x)."""
        xp.tanh(x, out=y)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * (1 - y^2)."""
        xp.multiply(dy, 1 - y * y, out=dx)
