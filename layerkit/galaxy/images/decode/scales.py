"""Scales: the size of an image's pixels on the sky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.wcs import WCS


def scales_at(wcs: WCS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return arcseconds per pixel, the root of a pixel's area on the sky; NaN off the sky.

    In projections such as CAR and MER the area depends on the place.

    Args:
        wcs: of the image, its celestial part.
        x, y: columns and rows of pixels, the centre of the first at 0, (n,) each.
    """

    def direction(dx: float, dy: float) -> np.ndarray:
        sky = np.radians(wcs.all_pix2world(x + dx, y + dy, 0))
        longitude, latitude = sky if wcs.wcs.lng == 0 else sky[::-1]
        level = np.cos(latitude)
        return np.stack([level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], 1)

    with np.errstate(all="ignore"):
        sides = direction(0.5, 0) - direction(-0.5, 0), direction(0, 0.5) - direction(0, -0.5)
        area = np.linalg.norm(np.cross(*sides), axis=1)
    return np.where(area > 0, np.degrees(np.sqrt(area)) * 3600, np.nan)
