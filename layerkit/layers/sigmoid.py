"""Sigmoid: the logistic function."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class Sigmoid(Neuron):
    """Activation y = 1 / (1 + exp(-x)), in a form that cannot overflow."""

    neuron_name = "sigmoid"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = (1 + tanh(x / 2)) / 2, which equals 1 / (1 + exp(-x))."""
        xp.tanh(0.5 * x, out=y)
        y += 1
        y *= 0.5

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * y * (1 - y)."""
        xp.multiply(dy, y * (1 - y), out=dx)
