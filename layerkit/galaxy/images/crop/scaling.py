"""From physical units to numbers in 0..1, and back.

With sky the level and spread the standard deviation of the empty sky, a pixel v becomes

    asinh((v - black) / (10 spread)) / asinh((white - black) / (10 spread)),  black = sky - 3 spread

cut to 0..1.  Faint wings stay linear and cores are compressed, as in the colour pictures of Lupton
et al. (2004, PASP 116, 133), and nearly all of the noise is above black.  A spread of 0 stands for
linear pictures: v = white times the number.

Where most of the sky is one value, as where a survey cut all below it away, the spread is that of
neighbouring pixels in the faint half of the galaxy, or of the specks left in the sky if they have
more, or a thousandth of the galaxy's brightest hundredth: it has a spread where it has no noise.
"""

from __future__ import annotations

import numpy as np

from layerkit.errors import DataError
from layerkit.settings import fitting

BLACK = 3.0  # spreads below the sky
SOFTENING = 10.0  # spreads at which linear turns to logarithmic


def stretch(image: np.ndarray, sky: float, spread: float, white: float) -> np.ndarray:
    """Bring physical units to 0..1 (see above), as float32; pixels that are not finite stay so."""
    units = (np.asarray(image, np.float64) - sky) / spread
    return stretch_units(units, (white - sky) / spread)


def stretch_units(units: np.ndarray, white: float) -> np.ndarray:
    """`stretch` of pixels that are in spreads above the sky already; and so is `white`."""
    scaled = np.arcsinh((np.asarray(units, np.float64) + BLACK) / SOFTENING)
    return np.clip(scaled / np.arcsinh((white + BLACK) / SOFTENING), 0, 1).astype(np.float32)


@fitting(DataError)
def unstretch(images: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """Turn prepared galaxies back to the units of their pictures, but for what was cut to 0 or 1.

    Args:
        images: (n, height, width) numbers in 0..1, or (height, width).
        stretches: sky, spread, white of each, (n, 3) or (3,); see `GalaxySet.stretches`.

    Returns:
        float64 of the shape of `images`.

    Raises:
        DataError: other shapes, or no numbers.
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
    unit = np.where(linear, 1, spread)
    black = sky - BLACK * unit
    top = np.arcsinh((white - black) / (SOFTENING * unit))
    curved = black + SOFTENING * unit * np.sinh(images * np.where(linear, 0, top))
    return np.where(linear, white * images, curved)
