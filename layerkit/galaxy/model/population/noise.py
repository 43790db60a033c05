"""PixelNoise: noise that is correlated between the pixels of a picture.

The likelihood scores each pixel by itself, as the paper's does.  But pixels of pictures share what
the model does not explain: noise that resampling, compression and the telescope have spread over
neighbours, and structure of the galaxy itself, such as arms.  Drawn one by one, pixels would be
grainier than those of any picture.

The scores of pixels, Phi^-1(F((x - f_mu) / sd)), are standard normal if F, the likelihood's
distribution, is right (see `pixels.scores`).  So scores that go together as those of real pictures
do are drawn, and turned back into pixels by F^-1(Phi(score)), a copula.  Their parts:

    score = amplitude * (sum_k a_k component_k + sqrt(rest) * field),  a_k ~ N(0, 1)

The components are principal ones, for the structure of galaxies; the field is stationary, with one
of several covariances, as some pictures are smoother than others; the amplitude is the exp of a
Gaussian, as some pictures, or parts of them, are explained worse than others.  All three are
independent of z.  Each pixel alone has variance 1, and nearly its distribution.

Source: Nelsen, "An introduction to copulas" (2006), section 2; Dietrich and Newsam (1997) for the
field, drawn on a torus by the fast Fourier transform.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from layerkit.data.arrays import numbers
from layerkit.errors import NetError, brief
from layerkit.inspection.display import short_repr

COMPONENTS = 40
KINDS = 4  # of fields
REACH = 20  # pixels, beyond which the field counts as independent
AMPLITUDES = 12  # principal components of the log amplitude
BLOCKS = 11  # along a side, in which amplitudes are measured
MOST_SHARED = 0.95  # of a pixel's variance, by the components


class PixelNoise:
    """Standard normal scores of pixels that go together; see the top of this module.

    Args:
        components: (K, side, side), each by its standard deviation; K may be 0.
        covariances: of the kinds of fields, equally frequent, (kinds, reach, reach), at distances
            0, 1, ... pixels down and across, relative to that at distance 0; alike in all
            directions.
        amplitudes: components of the log amplitude, (A, side, side), each by its standard
            deviation; A may be 0.

    Raises:
        NetError: other shapes, or numbers that are not finite.
    """

    __repr__ = short_repr

    def __init__(self, components: Any, covariances: Any, amplitudes: Any):
        given = {"components": components, "covariances": covariances, "amplitudes": amplitudes}
        c, lags, logs = (
            np.asarray(numbers(array, f"noise: {name}"), "float64") for name, array in given.items()
        )
        if c.ndim != 3 or c.shape[1] != c.shape[2] or not c.shape[1]:
            raise NetError(f"noise: expected components (K, side, side), got shape {c.shape}")
        side = c.shape[1]
        if lags.ndim != 3 or not 0 < lags.shape[1] == lags.shape[2] <= side or not len(lags):
            raise NetError(
                f"noise: expected covariances (kinds, reach, reach) with a reach of 1 to {side}, "
                f"got shape {lags.shape}"
            )
        if logs.ndim != 3 or logs.shape[1:] != (side, side):
            raise NetError(
                f"noise: expected amplitudes (A, {side}, {side}), got shape {logs.shape}"
            )
        if not (all(np.isfinite(a).all() for a in (c, lags, logs)) and (lags[:, 0, 0] > 0).all()):
            raise NetError("noise: all numbers must be finite, and variances above 0")
        self.components, self.amplitudes = c, logs
        self.covariances = lags / lags[:, :1, :1]
        self.side, self.pixels = side, side * side
        # The field has the part of each pixel's variance that the components leave.
        shared = (c**2).sum(axis=0)
        self._own = np.sqrt(1 - np.minimum(shared, MOST_SHARED))
        self._shared = c * np.sqrt(np.minimum(1, MOST_SHARED / np.maximum(shared, 1e-12)))
        self._waves = np.stack([_waves(covariance, side) for covariance in self.covariances])

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw scores, (count, pixels)."""
        found = self._combine(self._shared, count, rng)
        kinds = rng.integers(len(self._waves), size=count)
        shape = (2 * self.side, 2 * self.side)
        for score, kind in zip(found, kinds, strict=True):
            white = np.fft.rfft2(rng.standard_normal(shape))
            field = np.fft.irfft2(white * self._waves[kind], shape)[: self.side, : self.side]
            score += (self._own * field).ravel()
        # E[exp(2 a)] of a Gaussian a is exp(2 var a): what is drawn has variance 1.
        spread = (self.amplitudes**2).sum(axis=0).ravel()
        return found * np.exp(self._combine(self.amplitudes, count, rng) - spread)

    def _combine(self, parts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw sums of components by standard normal numbers, (count, pixels)."""
        return rng.standard_normal((count, len(parts))) @ parts.reshape(len(parts), self.pixels)


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


def _waves(covariance: np.ndarray, side: int) -> np.ndarray:
    """Return the amplitude of each wave of a field of variance 1 on a torus of twice the side."""
    torus, reach = np.zeros((2 * side, 2 * side)), len(covariance)
    distance = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    near = np.flatnonzero(distance < reach)
    torus[np.ix_(near, near)] = covariance[np.ix_(distance[near], distance[near])]
    power = np.fft.rfft2(torus).real.clip(0)
    whole = np.fft.irfft2(power, torus.shape)[0, 0]  # the variance, which clipping may change
    return np.sqrt(power / whole)


def learn_noise(scores: np.ndarray, components: int = COMPONENTS, seed: int = 0) -> PixelNoise:
    """Learn how noise is correlated between pixels.

    Args:
        scores: (n, side, side), standard normal each by itself; see `GalaxyModel.scores`.  Galaxies
            have no up and no left, so each is turned and mirrored at random.
        components: principal components, fewer where there are few scores.
        seed: of turning, of the search for components, and of draws that amplitudes are compared
            with.
    """
    from sklearn.utils.extmath import randomized_svd  # slow to import

    rng = np.random.default_rng(seed)
    count, side, _ = scores.shape
    turned = np.stack(
        [np.rot90(s[:, :: rng.choice([-1, 1])], int(rng.integers(4))) for s in scores]
    ).astype("float64")
    own: np.ndarray = turned.reshape(count, -1)
    found = np.zeros((0, side, side))
    if components := min(components, count // 10):
        _, size, axes = randomized_svd(own, components, random_state=seed)
        own = own - (own @ axes.T) @ axes
        found = (axes * size[:, None] / math.sqrt(count)).reshape(-1, side, side)
    own = own.reshape(turned.shape)
    smooth = (own[:, 1:] * own[:, :-1]).mean(axis=(1, 2)) / (own**2).mean(axis=(1, 2))
    kinds = np.array_split(np.argsort(smooth), min(KINDS, count))
    lags = np.stack([_covariance(own[kind]) for kind in kinds])
    even = PixelNoise(found, lags, np.zeros((0, side, side)))
    # Finite blocks scatter by themselves, as much as those of draws of one amplitude do.
    drawn = even.draw(count, rng).reshape(turned.shape)
    excess = _log_amplitudes(turned) - _log_amplitudes(drawn)
    power, modes = np.linalg.eigh(excess)
    most = slice(-min(AMPLITUDES, len(power)), None)
    modes = modes[:, most] * np.sqrt(power[most].clip(0))
    blocks = min(BLOCKS, side)
    each = modes.T.reshape(-1, blocks, blocks)
    return PixelNoise(found, lags, zoom(each, (1, side / blocks, side / blocks), order=1))


def _covariance(fields: np.ndarray) -> np.ndarray:
    """Measure the covariance of fields (n, side, side) at distances down and across."""
    count, side, _ = fields.shape
    reach, shape = min(REACH, side), (2 * side, 2 * side)
    # At all distances at once: a correlation is a product of Fourier transforms.
    power = np.zeros((2 * side, side + 1))
    for field in fields:
        power += np.abs(np.fft.rfft2(field, shape)) ** 2
    lags = np.fft.irfft2(power, shape)
    lags = 0.5 * (lags[:reach, :reach] + lags[-np.arange(reach), :reach])  # down, and up
    overlap = side - np.arange(reach)
    lags = 0.5 * (lags + lags.T) / (count * np.outer(overlap, overlap))
    fade = np.cos(0.5 * np.pi * np.arange(reach) / reach) ** 2
    return lags * np.outer(fade, fade)


def _log_amplitudes(scores: np.ndarray) -> np.ndarray:
    """Measure the covariance of the log amplitudes of blocks of scores, over pictures."""
    side = scores.shape[1]
    edges = np.linspace(0, side, min(BLOCKS, side) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(scores**2, edges, axis=1), edges, axis=2)
    return np.cov(0.5 * np.log(sums.reshape(len(scores), -1) + 1e-12), rowvar=False)
