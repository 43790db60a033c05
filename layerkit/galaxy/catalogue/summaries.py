"""Physical summaries of galaxies, measured on what the model makes of them.

A reconstruction has no noise and fills no gap with guesswork of its own, so its shape can be
measured where that of the picture cannot; draws from q(z | x) say how uncertain that makes it.
Reconstructions are measured in linear light, in the pixels of the original picture, and with the
blur of that picture: nothing is deconvolved.
"""

from __future__ import annotations

import math

import numpy as np

from layerkit.galaxy.evaluation.morphology import BORDER, MIN_SIDE, NO_SHAPE, describe
from layerkit.galaxy.images.crop.crop import Cut
from layerkit.galaxy.images.crop.scaling import unstretch

FAINTEST = 0.01  # of the peak, from which light above the sky belongs to the galaxy
HALF_TURN = 180.0

# name -> unit, description
SUMMARIES = {
    "half_light_radius": ("pix", "radius of the circle with half of the light, original pixels"),
    "axis_ratio": ("", "minor over major axis"),
    "position_angle": ("deg", "of the major axis, from up, anticlockwise as displayed, 0 to 180"),
    "concentration": ("", "5 log10(r80 / r20)"),
    "asymmetry": ("", "share of the light that a half turn moves"),
    "gini": ("", "0 if all pixels are equally bright, 1 if one has all the light"),
    "m20": ("", "log10 of the second moment of the brightest 20% of the light over that of all"),
}


def summarise(image: np.ndarray, cut: Cut, row_order: str) -> np.ndarray:
    """Measure a reconstruction: the values of SUMMARIES, NaN where there is no galaxy.

    Args:
        image: (size, size) in 0..1.
        cut: the square that the galaxy was cut from, and the stretch of its values.
        row_order: "top" or "bottom", where the first row is displayed.
    """
    if image.shape[0] < MIN_SIDE or not np.isfinite(image).all():
        return np.array(NO_SHAPE)
    light = unstretch(image, np.array([cut.sky, cut.spread, cut.white]))
    border = np.ones(light.shape, bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    light -= np.median(light[border])
    shape = describe(light, max(FAINTEST * float(light.max()), np.finfo(np.float64).tiny))
    # From the axis of columns towards that of rows, which runs down or up on a display.
    upwards = shape.angle if row_order == "bottom" else -shape.angle
    return np.array(
        [
            shape.half_light_radius * cut.side / image.shape[0],
            shape.axis_ratio,
            (upwards - 90) % HALF_TURN,
            *shape[3:],
        ]
    )


def spread(values: np.ndarray) -> np.ndarray:
    """Compute standard deviations of draws, (summaries,); those of angles wrap around.

    The standard deviation of directions of which each stands for its opposite, too, is half of
    sqrt(-2 ln R), R being the mean length of their doubled angles' directions, and at most
    180 / sqrt(12), that of an axis that could be any.

    Args:
        values: (draws, summaries), in the order of SUMMARIES; draws without a galaxy are left out.

    Returns:
        NaN where fewer than two draws have a value.

    Source: Mardia and Jupp, Directional statistics (2000), sections 2.3.1 and 1.1.
    """
    found = np.full(values.shape[1], math.nan)
    for k, name in enumerate(SUMMARIES):
        own = values[np.isfinite(values[:, k]), k]
        if len(own) < 2:
            continue
        if name == "position_angle":
            length = float(np.abs(np.exp(2j * np.radians(own)).mean()))
            sd = 0.5 * math.degrees(math.sqrt(max(0.0, -2 * math.log(max(length, 1e-300)))))
            found[k] = min(sd, HALF_TURN / math.sqrt(12))
        else:
            found[k] = own.std(ddof=1)
    return found
