"""Detection: peaks of an image matched with its PSF, in all bands together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve

THRESHOLD = 5.0  # standard deviations
CONTRAST = 3.0  # standard deviations by which a saddle must lie below the lesser of two peaks
DIP = 0.03  # of the lesser peak, likewise
SEEN = 0.1  # of a point's information that must be left by a mask over its peak
MOST_NEIGHBOURS = 6.0  # full widths of the PSF beyond which peaks need no saddle


@dataclass
class Detection:
    """A peak: its position in pixels, its signal to noise, and its flux in each band as a point."""

    x: float
    y: float
    significance: float
    fluxes: np.ndarray


def significance(
    values: np.ndarray, weights: np.ndarray, psfs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal to noise of a point at each pixel, and its flux in each band.

    The signal to noise is the largest of each band's and of an equal combination of all.

    Args:
        values, weights: shape (bands, height, width); inverse variances, 0 where masked.
        psfs: shape (bands, p, p).

    Returns:
        Shapes (height, width) and (bands, height, width).

    Source: matched filtering of Zackay and Ofek (2017), "How to COAAD images I".
    """
    flipped = psfs[:, ::-1, ::-1]
    above = np.stack([fftconvolve(v * w, p, "same") for v, w, p in _each(values, weights, flipped)])
    below = np.stack([fftconvolve(w, p * p, "same") for w, p in _each(weights, flipped)])
    below = np.maximum(below, 1e-3 * below.max(axis=(1, 2), keepdims=True))
    ratio = above / np.sqrt(below)
    together = ratio.sum(axis=0) / np.sqrt(len(ratio))
    return np.maximum(ratio.max(axis=0), together), above / below


def _seen(known: np.ndarray, psfs: np.ndarray) -> np.ndarray:
    """Return where a point would be seen: its pixel has data, or pixels around it say enough."""
    seen = np.any(known, axis=0)
    for band, psf in _each(known, psfs[:, ::-1, ::-1] ** 2):
        if not band.all():
            seen |= fftconvolve(band.astype(float), psf / psf.sum(), "same") > SEEN
    return seen


def spread_of(ratio: np.ndarray) -> float:
    """Return the deviation of a signal-to-noise map, from its negative values; 1 if white."""
    below = ratio[ratio < 0]
    return float(np.median(-below) / 0.6745) if len(below) > 100 else 1.0


def _each(*arrays: np.ndarray) -> zip:
    return zip(*arrays, strict=True)


def detect(
    values: np.ndarray,
    weights: np.ndarray,
    psfs: np.ndarray,
    width: float,
    threshold: float = THRESHOLD,
) -> list[Detection]:
    """Find the sources of a background-subtracted image, brightest first.

    A peak counts if a saddle lies between it and every brighter one nearby.  It may lie under a
    mask, as of a bad pixel, as long as the pixels around say enough.

    Args:
        values, weights, psfs: see `significance`.
        width: full width at half maximum of the PSF, in pixels.
        threshold: least signal to noise.
    """
    ratio, fluxes = significance(values, weights, psfs)
    reach = max(1, round(0.35 * width))
    peaks = ratio == ndimage.maximum_filter(ratio, 2 * reach + 1)
    peaks &= (ratio > threshold) & _seen(weights > 0, psfs)
    found: list[Detection] = []
    at = np.empty((int(peaks.sum()), 2))
    for y, x in sorted(zip(*np.nonzero(peaks), strict=True), key=lambda p: -ratio[p]):
        near = []
        if found:
            away = np.hypot(at[: len(found), 0] - x, at[: len(found), 1] - y)
            near = [found[i] for i in np.flatnonzero(away <= MOST_NEIGHBOURS * width)]
        if all(apart(ratio, (y, x), f.x, f.y) for f in near):
            at[len(found)] = x, y
            dx, dy = _vertex(ratio, int(x), int(y))
            found.append(Detection(x + dx, y + dy, float(ratio[y, x]), fluxes[:, y, x].copy()))
    return found


def apart(ratio: np.ndarray, peak: tuple[int, int], x: float, y: float) -> bool:
    """Tell whether a saddle lies between a peak, at a row and a column, and a brighter one.

    Args:
        ratio: signal to noise of a point at each pixel; see `significance`.
        peak: row and column of the fainter.
        x, y: position of the brighter.
    """
    away = np.hypot(peak[1] - x, peak[0] - y)
    along = np.linspace(0, 1, max(3, int(2 * away)))
    line = [peak[0] + along * (y - peak[0]), peak[1] + along * (x - peak[1])]
    lowest = ndimage.map_coordinates(ratio, line, order=1, mode="nearest").min()
    own = ratio[peak]
    return bool(own - lowest > max(CONTRAST, DIP * own))


def _vertex(ratio: np.ndarray, x: int, y: int) -> tuple[float, float]:
    """Return how far from a pixel the top of the parabolas through it and its neighbours lies."""
    out = []
    for line, at in ((ratio[y], x), (ratio[:, x], y)):
        if not 0 < at < len(line) - 1:
            out.append(0.0)
            continue
        before, here, after = line[at - 1 : at + 2]
        bend = before - 2 * here + after
        out.append(float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
    return out[0], out[1]
