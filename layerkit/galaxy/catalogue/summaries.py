"""Physical summaries of galaxies, measured on what the model makes of them.

A reconstruction has no noise and fills no gap with guesswork of its own, so its shape can be
measured where that of the picture cannot; draws from q(z | x) say how uncertain that makes it.
Reconstructions are measured in linear light, in the pixels of the original picture, and with the
blur of that picture: nothing is deconvolved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from layerkit.galaxy.evaluation.morphology import MIN_SIDE, Shape, border_of, describe
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

HALF_LIGHT, ANGLE = (Shape._fields.index(name) for name in ("half_light_radius", "angle"))


def summarise(images: np.ndarray, cuts: Sequence[Cut], row_order: str) -> np.ndarray:
    """Measure reconstructions: the values of SUMMARIES, (n, summaries), NaN without a galaxy.

    Args:
        images: (n, size, size), in the units of prepared galaxies.
        cuts: the squares that the galaxies were cut from, and the stretch of their values.
        row_order: "top" or "bottom", where the first row is displayed.
    """
    size = images.shape[1]
    if size < MIN_SIDE:
        return np.full((len(images), len(SUMMARIES)), math.nan)
    light = unstretch(images, np.array([(cut.sky, cut.spread, cut.white) for cut in cuts]))
    peak = light.max(axis=(1, 2)) - np.median(light[:, border_of(light.shape[1:])], axis=1)
    found = describe(light, np.maximum(FAINTEST * peak, np.finfo(np.float64).tiny))
    found[:, HALF_LIGHT] *= [cut.side / size for cut in cuts]
    # From the axis of columns towards that of rows, which runs down or up on a display.
    upwards = found[:, ANGLE] if row_order == "bottom" else -found[:, ANGLE]
    found[:, ANGLE] = (upwards - 90) % HALF_TURN
    return found


def spread(values: np.ndarray) -> np.ndarray:
    """Compute standard deviations of draws, (..., summaries); those of angles wrap around.

    The standard deviation of directions of which each stands for its opposite, too, is half of
    sqrt(-2 ln R), R being the mean length of their doubled angles' directions, and at most
    180 / sqrt(12), that of an axis that could be any.

    Args:
        values: (draws, ..., summaries), in the order of SUMMARIES; draws without a galaxy, NaN, are
            left out.

    Returns:
        NaN where fewer than two draws have a value.

    Source: Mardia and Jupp, Directional statistics (2000), sections 2.3.1 and 1.1.
    """
    known = np.isfinite(values)
    count = known.sum(axis=0)
    values, enough = np.where(known, values, 0), count > 1
    mean = values.sum(axis=0) / np.maximum(count, 1)
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
    found = np.sqrt(squares / np.maximum(count - 1, 1))
    turns = np.where(known[..., ANGLE], np.exp(2j * np.radians(values[..., ANGLE])), 0)
    length = np.abs(turns.sum(axis=0)) / np.maximum(count[..., ANGLE], 1)
    wrapped = 0.5 * np.degrees(np.sqrt(-2 * np.log(length.clip(1e-300, 1))))
    found[..., ANGLE] = np.minimum(wrapped, HALF_TURN / math.sqrt(12))
    return np.where(enough, found, math.nan)
