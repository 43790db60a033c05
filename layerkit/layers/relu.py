"""ReLU: the rectified linear unit."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class ReLU(Neuron):
    """Activation y = max(x, 0), with derivative 0 at x = 0 (Nair and Hinton, 2010)."""

    neuron_name = "relu"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = max(x, 0)."""
        xp.maximum(x, 0, out=y)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else 0."""
        xp.multiply(dy, y > 0, out=dx)
