"""Galaxies of a model as profiles of GalSim, to be convolved, sheared and drawn by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from layerkit.data.arrays import numbers
from layerkit.errors import NetError
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.settings import Number, Whole, accept, fitting

if TYPE_CHECKING:
    from galsim import InterpolatedImage

BORDER = 3  # pixels along the edge, whose median is the sky


@fitting(NetError)
def to_galsim(
    model: GalaxyModel,
    z: np.ndarray | Sequence[float],
    flux: float = 1.0,
    *,
    pixel_scale: float = 1.0,
    fade: int | None = None,
) -> InterpolatedImage | list[InterpolatedImage]:
    """Make a GalSim profile of f_mu(z), without sky and without noise.

        z = model.sample_z(100, seed=1)
        profiles = galaxy.to_galsim(model, z, flux=1000, pixel_scale=0.2)
        stamp = galsim.Convolve(profiles[0], psf).drawImage(scale=0.2)

    The profile is that of the pictures that the model was trained on: it holds their blur, and
    their scale of intensities.  A model of pictures that were stretched for display, or of JPEGs,
    has profiles that are flatter in the core than the galaxies' light.  Sizes are those of prepared
    galaxies, which were all cropped to one size in terms of their own.

    Args:
        model: the model.
        z: (latent,), or (n, latent) for a list of profiles.
        flux: of the whole profile, in any unit; its sign, and zero, are as given.
        pixel_scale: side of a pixel, in arcseconds or any other unit; default 1.
        fade: pixels along the edge over which what is left of light goes to zero, lest profiles end
            at a step; default a twelfth of the side.

    Returns:
        One profile, or a list of them.

    Raises:
        NetError: GalSim is not installed, z is of another shape, or a galaxy without light.
    """
    checked_model(model, "to_galsim")
    flux = accept(Number(), flux, "flux", "to_galsim")
    scale = accept(Number(above=0), pixel_scale, "pixel_scale", "to_galsim")
    side = math.isqrt(model.pixels)
    if side * side != model.pixels:
        raise NetError(f"to_galsim: the model's images have {model.pixels} pixels, not a square")
    faded = _faded(side // 12 if fade is None else fade, side)
    values = numbers(z, "to_galsim: z")
    if values.ndim not in (1, 2) or values.shape[-1] != model.latent:
        raise NetError(
            f"to_galsim: expected z of shape ({model.latent},) or (n, {model.latent}), got "
            f"{values.shape}"
        )
    try:
        import galsim
    except ImportError:
        raise NetError("to_galsim needs the package galsim: pip install galsim") from None

    light = model.decode(values.reshape(-1, model.latent))[0].reshape(-1, side, side)
    profiles = []
    for k, image in enumerate(light.astype("float64")):
        edge = np.ones((side, side), bool)
        edge[BORDER:-BORDER, BORDER:-BORDER] = False
        image = (image - np.median(image[edge])) * faded
        if not image.sum() > 0:
            raise NetError(f"to_galsim: z number {k} makes an image without light above its sky")
        # GalSim's FITS habit: the first row is the lowest.
        stamp = galsim.Image(np.ascontiguousarray(image), scale=scale)
        profiles.append(galsim.InterpolatedImage(stamp, flux=flux))
    return profiles if values.ndim == 2 else profiles[0]


def _faded(pixels: int, side: int) -> np.ndarray:
    """Return the weights (side, side) that let the edge of an image fade."""
    pixels = accept(Whole(0, max(side // 4, 0)), pixels, "fade", "to_galsim")
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    ramp = np.sin(0.5 * np.pi * np.clip(distance / max(pixels, 1e-9), 0, 1)) ** 2
    return np.outer(ramp, ramp)
