"""ELU: the exponential linear unit."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron
from layerkit.settings import Positive, Tops


class ELU(Neuron):
    """Activation y = x for x > 0, else alpha * (exp(x) - 1) (Clevert et al., 2016).

    Args:
        alpha: minus the limit for very negative x, default 1; positive.
    """

    neuron_name = "elu"

    def __init__(self, name: str, bottom: str, *, alpha: Positive = 1.0, tops: Tops | None = None):
        super().__init__(name, bottom, tops=tops)
        self.alpha = alpha

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x for x > 0, else alpha * expm1(x)."""
        y[...] = xp.where(x > 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else dy * (y + alpha)."""
        dx[...] = xp.where(y > 0, dy, dy * (y + self.alpha))
