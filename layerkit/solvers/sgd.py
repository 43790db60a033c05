"""Stochastic gradient descent with momentum, plain and Nesterov's."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.net import Net
from layerkit.solvers.rates import RatePolicy
from layerkit.solvers.solver import Solver


class SGD(Solver):
    """v = momentum * v + g; w = w - rate * v.

    Args:
        momentum: in [0, 1), default 0.9.
    """

    histories = ("velocity",)

    def __init__(
        self, net: Net, rate: float | RatePolicy = 0.01, momentum: float = 0.9,
        clip: float | None = None,
    ):
        super().__init__(net, rate, clip)
        self.momentum = momentum

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """One step down the velocity."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        w -= rate * velocity


class Nesterov(SGD):
    """v = momentum * v + g; w = w - rate * (g + momentum * v): Nesterov's accelerated gradient.

    In the form of Sutskever et al. (2013) that needs the gradient only where the parameters are.
    """

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """One step down the gradient and the velocity to come."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        w -= rate * (g + self.momentum * velocity)
