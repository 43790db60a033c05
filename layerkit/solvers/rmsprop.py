"""RMSProp: steps scaled by the running size of the gradient."""

from __future__ import annotations

import math

from layerkit.backends.base import Array
from layerkit.net import Net
from layerkit.settings import Count, Positive
from layerkit.solvers.adam import Decay
from layerkit.solvers.rates import Rate
from layerkit.solvers.solver import Average, Solver
from layerkit.solvers.updates.histories import flush_denormals
from layerkit.solvers.updates.updating import check_epsilon


class RMSProp(Solver):
    """RMSProp, by the mean square of the gradient g.

        s = decay s + (1 - decay) g^2,   w = w - rate * g / (sqrt(s) + epsilon)

    Squares below the smallest normal number become zero; see `flush_denormals`.

    Args:
        rate: learning rate, default 1e-3.
        decay: of the mean square s, in [0, 1), default 0.9.
        epsilon: above 0, default 1e-8.
        clip, accumulate, ema: see Solver.

    Source: Tieleman and Hinton (2012), lecture 6.5, as Caffe has it.
    """

    histories = ("square",)
    formula = "rmsprop"

    def __init__(
        self,
        net: Net,
        rate: Rate = 1e-3,
        decay: Decay = 0.9,
        epsilon: Positive = 1e-8,
        clip: Positive | None = None,
        accumulate: Count = 1,
        ema: Average | None = None,
    ):
        super().__init__(net, rate, clip, accumulate, ema)
        self.decay, self.epsilon = decay, epsilon

    def check(self) -> None:
        """Fail unless epsilon prevents 0 / 0, of a weight without gradient.

        Raises:
            NetError: the net's dtype rounds epsilon to 0.
        """
        check_epsilon(self, self.epsilon)

    def largest_gradient(self) -> float:
        """Return the square root of the largest number: the history holds squares."""
        return math.sqrt(super().largest_gradient())

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Make one step along the gradient, divided by its running root mean square."""
        square = history["square"]
        square *= self.decay
        square += (1 - self.decay) * (g * g)
        flush_denormals(self.net.xp, square)
        root = self.net.xp.sqrt(square)
        root += self.epsilon
        w -= rate * g / root

    # With kernels.

    def constants(self, rate: float, decay: float = 1.0) -> tuple[float, ...]:
        """Return the decay, what is left of it, the rate and epsilon."""
        return self.decay, 1 - self.decay, rate, self.epsilon, 0.0, 0.0, 0.0, 0.0
