"""Pose: orientation, size and position of an object, as four standard normal numbers."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.layer import Layer, Shape
from layerkit.settings import Number, Positive, Tops, Whole

LATENTS = 4  # numbers of a full pose: angle, size, x, y
WIDEST = 3.0  # the largest |u| that a measurement gives
NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)

Side = Annotated[int, Whole(least=3)]
Turns = Annotated[float, Number(above=0, most=1)]


class PoseLayer(Layer):
    """Base class of layers with a pose: numbers u that are N(0, 1) under the prior.

    The pose moves a canonical picture, in which an object lies along the x axis in the middle, to
    where the object is seen.  In pixels from the middle, x to the right and y down,

        seen = s R(angle) canonical + shift
        angle = 2 pi turns (Phi(u0) - 1/2), from the x axis towards the y axis
        s = exp(size_spread u1)
        shift = shift_spread (u2, u3)

    with Phi the normal distribution function, so that all angles are equally likely under the
    prior.  A pose may have only the first few of these numbers; the others are then 0.

    Args:
        side: side of the square pictures, in pixels.
        turns: fraction of a full turn that the angle spans, default 1; 1/2 is for objects whose
            two ends look alike.
        size_spread: standard deviation of log size.
        shift_spread: standard deviation of the position along either axis, in pixels.
    """

    decided = (*Layer.decided, "side")

    def __init__(
        self,
        name: str,
        bottoms: list[str],
        side: Side,
        turns: Turns,
        size_spread: Positive,
        shift_spread: Positive,
        tops: Tops | None,
    ):
        super().__init__(name, bottoms, tops)
        self.side, self.span = side, 2 * math.pi * turns
        self.size_spread, self.shift_spread = size_spread, shift_spread

    def check_picture(self, shape: Shape) -> None:
        """Fail unless an example of this shape has as many pixels as a picture."""
        if math.prod(shape) != self.side**2:
            self.fail(f"expected pictures of {self.side} x {self.side} pixels (side), got {shape}")


def normal_density(xp: Any, u: Array) -> Array:
    """Return the standard normal density at u."""
    return xp.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)


def normal_cdf(xp: Any, u: Array) -> Array:
    """Return Phi(u) for float64 u (n,), to rounding, by Gauss-Legendre quadrature over 0..u.

    The functions of CuPy and SciPy are in other modules than xp.
    """
    half = 0.5 * xp.clip(u, -8, 8)
    nodes, weights = xp.asarray(NODES), xp.asarray(WEIGHTS)
    return 0.5 + half * (weights * normal_density(xp, half[:, None] * (1 + nodes))).sum(axis=1)


def normal_quantile(xp: Any, p: Array) -> Array:
    """Return u with Phi(u) = p for float64 p (n,), clipped to -WIDEST..WIDEST.

    Newton's method starts from Tukey's lambda distribution, which is close to the normal there.
    """
    p = xp.clip(p, 1e-4, 1 - 1e-4)
    u = (p**0.1349 - (1 - p) ** 0.1349) / 0.1975
    for _ in range(4):
        u = u + (p - normal_cdf(xp, u)) / normal_density(xp, u)
    return xp.clip(u, -WIDEST, WIDEST)
