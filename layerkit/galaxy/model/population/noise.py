"""PixelNoise: how the noise of a picture's pixels goes together.

The likelihood scores each pixel by itself, as the paper's does.  But pixels of pictures share what
the model does not explain: noise that resampling, compression and the telescope have spread over
neighbours, and structure of the galaxy itself, such as arms.  Drawn one by one, pixels would be
grainier than those of any picture.

The scores of pixels, Phi^-1(F((x - f_mu) / sd)), are standard normal if F, the likelihood's
distribution, is right (see `pixels.scores`).  So scores are drawn from a Gaussian with the
correlations that the scores of real pictures have, and turned back into pixels by F^-1(Phi(score)):
each pixel alone is distributed as before (a Gaussian copula).  Their covariance is that of some
principal components, for the galaxy's structure, and of a stationary field for all the rest.

Source: Nelsen, "An introduction to copulas" (2006), section 2; Dietrich and Newsam (1997) for the
field, drawn on a torus by the fast Fourier transform.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.arrays import numbers
from layerkit.display import short_repr
from layerkit.errors import NetError, brief

COMPONENTS = 40
REACH = 20  # pixels, beyond which the field counts as independent
MOST_SHARED = 0.95  # of a pixel's variance, by the components


class PixelNoise:
    """Standard normal scores of pixels that go together.

    Args:
        components: (K, side, side), each by its standard deviation; K may be 0.
        covariance: of the field, (reach, reach), at distances 0, 1, ... pixels down and across,
            relative to that at distance 0; alike in all directions.

    Raises:
        NetError: other shapes, or numbers that are not finite.
    """

    __repr__ = short_repr

    def __init__(self, components: Any, covariance: Any):
        c = np.asarray(numbers(components, "noise: components"), "float64")
        lags = np.asarray(numbers(covariance, "noise: covariance"), "float64")
        if c.ndim != 3 or c.shape[1] != c.shape[2] or not c.shape[1]:
            raise NetError(f"noise: expected components (K, side, side), got shape {c.shape}")
        side = c.shape[1]
        if lags.ndim != 2 or not 0 < len(lags) == lags.shape[1] <= side:
            raise NetError(
                f"noise: expected a covariance (reach, reach) with a reach of 1 to {side}, got "
                f"shape {lags.shape}"
            )
        if not (np.isfinite(c).all() and np.isfinite(lags).all() and lags[0, 0] > 0):
            raise NetError("noise: all numbers must be finite, and the variance above 0")
        self.components, self.covariance = c, lags / lags[0, 0]
        self.side, self.pixels = side, side * side
        # What the components leave of each pixel's variance is the field's.
        shared = (c**2).sum(axis=0)
        self._own = np.sqrt(1 - np.minimum(shared, MOST_SHARED))
        self._shared = c * np.sqrt(np.minimum(1, MOST_SHARED / np.maximum(shared, 1e-12)))
        self._amplitude = _amplitude(self.covariance, side)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw standard normal scores, (count, pixels)."""
        k, side = len(self.components), self.side
        found = rng.standard_normal((count, k)) @ self._shared.reshape(k, -1)
        torus = 2 * side
        for i in range(count):
            white = np.fft.rfft2(rng.standard_normal((torus, torus)))
            field = np.fft.irfft2(white * self._amplitude, (torus, torus))[:side, :side]
            found[i] += (self._own * field).ravel()
        return found


def check_noise(noise: Any, pixels: int) -> PixelNoise | None:
    """Return the noise given for images of so many pixels, or None for independent noise.

    Raises:
        NetError: it is something else, or for images of another size.
    """
    if noise is not None and not isinstance(noise, PixelNoise):
        raise NetError(
            f"noise: expected a PixelNoise, or None for independent noise, got {brief(noise)}"
        )
    if noise is not None and noise.pixels != pixels:
        raise NetError(
            f"noise: it is for images of {noise.pixels} pixels, and the model's have {pixels}; "
            "learn it from this model with fit_population"
        )
    return noise


def _amplitude(covariance: np.ndarray, side: int) -> np.ndarray:
    """Return the amplitude of each wave of a field of variance 1 on a torus of twice the side."""
    torus, reach = np.zeros((2 * side, 2 * side)), len(covariance)
    distance = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    near = np.flatnonzero(distance < reach)
    torus[np.ix_(near, near)] = covariance[np.ix_(distance[near], distance[near])]
    power = np.fft.rfft2(torus).real.clip(0)
    whole = np.fft.irfft2(power, torus.shape)[0, 0]  # the variance, which clipping may change
    return np.sqrt(power / whole)


def learn_noise(
    scores: np.ndarray, components: int = COMPONENTS, reach: int = REACH, seed: int = 0
) -> PixelNoise:
    """Learn how the noise of pixels goes together.

    Args:
        scores: (n, side, side), standard normal each by itself; see `GalaxyModel.scores`.  The sky
            has no up and no left, so each is turned and mirrored at random.
        components: principal components, fewer where there are few scores.
        reach: pixels, at most the side.
        seed: of turning, and of the search for components.
    """
    from sklearn.utils.extmath import randomized_svd  # slow to import

    rng = np.random.default_rng(seed)
    count, side, _ = scores.shape
    turned = np.stack(
        [np.rot90(s[:, :: rng.choice([-1, 1])], rng.integers(4)) for s in scores]
    ).reshape(count, -1)
    components = min(components, count // 10)
    found = np.zeros((0, side, side))
    if components:
        _, size, axes = randomized_svd(turned, components, random_state=seed)
        turned -= (turned @ axes.T) @ axes
        found = (axes * size[:, None] / math.sqrt(count)).reshape(-1, side, side)
    reach = min(reach, side)
    # Covariances at all distances at once: correlation is a product of Fourier transforms.
    power = np.zeros((2 * side, side + 1))
    for image in turned:
        power += np.abs(np.fft.rfft2(image.reshape(side, side), (2 * side, 2 * side))) ** 2
    lags = np.fft.irfft2(power, (2 * side, 2 * side))
    overlap = side - np.arange(reach)
    lags = 0.5 * (lags[:reach, :reach] + lags[-np.arange(reach) % len(lags)][:, :reach])
    lags = 0.5 * (lags + lags.T) / (count * np.outer(overlap, overlap))
    fade = np.cos(0.5 * np.pi * np.arange(reach) / reach) ** 2
    return PixelNoise(found, lags * np.outer(fade, fade))
