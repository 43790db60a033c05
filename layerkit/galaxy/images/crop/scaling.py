"""Scaling of physical units to 0..1, and back.

Let `sky` be the level and `spread` the standard deviation of the empty sky.  A pixel v becomes

    asinh((v - black) / (10 spread)) / asinh((white - black) / (10 spread)),  black = sky - 3 spread

clipped to 0..1.  Faint wings stay linear and bright cores are compressed, as in the colour pictures
of Lupton et al. (2004, PASP 116, 133); nearly all of the noise is above black.  A spread of 0
stands for linear scaling: v = sky + (white - sky) times the result.

If most of the sky has one value, as in pictures that are cut off below a level, the spread is the
largest of three: the scatter between neighbouring pixels in the faint half of the galaxy, the
scatter of the faint pixels that are left in the sky, and a thousandth of the brightest percentile.
"""

from __future__ import annotations

import numpy as np

from layerkit.errors import DataError
from layerkit.settings import fitting

BLACK = 3.0  # spreads below the sky
SOFTENING = 10.0  # spreads above black where the curve turns from linear to logarithmic


def stretch(image: np.ndarray, sky: float, spread: float, white: float) -> np.ndarray:
    """Scale a picture in physical units to 0..1, as at the top of this module.

    Args:
        image: of any shape.
        sky, spread, white: in the units of `image`.

    Returns:
        float32 of the shape of `image`; NaN stays NaN.
    """
    units = (np.asarray(image, np.float64) - sky) / spread
    return stretch_units(units, (white - sky) / spread)


def stretch_units(units: np.ndarray, white: float) -> np.ndarray:
    """Scale pixels that are given in spreads above the sky, as `white` is; see `stretch`."""
    scaled = np.arcsinh((np.asarray(units, np.float64) + BLACK) / SOFTENING)
    return np.clip(scaled / np.arcsinh((white + BLACK) / SOFTENING), 0, 1).astype(np.float32)


@fitting(DataError)
def unstretch(images: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """Convert prepared galaxies back to the units of their pictures; clipped pixels stay clipped.

    Args:
        images: (n, height, width), as prepared, or (height, width).
        stretches: sky, spread and white of each, (n, 3) or (3,); see `GalaxySet.stretches`.

    Returns:
        float64 of the shape of `images`.

    Raises:
        DataError: the shapes do not match, or the values are not numbers.
    """
    try:
        images, stretches = np.asarray(images, np.float64), np.asarray(stretches, np.float64)
    except (TypeError, ValueError):
        raise DataError("unstretch: images and stretches must be arrays of numbers") from None
    if images.ndim not in (2, 3) or stretches.shape != (*images.shape[:-2], 3):
        raise DataError(
            "unstretch: expected images (n, height, width) and stretches (n, 3), or those of one"
            f" without n, got {images.shape} and {stretches.shape}"
        )
    sky, spread, white = np.moveaxis(stretches, -1, 0)[..., None, None]
    linear = spread == 0
    if linear.all():
        return sky + (white - sky) * images
    unit = np.where(linear, 1, spread)
    black = sky - BLACK * unit
    top = np.arcsinh((white - black) / (SOFTENING * unit))
    curved = black + SOFTENING * unit * np.sinh(images * np.where(linear, 0, top))
    return np.where(linear, sky + (white - sky) * images, curved)
