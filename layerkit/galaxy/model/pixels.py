"""Pixels: the distribution of an image's pixels given z, and its noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm, t

from layerkit.data.arrays import data_of, hidden, numbers
from layerkit.errors import NetError, brief
from layerkit.galaxy.model.population.noise import PixelNoise
from layerkit.galaxy.model.roles import Roles
from layerkit.layers.likelihoods.reconstruction import Reconstruction
from layerkit.net import Net
from layerkit.system.memory import in_words, memory


class Pixels(NamedTuple):
    """Moments of the pixels of n images.

    Attributes:
        mean, variance: f_mu and f_Sigma, each (n, pixels).
        skew: (n, pixels), or 0.0 if the likelihood has none; see StudentReconstruction.
    """

    mean: np.ndarray
    variance: np.ndarray
    skew: np.ndarray | float


def infer_pixels(net: Net, roles: Roles, given: dict[str, Any], sample: bool = False) -> Pixels:
    """Return the moments of pixels that follow from given blobs.

    Args:
        net: the net.
        roles: of its blobs.
        given: values of blobs by name, such as z or the image, n rows each.
        sample: draws latent layers that are not given; by default they are at their means.
    """
    mean, log_variance, *skew = (
        array.reshape(len(array), -1) for array in net.infer(roles.pixel_outputs, sample, **given)
    )
    variance = np.exp(log_variance) + roles.likelihood.floor
    return Pixels(mean, variance, skew[0] if skew else 0.0)


def decode(net: Net, roles: Roles, z: np.ndarray, rng: np.random.Generator | None = None) -> Pixels:
    """Return the moments of pixels given z, with lower latent layers h from their priors p(h | z).

    Args:
        net: the net.
        roles: of its blobs.
        z: (n, latent).
        rng: draws each h; None, the default, takes the means of p(h | z).
    """
    given = {roles.z: numbers(z, "z")}
    for h, prior in roles.priors.items():
        if prior:
            mean, log_variance = net.infer(prior, sample=False, **given)
        else:
            mean = np.zeros((len(z), *net.blobs[h].shape))
            log_variance = mean
        if rng is not None:
            mean = mean + np.exp(0.5 * log_variance) * rng.standard_normal(mean.shape)
        given[h] = mean
    return infer_pixels(net, roles, given)


def check_room(count: int, pixels: int, dtype: np.dtype) -> None:
    """Refuse to draw so many images that memory cannot hold them.

    Raises:
        NetError: they would take more than is free.
    """
    needed = count * pixels * 4 * dtype.itemsize  # means, variances, noise
    if needed > (free := memory()):
        raise NetError(
            f"sample: {count} images would take {in_words(needed)}, and {in_words(free)} are "
            "free; draw them in parts, each with its own seed"
        )


def generator(seed: Any, function: str) -> np.random.Generator:
    """Return a generator of random numbers.

    Raises:
        NetError: a seed that is none; the message names the function that was called.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise NetError(f"{function}: seed: {error}, got {brief(seed)}") from None


def scores(
    likelihood: Reconstruction, residual: np.ndarray, skew: np.ndarray | float = 0.0
) -> np.ndarray:
    """Turn standardised residuals into standard normal scores, Phi^-1(F(residual)).

    If the distribution F is right, 68.3%, 95.4% and 99.7% of the scores lie within 1, 2 and 3,
    whatever the shape of F.  The scores of a Gaussian likelihood are the residuals themselves.

    Args:
        likelihood: the layer that scores pixels.
        residual: (pixel - mean) / standard deviation, any shape.
        skew: of each pixel, default 0; see StudentReconstruction.
    """
    if np.isinf(likelihood.degrees):
        return residual
    u, g, upper = _unskewed(likelihood, np.asarray(residual, "float64"), skew)
    tail = 2 * t.sf(np.abs(u) * _spread(likelihood), likelihood.degrees) / (1 + g * g)
    return np.where(upper, norm.isf(g * g * tail), norm.ppf(np.minimum(tail, 1)))


def scores_of(likelihood: Reconstruction, images: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Return the scores of images, of their shape, given the moments of their pixels.

    Those of a masked array are masked as it is.
    """
    seen = data_of(images).reshape(len(images), -1)
    residual = (seen - pixels.mean) / np.sqrt(pixels.variance)
    found = scores(likelihood, residual, pixels.skew).reshape(images.shape)
    mask = hidden(images)
    return found if mask is None else np.ma.array(found, mask=mask)


def residuals(
    likelihood: Reconstruction, scores: np.ndarray, skew: np.ndarray | float = 0.0
) -> np.ndarray:
    """Turn standard normal scores into standardised residuals, F^-1(Phi(score)); undo `scores`.

    Args:
        likelihood: the layer that scores pixels.
        scores: any shape.
        skew: of each pixel, default 0; see StudentReconstruction.
    """
    if np.isinf(likelihood.degrees):
        return scores
    g = np.exp(np.asarray(skew, "float64"))
    # Each side of the mode uses its own tail, as 1 - F would round to 0 far out.
    share = g * g / (1 + g * g)
    above = norm.sf(scores)
    upper = above < share
    tail = np.where(upper, above / share, norm.cdf(scores) / (1 - share))
    size = t.isf(0.5 * tail, likelihood.degrees) / _spread(likelihood)
    centre, sd = _moments(likelihood, g)
    return (np.where(upper, size * g, -size / g) - centre) / sd


def draw(
    likelihood: Reconstruction,
    rng: np.random.Generator,
    mean: np.ndarray,
    variance: np.ndarray,
    skew: np.ndarray | float = 0.0,
    noise: PixelNoise | None = None,
) -> np.ndarray:
    """Draw pixels from their distribution.

    Args:
        likelihood: the layer that scores pixels.
        rng: draws the noise.
        mean, variance: of each pixel, (n, pixels), or any shape without `noise`.
        skew: of each pixel, default 0; see StudentReconstruction.
        noise: how the noise of pixels goes together; None, the default, draws each by itself.

    Returns:
        An array of the shape of `mean`.
    """
    if noise is not None:
        found = residuals(likelihood, noise.draw(len(mean), rng), skew)
        return mean + found * np.sqrt(variance)
    if np.isinf(likelihood.degrees):
        return mean + rng.normal(0, np.sqrt(variance))
    g = np.exp(np.asarray(skew, "float64"))
    size = np.abs(rng.standard_t(likelihood.degrees, mean.shape)) / _spread(likelihood)
    upper = rng.random(mean.shape) < g * g / (1 + g * g)
    centre, sd = _moments(likelihood, g)
    return mean + (np.where(upper, size * g, -size / g) - centre) / sd * np.sqrt(variance)


def _spread(likelihood: Reconstruction) -> float:
    """Return the standard deviation of Student's t."""
    return float(np.sqrt(likelihood.degrees / (likelihood.degrees - 2)))


def _moments(likelihood: Reconstruction, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of Student's t after skewing."""
    c = likelihood.fold
    return c * (g - 1 / g), np.sqrt((1 - c * c) * (g * g + 1 / (g * g)) + 2 * c * c - 1)


def _unskewed(
    likelihood: Reconstruction, residual: np.ndarray, skew: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Undo the skew of residuals.

    Returns:
        The residuals without skew, g = exp(skew), and a mask of those above the mode.
    """
    g = np.exp(np.asarray(skew, "float64"))
    centre, sd = _moments(likelihood, g)
    y = centre + sd * residual
    return np.where(y >= 0, y / g, y * g), g, y >= 0
