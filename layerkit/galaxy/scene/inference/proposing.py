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
COST = 6.0  # nats that the bound must rise for a source, or a profile, to be kept or added
SPLIT = 3.0  # nats that the bound must rise for a galaxy to be taken for two sources
CLOSE = 2.5  # full widths of the PSF within which sources are fitted anew together
CONCENTRIC = 0.5  # full widths of the PSF within which two profiles are those of one source
ELONGATED = 0.3  # shear of a galaxy that may be two sources
UNLIKE = 5.0  # deviations of the squared residual above which a galaxy is no one profile
HINT = 3.0  # nats that a point beside a galaxy promises, for the two to be tried, and one a band
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
    return replace(
        source,
        x=source.x + x,
        y=source.y + y,
        found=(at[0] + x, at[1] + y, at[2]),
        pieces=tuple(moved(piece, x, y) for piece in source.pieces),
    )


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
    at = np.array([[s.x, s.y] for s in known.parts]).reshape(-1, 2)
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


def placed(pictures: np.ndarray, window: Sequence[slice], other: Sequence[slice]) -> np.ndarray:
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


def near_to(known: Fit, i: int, width: float) -> list[int]:
    """Return source `i`, its pieces and its neighbours, as the layout counts them."""
    own = known.layout.pieces(i)
    return [i, *own, *(j for j in neighbours(known.parts, i, width) if j not in own)]


def part_around(pixels: Pixels, known: Fit, i: int) -> tuple[Pixels, list[Source], int, int]:
    """Return the pixels around source `i` less the light of all but it and what is near.

    Returns:
        The part; in its coordinates the source, without pieces, and then its pieces and neighbours,
        each as a source; and the part's corner.
    """
    parts = known.parts
    free = near_to(known, i, pixels.width)
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
    return cut, [moved(parts[j], -x, -y) for j in free], x, y


def hidden(pixels: Pixels, known: Fit, i: int) -> Source | None:
    """Return the point that the pixels ask for most beside source `i`, or None.

    With r the residual, V the noise's variance, J the derivatives of the image by the numbers of
    the source and its neighbours, and P the precision of their prior, a point of picture p has

    flux = p^T M r / p^T M p,  M = V^-1 - V^-1 J (J^T V^-1 J + P)^-1 J^T V^-1,

    if all these numbers follow, and the bound rises by flux^2 p^T M p / 2.  A galaxy fitted to two
    sources leaves little residual, but little of p is left by M, too.

    Source: the score test of Rao (1948), "Large sample tests of statistical hypotheses".
    """
    layout, images, width = known.layout, known.images, pixels.width
    me, *near = near_to(known, i, width)
    window, _ = images.window(i)
    part = (slice(None), *window)
    weights, residual = pixels.weights[part], (pixels.values - known.image)[part]
    numbers = np.concatenate([np.r_[layout.part(j)] for j in (me, *near)])
    slopes = np.concatenate(
        [placed(images.jacobian(j, known.mean), images.window(j)[0], window) for j in (me, *near)]
    )
    weighted = slopes * weights
    flat = weighted.reshape(len(numbers), -1)
    information = flat @ slopes.reshape(len(numbers), -1).T
    covariance = np.linalg.inv(information + layout.prior()[1][np.ix_(numbers, numbers)])
    followed = covariance @ (flat @ residual.ravel())
    left = weights * (residual - np.tensordot(followed, slopes, 1))
    at = [known.parts[j] for j in (me, *near)]
    reach = round(2 * width) + pixels.psfs.shape[-1] // 2  # of what a point nearby touches
    seen = [
        slice(max(round(m) - reach, s.start), min(round(m) + reach + 1, s.stop))
        for m, s in zip((at[0].y, at[0].x), window, strict=True)
    ]
    if any(s.stop <= s.start for s in seen) or not weights.any():
        return None
    weights, left, weighted = (placed(a, window, seen) for a in (weights, left, weighted))
    flipped = pixels.psfs[:, ::-1, ::-1]
    every = {"mode": "same", "axes": (-2, -1)}
    above = fftconvolve(left, flipped, **every)
    alone = np.maximum(fftconvolve(weights, flipped**2, **every), 0)
    common = fftconvolve(weighted, flipped[None], **every)
    below = alone - np.einsum("kbyx,kl,lbyx->byx", common, covariance, common, optimize=True)
    told = (below > SEPARATE * alone) & (alone > 0)
    flux = np.where(told, np.maximum(above, 0) / np.where(told, below, 1), 0)
    y, x = (np.r_[s] for s in seen)
    away = [np.hypot(x - s.x, y[:, None] - s.y) for s in at]
    there = (np.min(away, axis=0) > 0.3 * width) & (away[0] < 2 * width)
    rise = np.where(there, 0.5 * (flux**2 * below * told).sum(axis=0), 0)
    row, column = np.unravel_index(rise.argmax(), rise.shape)
    if rise[row, column] < HINT + layout.bands:
        return None
    fluxes = flux[:, row, column] / 1.5  # as new_source takes them for those of a point
    found = Detection(float(x[column]), float(y[row]), 0.0, fluxes)
    return new_source(found, pixels, star=True)


def parted(pixels: Pixels, known: Fit, i: int, star: float = STAR) -> list[Source]:
    """Return source `i`, two sources in its place, or itself with a second profile as a piece.

    Two sources are tried where the pixels ask for a point beside the galaxy, and where it is
    elongated and no larger than the PSF, as a single one describes two close sources.  All light is
    doubted then, as a galaxy that is no exact profile is not two.  Two profiles about one centre
    are tried for a galaxy whose own pixels are further off than noise is; two sources must be
    better than these.

    Args:
        pixels, known: the field and the fit of all.
        i: number of the source.
        star: prior probability of a star.
    """
    source = known.sources[i]
    if source.star:
        return [source]
    doubted = replace(pixels, weights=doubting(pixels, known.image))
    part, (me, *near), x, y = part_around(doubted, known, i)
    pairs = [along_axis(me, pixels.width)] if may_be_two(me, pixels.width) else []
    if other := hidden(doubted, known, i):
        pairs.append([me, moved(other, -x, -y)])
    unlike = not source.pieces and is_unlike(pixels, known, i)
    if pairs:
        needed = fit(part, [me, *near], 15).bound + SPLIT
        if unlike:
            needed = max(needed, fit(part, [*about_centre(me), *near], 25).bound)
        needed += np.log(1 - star)
    for pair in pairs:
        for _ in range(2):  # with points, and from there as galaxies
            prior = sum(np.log(star if s.star else 1 - star) for s in pair)
            both = fit(part, [*pair, *near], 25)
            pair = [as_type(s, False, pixels) for s in both.sources[:2]]
            if both.bound + prior > needed:
                return _in_place_of(source, [moved(s, x, y) for s in pair], pixels.width)
    if unlike:
        part, (me, *near), x, y = part_around(pixels, known, i)
        both = fit(part, [*about_centre(me), *near], 40)
        found = _in_place_of(source, [moved(s, x, y) for s in both.sources[:2]], pixels.width)
        if len(found) == 1 and both.bound > fit(part, [me, *near], 15).bound + COST:
            return found
    return [source]


def _in_place_of(source: Source, pair: list[Source], width: float) -> list[Source]:
    """Return a pair with the pieces of a source; about one centre they are one, and a piece.

    The first is the one of the higher peak.
    """

    def peak(s: Source) -> float:
        return float(np.exp(s.log_flux).sum() / (width**2 / 4 + np.exp(2 * s.shape[0])))

    first, second = sorted(pair, key=peak, reverse=True)
    if np.hypot(first.x - second.x, first.y - second.y) < CONCENTRIC * width:
        return [replace(first, pieces=(second, *source.pieces))]
    first, second = (
        replace(s, found=(s.x, s.y, float(s.log_flux.mean()))) for s in (first, second)
    )
    return [replace(first, pieces=source.pieces), second]


def may_be_two(galaxy: Source, width: float) -> bool:
    """Tell whether a galaxy looks as two sources do: elongated, and no larger than the PSF."""
    log_radius, e1, e2 = galaxy.shape[:3]
    return bool(np.hypot(e1, e2) > ELONGATED and log_radius < np.log(width))


def along_axis(galaxy: Source, width: float) -> list[Source]:
    """Return two points of half the flux on the galaxy's major axis."""
    log_radius, e1, e2 = galaxy.shape[:3]
    angle, away = 0.5 * np.arctan2(e2, e1), 0.8 * np.exp(log_radius + np.hypot(e1, e2) / 2)
    away = float(np.clip(away, 0.3 * width, width))
    dx, dy = away * np.cos(angle), away * np.sin(angle)
    half = replace(galaxy, star=True, log_flux=galaxy.log_flux - np.log(2))
    return [replace(half, x=half.x + k * dx, y=half.y + k * dy) for k in (1, -1)]


def about_centre(galaxy: Source) -> list[Source]:
    """Return a smaller and a wider galaxy of half the flux."""
    half = replace(galaxy, log_flux=galaxy.log_flux - np.log(2))
    step = np.array([0.5, *np.zeros(len(half.shape) - 1)])
    return [replace(half, shape=half.shape + k * step) for k in (-1, 1)]


def is_unlike(pixels: Pixels, known: Fit, i: int) -> bool:
    """Tell whether the pixels that a source is brightest in are further off than noise is."""
    (rows, columns), inner = known.images.window(i)
    part = (slice(None), rows, columns)
    picture = known.images.picture(i, known.mean)[:, inner[0], inner[1]]
    weights, image = pixels.weights[part], known.image[part]
    own = (picture > 0.5 * image) & (weights * picture**2 > 1)
    squares = (weights * (pixels.values[part] - image) ** 2)[own].sum()
    return bool(squares > own.sum() + UNLIKE * np.sqrt(2 * own.sum()))
