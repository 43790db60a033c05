"""The noise of a pixel around its mean, as a model's likelihood layer says it is distributed."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, t

from layerkit.layers.reconstruction import Reconstruction


def scores(
    likelihood: Reconstruction, residual: np.ndarray, skew: np.ndarray | float = 0.0
) -> np.ndarray:
    """Standardised residuals as those of a normal distribution: the inverse of Phi(F(residual)).

    With |score| below 1, 2 or 3 lie 68.3%, 95.4% and 99.7% of the pixels if the distribution is the
    right one, whatever its shape.  Of a Gaussian likelihood they are the residuals themselves.

    Args:
        likelihood: the layer that scores pixels.
        residual: (pixel - mean) / standard deviation.
        skew: of each pixel; see StudentReconstruction.
    """
    if np.isinf(likelihood.degrees):
        return residual
    u, g, upper = _unskewed(likelihood, np.asarray(residual, "float64"), skew)
    tail = 2 * t.sf(np.abs(u) * _spread(likelihood), likelihood.degrees) / (1 + g * g)
    return np.where(upper, norm.isf(g * g * tail), norm.ppf(np.minimum(tail, 1)))


def draw(
    likelihood: Reconstruction,
    rng: np.random.Generator,
    mean: np.ndarray,
    variance: np.ndarray,
    skew: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Pixels with this noise around their means, of the shape of `mean`."""
    if np.isinf(likelihood.degrees):
        return mean + rng.normal(0, np.sqrt(variance))
    g = np.exp(np.asarray(skew, "float64"))
    size = np.abs(rng.standard_t(likelihood.degrees, mean.shape)) / _spread(likelihood)
    upper = rng.random(mean.shape) < g * g / (1 + g * g)
    centre, sd = _moments(likelihood, g)
    return mean + (np.where(upper, size * g, -size / g) - centre) / sd * np.sqrt(variance)


def _spread(likelihood: Reconstruction) -> float:
    """The standard deviation of Student's t."""
    return float(np.sqrt(likelihood.degrees / (likelihood.degrees - 2)))


def _moments(likelihood: Reconstruction, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the distribution made skew."""
    c = likelihood.fold
    return c * (g - 1 / g), np.sqrt((1 - c * c) * (g * g + 1 / (g * g)) + 2 * c * c - 1)


def _unskewed(
    likelihood: Reconstruction, residual: np.ndarray, skew: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals without skew, g, and where they lie above the mode."""
    g = np.exp(np.asarray(skew, "float64"))
    centre, sd = _moments(likelihood, g)
    y = centre + sd * residual
    return np.where(y >= 0, y / g, y * g), g, y >= 0
