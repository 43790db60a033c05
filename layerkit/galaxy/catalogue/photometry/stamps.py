"""Stamps: the pixels of a galaxy's square as they were, with their noise and those to leave out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.galaxy.images.crop.crop import Cut, cut_out, pixels_in, sky_in
from layerkit.galaxy.images.crop.missing import filled
from layerkit.galaxy.images.crop.slope import level_in
from layerkit.galaxy.images.decode.blank import no_data
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.decode.pixels import as_picture
from layerkit.galaxy.images.prepare.prepare import Cutter


@dataclass(frozen=True)
class Stamp:
    """The pixels of a picture in physical units that the square of a galaxy touches.

    Attributes:
        light: above the sky, (height, width), 0 where missing.
        missing: mask of the pixels without data.
        variance: of the noise, (height, width), or None where the file does not say.
        y0, x0, side: top left corner and side of the square, in pixels of the stamp.
        sky: level that was subtracted.
        noise: standard deviation of the sky, as measured in the square's corners.
        gain: electrons per unit of the picture; NaN if unknown.
        zero_point: magnitude of a flux of 1; NaN if unknown.
    """

    light: np.ndarray
    missing: np.ndarray
    variance: np.ndarray | None
    y0: float
    x0: float
    side: float
    sky: float
    noise: float
    gain: float = math.nan
    zero_point: float = math.nan


def stamp_of(picture: np.ndarray, cut: Cut, planes: Planes) -> Stamp:
    """Take the pixels of a square out of a picture.

    Args:
        picture: (height, width), in physical units.
        cut: the square.
        planes: what is known of the pixels.
    """
    image = as_picture(picture).astype(np.float64)
    image, missing = filled(image, no_data(image))
    inside = pixels_in(cut, image.shape)
    part, gone = image[inside], missing[inside].copy()
    variance = None if planes.variance is None else planes.variance[inside]
    if planes.missing is not None:
        gone |= planes.missing[inside]
    if variance is not None:
        gone |= ~np.isfinite(variance)
    part = level_in(part, gone)
    sky = sky_in(part, gone)
    return Stamp(
        light=np.where(gone, 0.0, part - sky.level),
        missing=gone,
        variance=variance,
        y0=cut.y0 - inside[0].start,
        x0=cut.x0 - inside[1].start,
        side=cut.side,
        sky=sky.level,
        noise=sky.noise,
        gain=planes.gain,
        zero_point=planes.zero_point,
    )


class Stamper(Cutter):
    """The job of cutting out picture `i`, and its stamp if it is in physical units."""

    def cut(self, i: int) -> tuple[np.ndarray, Cut, Stamp | None]:
        """Return the galaxy, its square, and its stamp; None for pictures of light in 0..1.

        Raises:
            UnusableImageError: see `cut_out`.
        """
        picture, planes = self.read(i)
        image, cut = cut_out(picture, self.settings, self.white)
        physical = _is_physical(picture)
        return image, cut, stamp_of(picture, cut, planes) if physical else None


def _is_physical(picture: Any) -> bool:
    return as_picture(picture).dtype == np.float64
