"""Exponential: an activation that maps any number to a positive one."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class Exponential(Neuron):
    """Activation y = exp(x): the nonlinearity that makes variances positive in the paper.

    It overflows float32 beyond x = 88.  Losses that take a log-variance and exponentiate it
    themselves (GaussianReconstruction, GaussianKL) are safer.
    """

    neuron_name = "exponential"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = exp(x)."""
        xp.exp(x, out=y)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * y."""
        xp.multiply(dy, y, out=dx)
