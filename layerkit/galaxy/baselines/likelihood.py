"""How well images are reproduced: squared errors, and the likelihood that all baselines get.

The baselines see exactly the images that the model sees, and each gets independent Gaussian pixels
with one variance per image, fitted to that very image.  No baseline with one shared variance can
do better.

Reference: Regier, McAuliffe and Prabhat, "A deep generative model for astronomical images of
galaxies" (2015).
"""

from __future__ import annotations

import math

import numpy as np

from layerkit.data.arrays import data_of, hidden
from layerkit.errors import DataError
from layerkit.layers.likelihoods.reconstruction import QUANTISATION_VARIANCE


def squared_errors(images: np.ndarray, models: np.ndarray) -> np.ndarray:
    """Compute the sum over pixels of (model - image)^2 for each image, (N,), float64.

    Args:
        images, models: (N, ...), of one shape; masked pixels of images count for nothing.

    Raises:
        DataError: the shapes differ.
    """
    if images.shape != models.shape:
        raise DataError(f"images {images.shape} and models {models.shape} differ in shape")
    difference = np.subtract(models, data_of(images), dtype=np.float64).reshape(len(images), -1)
    if (mask := hidden(images)) is not None:
        difference[mask.reshape(difference.shape)] = 0
    return np.einsum("np,np->n", difference, difference)


def counted(images: np.ndarray) -> np.ndarray | int:
    """Return how many pixels of each image count, (N,); one number if all do."""
    mask = hidden(images)
    if mask is None:
        return math.prod(images.shape[1:])
    return np.count_nonzero(~mask.reshape(len(images), -1), axis=1)


def shared_variance_log_likelihood(
    images: np.ndarray, models: np.ndarray, floor: float = QUANTISATION_VARIANCE
) -> np.ndarray:
    """Compute each image's log likelihood under independent Gaussian pixels with one variance.

    ``-P/2 log(2 pi v) - S / (2 v)`` in nats, with S the squared error over the P pixels of the
    image that count and v its maximum-likelihood variance, S / P, or the floor if that is larger.
    The variance is fitted image by image, as the paper fits it with the six parameters.

    Args:
        images, models: (N, ...), of one shape; masked pixels of images count for nothing.
        floor: the least variance allowed, in the square of the images' unit; the default, which
            GaussianReconstruction has too, is for 8-bit images scaled to 0..1.  A comparison with a
            model, in whatever unit, takes that of its likelihood.

    Returns:
        (N,), float64.

    Raises:
        DataError: the shapes differ.
    """
    errors, pixels = squared_errors(images, models), counted(images)
    variance = np.maximum(errors / pixels, max(floor, np.finfo(np.float64).tiny))
    return -0.5 * (pixels * np.log(2 * np.pi * variance) + errors / variance)
