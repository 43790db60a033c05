"""Interpolation between pixels: weights with which light at a place is shared out to those around.

Both ways are here: light is spread to pixels, and pixels are collected to a value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.backends.base import Array

REACH = 4  # pixels on either side from which slopes and curvatures are taken
TAPS = 2 * REACH + 2

# The polynomials of degree 5 that have value, slope and curvature 1 at 0, then at 1, and the other
# five of these 0: coefficients of 1, f, f^2 and so on.
HERMITE = (
    (1, 0, 0, -10, 15, -6),
    (0, 1, 0, -6, 8, -3),
    (0, 0, 0.5, -1.5, 1.5, -0.5),
    (0, 0, 0, 10, -15, 6),
    (0, 0, 0, -4, 7, -3),
    (0, 0, 0, 0.5, -1, 0.5),
)


def _polynomials() -> np.ndarray:
    """Return the coefficients of 1, f, f^2 and so on in each tap's weight, (6, TAPS)."""
    value, slope, curvature = np.zeros((3, 2 * REACH + 1))
    value[REACH] = 1
    for k in range(1, REACH + 1):
        share = math.factorial(REACH) ** 2 / math.factorial(REACH - k) / math.factorial(REACH + k)
        share *= (-1) ** (k + 1) / k
        slope[REACH + k], slope[REACH - k] = share, -share
        curvature[[REACH - k, REACH + k]] = 2 * share / k
    curvature[REACH] = -curvature.sum()
    at_ends = np.zeros((6, TAPS))
    at_ends[:3, :-1] = at_ends[3:, 1:] = value, slope, curvature
    return np.array(HERMITE).T @ at_ends


POLYNOMIALS = _polynomials()
SLOPES = np.arange(1, 6)[:, None] * POLYNOMIALS[1:]


def polynomial(xp: Any, coefficients: np.ndarray, f: Array) -> Array:
    """Return the values at f (...) of one polynomial for each tap, (..., TAPS), of f's dtype."""
    rows = xp.asarray(coefficients.astype(f.dtype))
    value = rows[-1] + xp.zeros((*f.shape, 1), f.dtype)
    for row in range(len(coefficients) - 2, -1, -1):
        value = value * f[..., None] + rows[row]
    return value


def along(axis: int, start: int, size: int) -> tuple[Any, ...]:
    """Return the index of `size` places from `start` on along an axis counted from the last."""
    return (..., slice(start, start + size), *[slice(None)] * (-1 - axis))


def spread(xp: Any, x: Array, weights: Array, axis: int) -> Array:
    """Share out each pixel of x to TAPS pixels along an axis, which gets longer by TAPS - 1.

    Args:
        xp: numpy or cupy.
        x: pictures (n, sources, bands, height, width).
        weights: (n, sources, TAPS).
        axis: -2 or -1.
    """
    size = x.shape[axis]
    shape = list(x.shape)
    shape[axis] = size + TAPS - 1
    y = xp.zeros(tuple(shape), x.dtype)
    for tap in range(TAPS):
        y[along(axis, tap, size)] += weights[:, :, tap, None, None, None] * x
    return y


def collect(xp: Any, y: Array, weights: Array, axis: int) -> Array:
    """Replace TAPS neighbours along an axis by a weighted sum: the transpose of `spread`."""
    size = y.shape[axis] - TAPS + 1
    shape = list(y.shape)
    shape[axis] = size
    x = xp.zeros(tuple(shape), y.dtype)
    for tap in range(TAPS):
        x += weights[:, :, tap, None, None, None] * y[along(axis, tap, size)]
    return x
