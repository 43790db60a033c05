"""LeakyReLU: a rectifier with a small slope below zero."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron
from layerkit.settings import Positive, Tops


class LeakyReLU(Neuron):
    """Activation y = x for x > 0, else slope * x (Maas et al., 2013).

    Args:
        slope: dy/dx for negative x, default 0.01; positive, so that y has the sign of x.
    """

    neuron_name = "leaky_relu"

    def __init__(self, name: str, bottom: str, *, slope: Positive = 0.01, tops: Tops | None = None):
        super().__init__(name, bottom, tops=tops)
        self.slope = slope

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x for x > 0, else slope * x."""
        y[...] = xp.where(x > 0, x, self.slope * x)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else slope * dy."""
        dx[...] = xp.where(y > 0, dy, self.slope * dy)
