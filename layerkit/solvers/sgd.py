"""Stochastic gradient descent with momentum, plain and Nesterov's."""

from __future__ import annotations

from typing import Annotated

from layerkit.backends.base import Array
from layerkit.backends.kernels import update_kernel, view
from layerkit.net import Net
from layerkit.settings import Number, Positive
from layerkit.solvers.rates import Rate
from layerkit.solvers.solver import Solver, flush_denormals, smallest_normal


class SGD(Solver):
    """v = momentum * v + g; w = w - rate * v.

    Velocities below the smallest normal number become zero; see `flush_denormals`.

    Args:
        momentum: in [0, 1), default 0.9.
    """

    histories = ("velocity",)

    def __init__(
        self, net: Net, rate: Rate = 0.01,
        momentum: Annotated[float, Number(least=0, below=1)] = 0.9, clip: Positive | None = None,
    ):
        super().__init__(net, rate, clip)
        self.momentum = momentum

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """One step down the velocity."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        flush_denormals(self.net.xp, velocity)
        w -= rate * velocity

    # With kernels.

    def update_cuda(self) -> str:
        """The same for one element."""
        return CUDA

    def update_kernel(self) -> int:
        """The same in one pass over the arrays."""
        return _momentum(self.net.dtype)

    def constants(self, rate: float) -> tuple[float, ...]:
        """Momentum, and what the gradient and the velocity are multiplied by in the step."""
        return self.momentum, 0.0, rate, 0.0, 0.0, 0.0, 0.0, smallest_normal(self.net.dtype)


class Nesterov(SGD):
    """v = momentum * v + g; w = w - rate * (g + momentum * v): Nesterov's accelerated gradient.

    In the form of Sutskever et al. (2013) that needs the gradient only where the parameters are.
    """

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """One step down the gradient and the velocity to come."""
        velocity = history["velocity"]
        velocity *= self.momentum
        velocity += g
        flush_denormals(self.net.xp, velocity)
        w -= rate * (g + self.momentum * velocity)

    # With kernels.

    def update_cuda(self) -> str:
        """The same for one element."""
        return CUDA

    def update_kernel(self) -> int:
        """The same in one pass over the arrays."""
        return _momentum(self.net.dtype)

    def constants(self, rate: float) -> tuple[float, ...]:
        """The gradient has a part in the step."""
        tiny = smallest_normal(self.net.dtype)
        return self.momentum, rate, rate * self.momentum, 0.0, 0.0, 0.0, 0.0, tiny


@update_kernel
def _momentum(size, w, g, velocity, _, constants):
    w, g, velocity, c = view(w, size), view(g, size), view(velocity, size), view(constants, 8)
    number = w.dtype.type
    momentum, of_g, of_velocity = number(c[0]), number(c[1]), number(c[2])
    tiny, zero = number(c[7]), number(0)
    for i in range(size):
        gradient = g[i]  # read before anything is written, so that the loop vectorises
        new = momentum * velocity[i] + gradient
        new = zero if abs(new) < tiny else new
        w[i], velocity[i] = w[i] - (of_g * gradient + of_velocity * new), new


# CUDA.

CUDA = r"""
__device__ inline void update(real g, real* w, real* first, real*, const double* constants)
{
    real velocity = (real)constants[0] * *first + g;
    if (fabs(velocity) < (real)constants[7]) velocity = 0;
    *first = velocity;
    *w -= (real)constants[1] * g + (real)constants[2] * velocity;
}
"""
