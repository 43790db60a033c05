"""Fluxes: how bright a galaxy is, by the model's picture of it laid over its own pixels.

The model says how the light is spread, s, and the pixels x above the sky say how much there is.
With variances v of the noise, the flux of least error is

    F = sum(s) * sum(s x / v) / sum(s^2 / v),    var F = sum(s)^2 / sum(s^2 / v),

the sums of fractions over the pixels that have data, sum(s) over all: light under a mask is made up
by the shape.  This is the fit of a profile's amplitude (Naylor 1998, MNRAS 296, 339, on stars).

The error is that of the noise, and of the shape, by draws from q(z | x); it leaves out the error of
the sky's level, and light that the model does not know of, such as a spiral arm's.  In pictures
with a gain, a pixel has the noise of its own light, s / gain, beside that of the sky.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates

from layerkit.galaxy.catalogue.photometry.stamps import Stamp
from layerkit.galaxy.evaluation.morphology import border_of
from layerkit.galaxy.images.crop.crop import Cut
from layerkit.galaxy.images.crop.scaling import unstretch

# name -> unit, description
FLUXES = {
    "sky": ("", "level of the sky, in the unit of the picture, per pixel"),
    "noise": ("", "standard deviation of the sky, in the unit of the picture"),
    "scale": ("", "light above the sky that the model sees as white, in the unit of the picture"),
    "missing": ("", "share of the square's pixels without data, which count for nothing"),
    "flux": ("", "light above the sky, in the unit of the picture"),
    "flux_sd": ("", "its standard deviation"),
    "magnitude": ("mag", "zero point - 2.5 log10 flux"),
    "magnitude_sd": ("mag", "its standard deviation"),
}
PER_LOGARITHM = 2.5 / math.log(10)


def measure(
    stamp: Stamp | None,
    cut: Cut,
    means: list[np.ndarray],
    zero_point: float | None = None,
    gain: float | None = None,
) -> np.ndarray:
    """Measure the values of FLUXES; all NaN without a stamp.

    Args:
        stamp: the galaxy's pixels.
        cut: its square, and how its values were scaled.
        means: the model's pictures of it, (size, size) each: at the mean of q(z | x), then at draws
            from it.
        zero_point: magnitude of a flux of 1; None, the default, takes the file's.
        gain: electrons per unit of the picture; None, the default, takes the file's.
    """
    if stamp is None:
        return np.full(len(FLUXES), math.nan)
    zero_point = stamp.zero_point if zero_point is None else zero_point
    gain = stamp.gain if gain is None else gain
    (flux, sd), *drawn = (_flux(stamp, _profile(mean, cut, stamp), gain) for mean in means)
    if len(drawn) > 1:
        sd = math.hypot(sd, float(np.std([f for f, _ in drawn], ddof=1)))
    known = flux > 0
    return np.array(
        [
            stamp.sky,
            stamp.noise,
            cut.white - cut.sky,
            stamp.missing.mean(),
            flux,
            sd,
            zero_point - 2.5 * math.log10(flux) if known else math.nan,
            PER_LOGARITHM * sd / flux if known and math.isfinite(zero_point) else math.nan,
        ]
    )


def _profile(mean: np.ndarray, cut: Cut, stamp: Stamp) -> np.ndarray:
    """Lay the model's picture over a stamp's pixels: light above the sky, (height, width)."""
    light = unstretch(mean, np.array([cut.sky, cut.spread, cut.white]))
    light -= np.median(light[border_of(light.shape)])  # the sky, as the model has it
    n = len(light)
    rows, columns = (
        (np.arange(count) + 0.5 - start) * n / stamp.side - 0.5
        for count, start in zip(stamp.light.shape, (stamp.y0, stamp.x0), strict=True)
    )
    places = np.meshgrid(rows, columns, indexing="ij")
    found = map_coordinates(light, places, order=1, mode="nearest")
    inside = np.logical_and.outer(*((p > -0.5) & (p < n - 0.5) for p in (rows, columns)))
    return np.where(inside, found, 0.0)


def _flux(stamp: Stamp, profile: np.ndarray, gain: float) -> tuple[float, float]:
    """Return the flux of a profile's shape, and the standard deviation that noise gives it."""
    variance = stamp.variance
    if variance is None:
        own = np.maximum(profile, 0) / gain if math.isfinite(gain) else 0.0
        variance = np.broadcast_to(stamp.noise**2 + own, profile.shape)
    good = ~stamp.missing
    s, x, v = profile[good], stamp.light[good], variance[good]
    total, precision = float(profile.sum()), float((s * s / v).sum())
    if precision <= 0:
        return math.nan, math.nan
    return total * float((s * x / v).sum()) / precision, abs(total) / math.sqrt(precision)
