"""Exponential: makes a positive number of any."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.layers.neuron import Neuron


class Exponential(Neuron):
    """y = exp(x): the nonlinearity by which the paper makes variances positive.

    It overflows float32 beyond x = 88.  Losses that take a log-variance and exponentiate it
    themselves (GaussianReconstruction, GaussianKL) are safer.
    """

    neuron_name = "exponential"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """y = exp(x)."""
        xp.exp(x, out=y)

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy * y."""
        xp.multiply(dy, y, out=dx)
