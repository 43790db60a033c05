"""Posteriors q(z | x): encoded from images, checked when given, and widened by a temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from layerkit.data.arrays import data_of, hidden, numbers
from layerkit.errors import DataError, NetError, brief
from layerkit.galaxy.images.crop.units import LARGEST, RANGES
from layerkit.galaxy.model.roles import Roles
from layerkit.inspection.display import short_repr
from layerkit.net import Net


class Posterior(NamedTuple):
    """q(z | x) of n images: a Gaussian with independent axes.

    Attributes:
        mean, sd: (n, latent).
    """

    mean: np.ndarray
    sd: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)


def encode(net: Net, roles: Roles, images: Any) -> Posterior:
    """Return the encoder's posterior: means g_mu(x) and standard deviations, each (n, latent)."""
    outputs = [roles.z_mean, roles.z_log_variance]
    mean, log_variance = net.infer(outputs, sample=False, **{roles.x: data_of(images)})
    return Posterior(mean.reshape(len(mean), -1), np.exp(0.5 * log_variance.reshape(len(mean), -1)))


def check_images(images: Any, pixels: int) -> Any:
    """Return images as an array of numbers, once their shape and scale fit a model.

    Args:
        images: (n, ...) with `pixels` pixels each, in any units of prepared galaxies.  An array on
            a GPU is returned as it is; the net checks its shape.  A masked array of NumPy stays one
            if any of its pixels is masked; numbers under the mask that are not finite become 0.
        pixels: number of pixels of an image.

    Raises:
        DataError: images of another shape, not finite, or of counts or bytes rather than
            intensities.
    """
    if (mask := hidden(images)) is not None:
        data = np.ma.getdata(images)
        data = np.where(mask & ~np.isfinite(data), data.dtype.type(0), data)
        return np.ma.array(check_images(data, pixels), mask=mask)
    images = data_of(images)
    if type(images).__module__.split(".")[0] not in ("numpy", "builtins"):
        return images
    images = numbers(images, "images", DataError)
    side = math.isqrt(pixels)
    shape = f"{side}, {side}" if side * side == pixels else f"{pixels}"
    expected = f"expected intensities in {RANGES}, an array of shape (n, {shape})"
    if images.ndim < 2 or math.prod(images.shape[1:]) != pixels:
        hint = ""
        if images.shape in ((side, side), (pixels,)):
            hint = "; for a single image give image[None]"
        raise DataError(f"images have shape {images.shape}; {expected}{hint}")
    if images.size:
        least, most = images.min(), images.max()  # NaN if any pixel is
        if not np.isfinite(least) or not np.isfinite(most):
            bad = ~np.isfinite(images.reshape(len(images), -1)).all(axis=1)
            raise DataError(
                f"{bad.sum()} of {len(images)} images have pixels that are not finite, the first "
                f"of them image {int(np.argmax(bad))}; {expected}"
            )
        if max(-float(least), float(most)) > LARGEST:
            raise DataError(
                f"images have intensities from {least:g} to {most:g}; {expected}, scaled as "
                "galaxy.prepare does"
            )
    return images


def check_posterior(posterior: Any, count: int, latent: int) -> Posterior:
    """Return a posterior given for `count` images, its arrays converted to numbers.

    Args:
        posterior: means and standard deviations, each (count, latent).
        count: number of images.
        latent: number of dimensions of z.

    Raises:
        DataError: something else, arrays of other shapes, or values that are negative or not
            finite.
    """
    expected = f"expected means and standard deviations of shape ({count}, {latent})"
    if not isinstance(posterior, tuple | list) or len(posterior) != 2:
        raise DataError(
            f"posterior: {expected}, as encode and refine return, got {brief(posterior)}"
        )
    mean, sd = (numbers(a, "posterior", DataError) for a in posterior)
    if mean.shape != sd.shape or mean.shape != (count, latent):
        raise DataError(f"posterior: {expected}, got {mean.shape} and {sd.shape}")
    if not np.isfinite(mean).all():
        raise DataError(f"posterior: {expected}, all finite; some means are not")
    if not (sd >= 0).all():
        raise DataError(f"posterior: {expected}; some standard deviations are NaN or below 0")
    return Posterior(mean, sd)


def check_temperature(temperature: float | Sequence[float] | np.ndarray, latent: int) -> np.ndarray:
    """Return the temperature of each axis of z, (latent,), given one for each or one for all.

    Raises:
        NetError: another shape, or a temperature that is below 1 or not finite.
    """
    try:
        found = np.array(np.broadcast_to(np.asarray(temperature, "float64"), (latent,)))
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if not (np.isfinite(found).all() and (found >= 1).all()):
        raise NetError(
            f"temperature: expected one number for each of the {latent} axes of z, or one for all, "
            f"each 1 or more, got {brief(temperature)}"
        )
    return found


def temper(posterior: Posterior, temperature: np.ndarray) -> Posterior:
    """Widen standard deviations to those of a likelihood to the power of 1 / temperature.

    The image adds 1 / s^2 - 1 to the prior's precision of 1.  The temperature t divides that:
    1 / sd^2 = 1 + (1 / s^2 - 1) / t.  An axis of which the image says nothing thus stays as it is,
    and none becomes wider than the prior.  Means do not change.

    Args:
        posterior: of n images.
        temperature: of each axis, (latent,), 1 or more.
    """
    if (temperature == 1).all():
        return posterior
    mean, sd = posterior
    added_precision = (sd.astype("float64") ** -2 - 1).clip(0)
    wider = np.maximum(sd, (1 + added_precision / temperature) ** -0.5)
    return Posterior(mean, wider.astype(sd.dtype))
