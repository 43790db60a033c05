"""Choosing what a source is: a star, a galaxy or nothing, by the bounds of the three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerkit.galaxy.scene.images.detection import THRESHOLD, Detection, detect
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels, curvature, fit
from layerkit.galaxy.scene.model.layout import TYPICAL_SIZE, Source

STAR = 0.3  # prior probability of a source's being a star
COST = 6.0  # nats that the bound must rise for a source to be kept or added
SPLIT = 3.0  # nats that the bound must rise for a galaxy to be taken for two sources
CLOSE = 2.5  # full widths of the PSF within which sources are fitted anew together
CERTAIN = 15.0  # signal to noise of a flux above which a source is there without asking
ELONGATED = 0.3  # shear of a galaxy that may be two sources
RESOLVED = 6.0  # deviations of the log radius by which a galaxy must be wider than a star
ROOM = 0.05  # of the light in a pixel that may be off, and is no source
MISFIT = 0.1  # of a galaxy's light in a pixel that the model is off, seen by its errors alone
REACH = 0.25  # full widths of the PSF over which the misfit goes together
FLOOR = 1e-3  # of the noise's deviation, so that logarithms of fluxes exist


@dataclass
class Choice:
    """Alternatives of one source, a star or a galaxy.

    Attributes:
        star, galaxy: posteriors of its own numbers under either, each a mean and a covariance.
        p_star: probability of the star.
        gain: how much the bound falls without the source, in nats.
    """

    star: tuple[np.ndarray, np.ndarray]
    galaxy: tuple[np.ndarray, np.ndarray]
    p_star: float
    gain: float


def new_source(found: Detection, pixels: Pixels, star: bool = False) -> Source:
    """Make a source of a detection, a round galaxy of typical size to begin with."""
    # A point's flux misses the light of a galaxy outside it, about half.
    fluxes = np.maximum(1.5 * found.fluxes, 0.05 * np.abs(found.fluxes).max())
    log_flux = np.log(np.maximum(fluxes, FLOOR * pixels.noise))
    shape = [np.log(TYPICAL_SIZE * pixels.width), 0.0, 0.0, *pixels.light.mean]
    at = (found.x, found.y, float(log_flux.mean()))
    return Source(star, found.x, found.y, log_flux, np.array(shape), at)


def doubting(pixels: Pixels, light: np.ndarray) -> np.ndarray:
    """Return the weights of pixels in which some light is known but for ROOM of it.

    No model fits a galaxy exactly, and what is left of a bright one is no source.  That error is
    alike in all bands and over a width of the PSF, so that many pixels say no more of it than one:
    its variance is as many times larger as pixels go together.
    """
    together = len(pixels.values) * max(1.0, 0.5 * pixels.width**2)
    return pixels.weights / (1 + pixels.weights * together * (ROOM * light) ** 2)


def residual_sources(pixels: Pixels, known: Fit, threshold: float) -> list[Source]:
    """Return new sources at peaks of a fit's residual, away from known sources.

    Args:
        pixels, known: the field and the fit.
        threshold: least signal to noise.
    """
    weights = doubting(pixels, known.image)
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
        top, bottom = max(rows.start, outer[0].start), min(rows.stop, outer[0].stop)
        left, right = max(columns.start, outer[1].start), min(columns.stop, outer[1].stop)
        if top < bottom and left < right:
            picture = known.images.picture(j, known.mean)[:, inner[0], inner[1]]
            rest[
                :,
                top - rows.start : bottom - rows.start,
                left - columns.start : right - columns.start,
            ] -= picture[
                :,
                top - outer[0].start : bottom - outer[0].start,
                left - outer[1].start : right - outer[1].start,
            ]
    cut = replace(
        pixels, values=pixels.values[part] - rest - sky[:, None, None], weights=pixels.weights[part]
    )
    x, y = columns.start, rows.start
    return cut, [moved(known.sources[j], -x, -y) for j in free], x, y


def moved(source: Source, x: float, y: float) -> Source:
    """Return the source in coordinates whose origin lies elsewhere."""
    at = source.found
    return replace(source, x=source.x + x, y=source.y + y, found=(at[0] + x, at[1] + y, at[2]))


def choose(pixels: Pixels, known: Fit, i: int, star: float = STAR) -> Choice:
    """Fit source `i` as a star, as a galaxy and not at all, each with its neighbours.

    The light of other sources is doubted; see `doubting`.

    Args:
        pixels, known: the field and the fit of all.
        i: number of the source.
        star: prior probability of a star.
    """
    own = known.layout.part(i)
    mean, covariance = known.mean[own].copy(), known.covariance[own, own]
    mean[:2] += known.layout.origins[i]
    deviation, bands = np.sqrt(np.diag(covariance)), known.layout.bands
    (rows, columns), inner = known.images.window(i)
    picture = known.images.picture(i, known.mean)[:, inner[0], inner[1]]
    others = known.image.copy()
    others[:, rows, columns] -= picture
    pixels = replace(pixels, weights=doubting(pixels, others))
    signal = (pixels.weights[:, rows, columns] * picture**2).sum(axis=(1, 2)).max()
    sure = signal > CERTAIN**2 and deviation[2 : 2 + bands].min() < 1 / CERTAIN
    wide = not known.sources[i].star and bool(
        mean[2 + bands] - RESOLVED * deviation[2 + bands] > np.log(0.2 * pixels.width)
    )
    if sure and wide:  # there, and no star
        return Choice(
            (mean[: 2 + bands], covariance[: 2 + bands, : 2 + bands]),
            (mean, covariance),
            0.0,
            np.inf,
        )
    part, sources, x, y = part_around(pixels, known, i)
    me, near = sources[0], sources[1:]
    posteriors, bounds = {}, {}
    for kind in (True, False):
        found = fit(part, [as_type(me, kind, pixels), *near], 15)
        own = found.layout.part(0)
        mean = found.mean[own].copy()
        mean[:2] += found.layout.origins[0] + [x, y]  # positions on the canvas
        posteriors[kind] = (mean, found.covariance[own, own])
        bounds[kind] = found.bound + np.log(star if kind else 1 - star)
    best = np.logaddexp(bounds[True], bounds[False])
    nothing = -np.inf if sure else fit(part, near, 10).bound
    return Choice(
        posteriors[True],
        posteriors[False],
        float(np.exp(bounds[True] - best)),
        float(best - nothing),
    )


def halves(pixels: Pixels, known: Fit, i: int, star: float = STAR) -> list[Source]:
    """Return source `i`, or two in its place if these describe it better than a galaxy does.

    Only an elongated galaxy no larger than the PSF is tried: that is how a single one describes
    two close sources.  All light is doubted, as a galaxy that is no exact profile is not two.  The
    two are fitted as points, and from there as galaxies.
    """
    source = known.sources[i]
    log_radius, e1, e2 = source.shape[:3]
    size = np.hypot(e1, e2)
    if source.star or size < ELONGATED or log_radius > np.log(pixels.width):
        return [source]
    pixels = replace(pixels, weights=doubting(pixels, known.image))
    part, (me, *near), x, y = part_around(pixels, known, i)
    angle, away = 0.5 * np.arctan2(e2, e1), 0.8 * np.exp(log_radius + size / 2)
    away = float(np.clip(away, 0.3 * pixels.width, pixels.width))
    dx, dy = away * np.cos(angle), away * np.sin(angle)
    flux = me.log_flux - np.log(2)
    pair = [
        replace(me, star=True, x=me.x + k * dx, y=me.y + k * dy, log_flux=flux) for k in (1, -1)
    ]
    needed = fit(part, [me, *near], 15).bound + np.log(1 - star) + SPLIT
    for prior in (star, 1 - star):
        both = fit(part, [*pair, *near], 25)
        pair = [as_type(s, False, pixels) for s in both.sources[:2]]
        if both.bound + 2 * np.log(prior) > needed:
            return [
                replace(s, found=(s.x, s.y, float(s.log_flux.mean())))
                for s in (moved(half, x, y) for half in pair)
            ]
    return [source]


def as_type(source: Source, star: bool, pixels: Pixels) -> Source:
    """Return the source as a star or as a galaxy; one that was a star starts small."""
    shape = source.shape
    if source.star and not star:
        shape = shape.copy()
        shape[:3] = np.log(0.25 * pixels.width), 0, 0
    return replace(source, star=star, shape=shape)


def with_misfit(pixels: Pixels, known: Fit) -> Fit:
    """Return the fit with model error in its covariance, as no galaxy is exactly a profile.

    With H the curvature and E that of pixels whose noise is this error alone, H^-1 E H^-1 is added.
    The error is MISFIT of the light, and goes together over REACH widths of the PSF; both were set
    by simulated fields of the galaxies that stamps are trained on, see docs/scenes.md.

    Source: the sandwich covariance of White (1982), "Maximum likelihood estimation of misspecified
    models".
    """
    light = np.zeros_like(pixels.values)
    for i, source in enumerate(known.sources):
        if not source.star:
            (rows, columns), inner = known.images.window(i)
            picture = known.images.picture(i, known.mean)
            light[:, rows, columns] += picture[:, inner[0], inner[1]]
    error = (pixels.weights * MISFIT * light) ** 2
    more = curvature(known.images, known.mean, error, REACH * pixels.width)
    return replace(known, covariance=known.covariance + known.covariance @ more @ known.covariance)


def settle(
    pixels: Pixels,
    sources: Sequence[Source],
    *,
    star: float = STAR,
    threshold: float = THRESHOLD,
    rounds: int = 3,
    reweigh: Callable[[np.ndarray], Pixels] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Fit, list[Choice], Pixels]:
    """Fit, add sources found in the residual, and drop those that hardly raise the bound.

    Args:
        pixels: the field.
        sources: where to start from.
        star: prior probability of a star.
        threshold: least signal to noise of a source found in the residual.
        rounds: how often sources may be added.
        reweigh: returns the pixels with the noise that sources of a given model image add.
        tell: called with a line about every stage.

    Returns:
        The fit, a choice for each of its sources, and the pixels with their last weights.
    """
    known = fit(pixels, sources)
    for _ in range(rounds):
        if reweigh:
            pixels = reweigh(known.image)
        more = residual_sources(pixels, known, threshold)
        tell(f"{len(known.sources)} sources fitted, {len(more)} more in the residual")
        if not more and not reweigh:
            break
        known = fit(pixels, [*known.sources, *more])
        if not more:
            break
    parted = [s for i in range(len(known.sources)) for s in halves(pixels, known, i, star)]
    if len(parted) > len(known.sources):
        tell(f"{len(parted) - len(known.sources)} sources are two")
        known = fit(pixels, parted)
    choices = [choose(pixels, known, i, star) for i in range(len(known.sources))]
    while True:
        order = np.argsort([c.gain for c in choices])
        gone: list[int] = []
        for i in order:  # the least needed first, and no two that may explain one another
            near = neighbours(known.sources, int(i), pixels.width)
            if choices[i].gain < COST and not set(near) & set(gone):
                gone.append(int(i))
        kept = [
            as_type(s, choices[i].p_star > 0.5, pixels)
            for i, s in enumerate(known.sources)
            if i not in gone
        ]
        tell(f"{len(kept)} sources kept, {sum(s.star for s in kept)} of them stars")
        at = np.array([[known.sources[i].x, known.sources[i].y] for i in gone]).reshape(-1, 2)
        known = fit(pixels, kept)
        choices = [c for i, c in enumerate(choices) if i not in gone]
        if not gone:
            return with_misfit(pixels, known), choices, pixels
        for i, s in enumerate(known.sources):
            if np.hypot(*(at - [s.x, s.y]).T).min() < 2 * CLOSE * pixels.width:
                choices[i] = choose(pixels, known, i, star)
