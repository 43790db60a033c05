"""Stochastic gradient descent with momentum, plain and Nesterov's."""

from __future__ import annotations

from typing import Annotated

from layerkit.backends.base import Array
from layerkit.net import Net
from layerkit.settings import Count, Number, Positive
from layerkit.solvers.rates import Rate
from layerkit.solvers.solver import Average, Solver
from layerkit.solvers.updates.histories import flush_denormals


class SGD(Solver):
    """Gradient descent with momentum: v = momentum * v + g; w = w - rate * v.

    Velocities below the smallest normal number become zero; see `flush_denormals`.

    Args:
        rate: learning rate, default 0.01.
        momentum: decay of the velocity v, in [0, 1), default 0.9.
        clip, accumulate, ema: see Solver.

    Source: Caffe's SGD, but for its rate, which Caffe has inside the velocity: equal while the rate
    is constant.
    """

    histories = ("velocity",)
    formula = "momentum"

    def __init__(
        self,
        net: Net,
        rate: Rate = 0.01,
        momentum: Annotated[float, Number(least=0, below=1)] = 0.9,
        clip: Positive | None = None,
        accumulate: Count = 1,
        ema: Average | None = None,
    ):
        super().__init__(net, rate, clip, accumulate, ema)
        self.momentum = momentum

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Make one step along the velocity."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        flush_denormals(self.net.xp, velocity)
        w -= rate * velocity

    # With kernels.

    def constants(self, rate: float, decay: float = 1.0) -> tuple[float, ...]:
        """Return the momentum, and the factors of the gradient and the velocity in the step."""
        return self.momentum, 0.0, rate, 0.0, 0.0, 0.0, 0.0, 0.0


class Nesterov(SGD):
    """Nesterov's accelerated gradient: v = momentum * v + g; w = w - rate * (g + momentum * v).

    In this form the gradient is needed only at the parameters.

    Args:
        rate: learning rate, default 0.01.
        momentum: decay of the velocity v, in [0, 1), default 0.9.
        clip, accumulate, ema: see Solver.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning"
    (2013), section 2; Mocha's Nesterov.
    """

    formula = "momentum"

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Make one step along the gradient and the velocity to come."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        flush_denormals(self.net.xp, velocity)
        w -= rate * (g + self.momentum * velocity)

    # With kernels.

    def constants(self, rate: float, decay: float = 1.0) -> tuple[float, ...]:
        """Return the momentum, and the factors of the gradient and the velocity in the step."""
        return self.momentum, rate, rate * self.momentum, 0.0, 0.0, 0.0, 0.0, 0.0
