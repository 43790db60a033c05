"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from typing import Annotated

from layerkit.backends.base import Array
from layerkit.net import Net
from layerkit.settings import Count, NotNegative, Number, Positive
from layerkit.solvers.rates import Rate
from layerkit.solvers.solver import Average, Solver
from layerkit.solvers.updates.histories import flush_denormals
from layerkit.solvers.updates.updating import check_epsilon

Decay = Annotated[float, Number(least=0, below=1)]


class Adam(Solver):
    """Adam, by two moments of the gradient g.

        m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
        w = w - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    after t updates.

    Moments below the smallest normal number become zero; see `flush_denormals`.

    Args:
        rate: learning rate, default 1e-3.
        beta1, beta2: decay of the two moments, in [0, 1), default 0.9 and 0.999.
        epsilon: above 0, default 1e-8.
        clip, accumulate, ema: see Solver.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1.
    """

    histories = ("m", "v")
    formula = "adam"

    def __init__(
        self,
        net: Net,
        rate: Rate = 1e-3,
        beta1: Decay = 0.9,
        beta2: Decay = 0.999,
        epsilon: Positive = 1e-8,
        clip: Positive | None = None,
        accumulate: Count = 1,
        ema: Average | None = None,
    ):
        super().__init__(net, rate, clip, accumulate, ema)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def check(self) -> None:
        """Fail unless epsilon prevents 0 / 0: a weight without gradient has moments of 0.

        Raises:
            NetError: the net's dtype rounds epsilon to 0.
        """
        check_epsilon(self, self.epsilon)

    def largest_gradient(self) -> float:
        """Return the square root of the largest number: the second moment holds squares."""
        return math.sqrt(super().largest_gradient())

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Make one step of Adam, with the bias corrections folded into the rate and the root."""
        m, v = history["m"], history["v"]
        m *= self.beta1
        m += (1 - self.beta1) * g
        flush_denormals(self.net.xp, m)
        v *= self.beta2
        v += (1 - self.beta2) * (g * g)
        flush_denormals(self.net.xp, v)
        step = rate / (1 - self.beta1**self.iteration)
        root = self.net.xp.sqrt(v)
        root *= 1 / math.sqrt(1 - self.beta2**self.iteration)
        root += self.epsilon
        w -= step * m / root

    # With kernels.

    def constants(self, rate: float, decay: float = 1.0) -> tuple[float, ...]:
        """Return the numbers of the step that do not depend on the element."""
        return (
            self.beta1,
            1 - self.beta1,
            self.beta2,
            1 - self.beta2,
            rate / (1 - self.beta1**self.iteration),
            1 / math.sqrt(1 - self.beta2**self.iteration),
            self.epsilon,
            1 - rate * decay * self.weight_decay,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay.

    After the moments of Adam, of a gradient without any decay in it,

        w = w - rate * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay * w)

    Unlike `l2` of a layer, the decay is not scaled by the moments, and is no part of the objective.

    Args:
        rate, beta1, beta2, epsilon: see Adam.
        weight_decay: of all parameters, at least 0, default 0.01.
        clip, accumulate, ema: see Solver.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.
    """

    def __init__(
        self,
        net: Net,
        rate: Rate = 1e-3,
        beta1: Decay = 0.9,
        beta2: Decay = 0.999,
        epsilon: Positive = 1e-8,
        weight_decay: NotNegative = 0.01,
        clip: Positive | None = None,
        accumulate: Count = 1,
        ema: Average | None = None,
    ):
        super().__init__(net, rate, beta1, beta2, epsilon, clip, accumulate, ema)
        self.weight_decay = weight_decay
