"""Proposing: sources to begin with, at peaks of a residual, or hidden in the light of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.signal import fftconvolve

from layerkit.galaxy.scene.images.detection import Detection, detect
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels, fit
from layerkit.galaxy.scene.model.layout import TYPICAL_SIZE, Source

STAR = 0.3  # prior probability of a source's being a star
SPLIT = 3.0  # nats that the bound must rise for a galaxy to be taken for two sources
CLOSE = 2.5  # full widths of the PSF within which sources are fitted anew together
ELONGATED = 0.3  # shear of a galaxy that may be two sources
HINT = 4.0  # nats that a point beside a galaxy promises, for the two to be tried
SEPARATE = 0.03  # of a point's information that must be left by its neighbours' numbers
ROOM = 0.05  # of the light in a pixel that may be off, and is no source
FLOOR = 1e-3  # of the noise's deviation, so that logarithms of fluxes exist


def new_source(found: Detection, pixels: Pixels, star: bool = False) -> Source:
    """Make a source of a detection, a round galaxy of typical size to begin with."""
    # A point's flux misses the light of a galaxy outside it, about half.
    fluxes = np.maximum(1.5 * found.fluxes, 0.05 * np.abs(found.fluxes).max())
    log_flux = np.log(np.maximum(fluxes, FLOOR * pixels.noise))
    shape = [np.log(TYPICAL_SIZE * pixels.width), 0.0, 0.0, *pixels.light.mean]
    at = (found.x, found.y, float(log_flux.mean()))
    return Source(star, found.x, found.y, log_flux, np.array(shape), at)


def as_type(source: Source, star: bool, pixels: Pixels) -> Source:
    """Return the source as a star or as a galaxy; one that was a star starts small."""
    shape = source.shape
    if source.star and not star:
        shape = shape.copy()
        shape[:3] = np.log(0.25 * pixels.width), 0, 0
    return replace(source, star=star, shape=shape)


def moved(source: Source, x: float, y: float) -> Source:
    """Return the source in coordinates whose origin lies elsewhere."""
    at = source.found
    return replace(source, x=source.x + x, y=source.y + y, found=(at[0] + x, at[1] + y, at[2]))


def doubting(pixels: Pixels, light: np.ndarray) -> np.ndarray:
    """Return the weights of pixels in which some light is known but for ROOM of it.

    No model fits a galaxy exactly, and what is left of a bright one is no source.  That error is
    alike in all bands and over a width of the PSF, so that many pixels say no more of it than one:
    its variance is as many times larger as pixels go together.
    """
    together = len(pixels.values) * max(1.0, 0.5 * pixels.width**2)
    return pixels.weights / (1 + pixels.weights * together * (ROOM * light) ** 2)


def residual_sources(
    pixels: Pixels, known: Fit, threshold: float, doubt: bool = True
) -> list[Source]:
    """Return new sources at peaks of a fit's residual, away from known sources.

    Args:
        pixels, known: the field and the fit.
        threshold: least signal to noise.
        doubt: counts what the known light may be off as noise.
    """
    weights = doubting(pixels, known.image) if doubt else pixels.weights
    found = detect(pixels.values - known.image, weights, pixels.psfs, pixels.width, threshold)
    at = np.array([[s.x, s.y] for s in known.sources]).reshape(-1, 2)
    return [
        new_source(f, pixels)
        for f in found
        if not len(at) or np.hypot(*(at - [f.x, f.y]).T).min() > 0.6 * pixels.width
    ]


def neighbours(sources: Sequence[Source], i: int, width: float) -> list[int]:
    """Return up to four other sources whose numbers depend on source `i`, nearest first."""
    me = sources[i]

    def reach(s: Source) -> float:
        return 0.0 if s.star else float(min(np.exp(s.shape[0]), 3 * width))

    away = [float(np.hypot(s.x - me.x, s.y - me.y)) for s in sources]
    near = [
        j
        for j, s in enumerate(sources)
        if j != i and away[j] < CLOSE * width + reach(s) + reach(me)
    ]
    return sorted(near, key=lambda j: away[j])[:4]


def placed(
    pictures: np.ndarray, window: tuple[slice, slice], other: tuple[slice, slice]
) -> np.ndarray:
    """Return pictures of a window of the canvas as another one has them, 0 outside the first."""
    out = np.zeros((*pictures.shape[:-2], *(s.stop - s.start for s in other)))
    into, of = [], []
    for own, there in zip(window, other, strict=True):
        low = max(own.start, there.start)
        high = max(low, min(own.stop, there.stop))
        into.append(slice(low - there.start, high - there.start))
        of.append(slice(low - own.start, high - own.start))
    out[..., into[0], into[1]] = pictures[..., of[0], of[1]]
    return out


def part_around(pixels: Pixels, known: Fit, i: int) -> tuple[Pixels, list[Source], int, int]:
    """Return the pixels around source `i` less the light of all sources but it and its neighbours.

    Returns:
        The part, the source and its neighbours in the part's coordinates, and the part's corner.
    """
    free = [i, *neighbours(known.sources, i, pixels.width)]
    (rows, columns), _ = known.images.window(i)
    part = (slice(None), rows, columns)
    sky = known.mean[known.layout.sky :] * pixels.noise
    rest = known.image[part] - sky[:, None, None]
    for j in free:
        outer, inner = known.images.window(j)
        picture = known.images.picture(j, known.mean)[:, inner[0], inner[1]]
        rest -= placed(picture, outer, (rows, columns))
    cut = replace(
        pixels, values=pixels.values[part] - rest - sky[:, None, None], weights=pixels.weights[part]
    )
    x, y = columns.start, rows.start
    return cut, [moved(known.sources[j], -x, -y) for j in free], x, y


def hidden(pixels: Pixels, known: Fit, i: int) -> Source | None:
    """Return the point that the pixels ask for most beside source `i`, or None.

    With r the residual, V the noise's variance, J the derivatives of the image by the numbers of
    the source and its neighbours, and P the precision of their prior, a point of picture p has

    flux = p^T M r / p^T M p,  M = V^-1 - V^-1 J (J^T V^-1 J + P)^-1 J^T V^-1,

    if all these numbers follow, and the bound rises by flux^2 p^T M p / 2.  A galaxy fitted to two
    sources leaves little residual, but little of p is left by M, too.

    Source: the score test of Rao (1948), "Large sample tests of statistical hypotheses".
    """
    me, layout, images, width = known.sources[i], known.layout, known.images, pixels.width
    near = neighbours(known.sources, i, width)
    window, _ = images.window(i)
    part = (slice(None), *window)
    weights, residual = pixels.weights[part], (pixels.values - known.image)[part]
    numbers = np.concatenate([np.r_[layout.part(j)] for j in (i, *near)])
    slopes = np.concatenate(
        [placed(images.jacobian(j, known.mean), images.window(j)[0], window) for j in (i, *near)]
    )
    weighted = (slopes * weights).reshape(len(numbers), -1)
    information = weighted @ slopes.reshape(len(numbers), -1).T
    covariance = np.linalg.inv(information + layout.prior()[1][np.ix_(numbers, numbers)])
    followed = covariance @ (weighted @ residual.ravel())
    left = residual - np.tensordot(followed, slopes, 1)
    flipped = pixels.psfs[:, ::-1, ::-1]
    every = {"mode": "same", "axes": (-2, -1)}
    above = fftconvolve(weights * left, flipped, **every)
    alone = np.maximum(fftconvolve(weights, flipped**2, **every), 0)
    common = fftconvolve(weighted.reshape(slopes.shape), flipped[None], **every)
    below = alone - np.einsum("kbyx,kl,lbyx->byx", common, covariance, common, optimize=True)
    told = (below > SEPARATE * alone) & (alone > 0)
    flux = np.where(told, np.maximum(above, 0) / np.where(told, below, 1), 0)
    y, x = (np.r_[s] for s in window)
    away = [np.hypot(x - s.x, y[:, None] - s.y) for s in (me, *(known.sources[j] for j in near))]
    there = (np.min(away, axis=0) > 0.3 * width) & (away[0] < 2 * width)
    rise = np.where(there, 0.5 * (flux**2 * below * told).sum(axis=0), 0)
    row, column = np.unravel_index(rise.argmax(), rise.shape)
    if rise[row, column] < HINT:
        return None
    fluxes = flux[:, row, column] / 1.5  # as new_source takes them for those of a point
    found = Detection(float(x[column]), float(y[row]), 0.0, fluxes)
    return new_source(found, pixels, star=True)


def halves(pixels: Pixels, known: Fit, i: int, star: float = STAR) -> list[Source]:
    """Return source `i`, or two in its place if these describe it better than a galaxy does.

    Two are tried where the pixels ask for a point beside the galaxy, and where it is elongated and
    no larger than the PSF, as a single one describes two close sources.  All light is doubted, as
    a galaxy that is no exact profile is not two.

    Args:
        pixels, known: the field and the fit of all.
        i: number of the source.
        star: prior probability of a star.
    """
    source = known.sources[i]
    if source.star:
        return [source]
    pixels = replace(pixels, weights=doubting(pixels, known.image))
    part, (me, *near), x, y = part_around(pixels, known, i)
    pairs = []
    log_radius, e1, e2 = me.shape[:3]
    size = np.hypot(e1, e2)
    if size > ELONGATED and log_radius < np.log(pixels.width):
        angle, away = 0.5 * np.arctan2(e2, e1), 0.8 * np.exp(log_radius + size / 2)
        away = float(np.clip(away, 0.3 * pixels.width, pixels.width))
        dx, dy = away * np.cos(angle), away * np.sin(angle)
        flux = me.log_flux - np.log(2)
        pairs.append(
            [replace(me, star=True, x=me.x + k * dx, y=me.y + k * dy, log_flux=flux) for k in (1, -1)]
        )
    if other := hidden(pixels, known, i):
        pairs.append([me, moved(other, -x, -y)])
    if not pairs:
        return [source]
    needed = fit(part, [me, *near], 15).bound + np.log(1 - star) + SPLIT
    for pair in pairs:
        for _ in range(2):  # with points, and from there as galaxies
            prior = sum(np.log(star if s.star else 1 - star) for s in pair)
            both = fit(part, [*pair, *near], 25)
            pair = [as_type(s, False, pixels) for s in both.sources[:2]]
            if both.bound + prior > needed:
                return [
                    replace(s, found=(s.x, s.y, float(s.log_flux.mean())))
                    for s in (moved(half, x, y) for half in pair)
                ]
    return [source]
