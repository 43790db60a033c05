"""Light: the picture of a galaxy before the PSF, as its Fourier transform in a frame of its own."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gamma, kv

from layerkit.backends.base import Array

LEAST, MOST = -0.8, 3.5  # of the Spergel index


class Light(Protocol):
    """A family of galaxies of unit flux and unit half-light radius, indexed by latents.

    Attributes:
        names: one for each latent.
        mean, deviation: those of the latents' Gaussian prior.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def transform(
        self, xp: Any, latents: Array, u: Array, v: Array
    ) -> tuple[Array, Array, Array, list[Array]]:
        """Return the Fourier transform at angular frequencies and its derivatives.

        Args:
            xp: the array module.
            latents: shape (s, number of latents).
            u, v: frequencies along the major and the minor axis, shape (s, ...).

        Returns:
            The transform, shape (s, ...), its derivatives with respect to u and v, and one with
            respect to each latent.
        """

    def within(self, latents: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Return the share of a galaxy's light within r half-light radii.

        Args:
            latents: shape (s, number of latents).
            r: shape (s,).
        """


class Spergel:
    """Profiles from the cuspy (index -0.85) over the exponential disk (0.5) to nearly Gaussian.

    With k the frequency and c the half-light radius of the index nu in scale lengths,

    transform(k) = [1 + (k / c)^2]^-(1 + nu).

    A closed form for all frequencies, unlike Sersic's profile, to which it is close: nu = 0.5 is
    Sersic index 1 exactly, and nu = -0.6 is near Sersic index 4.  The latent t in R gives
    nu = LEAST + (MOST - LEAST) / (1 + exp(-t)).

    Source: Spergel (2010), "Analytical galaxy profiles for photometric and lensing analysis".
    """

    names: tuple[str, ...] = ("index",)
    mean: tuple[float, ...] = (-0.9,)
    deviation: tuple[float, ...] = (1.0,)

    def index(self, latents: Array) -> Array:
        """Return the Spergel index of the latent t."""
        return LEAST + (MOST - LEAST) / (1 + np.exp(-latents))

    def transform(
        self, xp: Any, latents: Array, u: Array, v: Array
    ) -> tuple[Array, Array, Array, list[Array]]:
        """Return the transform and its derivatives; see Light."""
        gate = 1 / (1 + xp.exp(-latents[:, 0]))
        nu = LEAST + (MOST - LEAST) * gate
        c, slope = (xp.asarray(f) for f in _half_light(nu.get() if hasattr(nu, "get") else nu))
        nu, c, slope, gate = (a.reshape(-1, *[1] * (u.ndim - 1)) for a in (nu, c, slope, gate))
        squared = (u * u + v * v) / (c * c)
        log = xp.log1p(squared)
        value = xp.exp(-(1 + nu) * log)
        inner = -(1 + nu) * value / (1 + squared)  # d value / d squared
        by_nu = -log * value - 2 * inner * squared * slope / c
        return (
            value,
            2 * inner * u / (c * c),
            2 * inner * v / (c * c),
            [by_nu * (MOST - LEAST) * gate * (1 - gate)],
        )

    def within(self, latents: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Return the share of the light within r half-light radii; see Light."""
        nu = self.index(latents[:, 0])
        return 1 - _outside(_half_light(nu)[0] * r, nu)


def _outside(x: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Return the share of the light outside x scale lengths."""
    return 2 * (1 + nu) * (x / 2) ** (nu + 1) * kv(nu + 1, x) / gamma(nu + 2)


def _half_light(nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the half-light radius in scale lengths, and its derivative by the index."""
    spline, derivative = _splines()
    return spline(nu), derivative(nu)


@functools.cache
def _splines() -> tuple[Any, Any]:
    """Tabulate the radii with half of the light outside."""
    grid = np.linspace(LEAST - 0.01, MOST + 0.01, 160)
    radii = [brentq(lambda x, nu=nu: _outside(x, nu) - 0.5, 1e-6, 30.0) for nu in grid]
    spline = CubicSpline(grid, radii)
    return spline, spline.derivative()
