"""Choosing what a source is: a star, a galaxy or nothing, by the bounds of the three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerkit.galaxy.scene.images.detection import THRESHOLD, apart, significance
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels, curvature, fit
from layerkit.galaxy.scene.inference.proposing import (
    CLOSE,
    COST,
    STAR,
    as_type,
    doubting,
    neighbours,
    part_around,
    parted,
    residual_sources,
)
from layerkit.galaxy.scene.model.layout import Source

ALIKE = 0.05  # pixels, and of a flux, within which a source is as it was
WIDE = 1.4  # full widths of the PSF: half-light radius from which a galaxy shows a peak of its own
CERTAIN = 15.0  # signal to noise of a flux above which a source is there without asking
ROUNDS = 2  # of looking for pieces of sources
RESOLVED = 6.0  # deviations of the log radius by which a galaxy must be wider than a star
MISFIT = 0.1  # of a galaxy's light in a pixel that the model is off, seen by its errors alone
REACH = 0.25  # full widths of the PSF over which the misfit goes together


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
    source = known.sources[i]
    wide = not source.star and bool(
        mean[2 + bands] - RESOLVED * deviation[2 + bands] > np.log(0.2 * pixels.width)
    )
    if source.pieces or (sure and wide):  # there, and no star
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


def with_pieces(pixels: Pixels, known: Fit, threshold: float) -> Fit:
    """Return the fit with pieces of sources: light that is no source, but in no profile.

    It is significant by the noise, but not if the source's light is in doubt (see `doubting`).  It
    is fitted as small galaxies, and belongs to the source that is brightest there.
    """
    for _ in range(ROUNDS if known.sources else 0):
        more = residual_sources(pixels, known, threshold, doubt=False)
        lit = doubting(pixels, known.image) < 0.5 * pixels.weights
        more = [s for s in more if lit[:, round(s.y), round(s.x)].any()]
        if not more:
            break
        sources = known.sources
        for piece in more:
            i = brightest(known, piece.x, piece.y)
            sources[i] = replace(sources[i], pieces=(*sources[i].pieces, piece))
        known = fit(pixels, sources)
    return known


def with_owners(pixels: Pixels, known: Fit, choices: list[Choice]) -> tuple[Fit, list[Choice]]:
    """Return the fit in which wide galaxies without a peak of their own are pieces of a neighbour.

    Halos and lopsided disks of bright galaxies are fitted by such sources.  Two of the PSF's size
    that are too close for two peaks are not meant.
    """
    sources, (_, height, width) = known.sources, pixels.values.shape
    fluxes = [float(np.exp(s.log_flux).sum()) for s in sources]
    ratio, _ = significance(known.image, pixels.weights, pixels.psfs)
    owned: list[int] = []
    for i in np.argsort(fluxes):
        s = sources[i]
        row, column = round(s.y), round(s.x)
        inside = 0 <= row < height and 0 <= column < width
        if s.star or not inside or np.exp(s.shape[0]) < WIDE * pixels.width:
            continue
        for j in neighbours(known.sources, int(i), pixels.width):
            o = sources[j]
            if fluxes[j] > fluxes[i] and not o.star and not apart(ratio, (row, column), o.x, o.y):
                pieces = (*o.pieces, replace(s, pieces=()), *s.pieces)
                sources[j] = replace(o, pieces=pieces)
                owned.append(int(i))
                break
    if not owned:
        return known, choices
    kept = [i for i in range(len(sources)) if i not in owned]
    return fit(pixels, [sources[i] for i in kept]), [choices[i] for i in kept]


def brightest(known: Fit, x: float, y: float) -> int:
    """Return which source is the brightest at a position, in the sum of all bands."""
    light = []
    for i in range(len(known.sources)):
        (rows, columns), inner = known.images.window(i)
        row, column = round(y) - rows.start, round(x) - columns.start
        there = 0 <= row < rows.stop - rows.start and 0 <= column < columns.stop - columns.start
        picture = known.images.picture(i, known.mean)[:, inner[0], inner[1]]
        light.append(picture[:, row, column].sum() if there else 0.0)
    return int(np.argmax(light))


def with_misfit(pixels: Pixels, known: Fit) -> Fit:
    """Return the fit with model error in its covariance, as no galaxy is exactly a profile.

    With H the curvature and E that of pixels whose noise is this error alone, H^-1 E H^-1 is added.
    The error is MISFIT of the light, and goes together over REACH widths of the PSF; both were set
    by simulated fields of the galaxies that stamps are trained on, see docs/scenes.md.

    Source: the sandwich covariance of White (1982), "Maximum likelihood estimation of misspecified
    models".
    """
    light = np.zeros_like(pixels.values)
    for i, source in enumerate(known.parts):
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
    asked = known.sources
    known = in_parts(pixels, known, star, tell)
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
    known = in_parts(pixels, known, star, tell, asked)
    choices = [choose(pixels, known, i, star) for i in range(len(known.sources))]
    known, choices = pruned(pixels, known, choices, star, tell)
    known, choices = with_owners(pixels, known, choices)
    before = known.sources
    known = with_pieces(pixels, known, threshold)
    now = known.sources
    if rich := [s for s, b in zip(now, before, strict=True) if len(s.pieces) > len(b.pieces)]:
        tell(f"pieces of {len(rich)} sources")
        choices = chosen_near(pixels, known, choices, rich, star)
        known, choices = pruned(pixels, known, choices, star, tell)
    return with_misfit(pixels, known), choices, pixels


def in_parts(
    pixels: Pixels,
    known: Fit,
    star: float,
    tell: Callable[[str], None],
    asked: Sequence[Source] = (),
) -> Fit:
    """Fit with two sources, or two profiles, in place of galaxies that these describe better.

    Args:
        pixels, known: the field and the fit of all.
        star: prior probability of a star.
        tell: called with a line.
        asked: sources of an earlier fit; those still as they were then are not asked again.
    """
    before = known.sources
    sources: list[Source] = []
    for i, source in enumerate(before):
        again = any(is_as_it_was(source, other) for other in asked)
        sources += [source] if again else parted(pixels, known, i, star)
    more = len(sources) - len(before)
    profiles = sum(len(s.pieces) for s in sources) - sum(len(s.pieces) for s in before)
    if not more and not profiles:
        return known
    tell(f"{more} sources are two, {profiles} are two profiles about one centre")
    return fit(pixels, sources)


def is_as_it_was(source: Source, other: Source) -> bool:
    """Tell whether two fits agree about a source."""
    return bool(
        np.hypot(source.x - other.x, source.y - other.y) < ALIKE
        and np.abs(source.log_flux - other.log_flux).max() < ALIKE
    )


def chosen_near(
    pixels: Pixels, known: Fit, choices: list[Choice], changed: Sequence[Source], star: float
) -> list[Choice]:
    """Return the choices, those of sources without pieces near changed sources made anew."""
    at = np.array([[s.x, s.y] for s in changed])
    return [
        choose(pixels, known, i, star)
        if not s.pieces and np.hypot(*(at - [s.x, s.y]).T).min() < 2 * CLOSE * pixels.width
        else choice
        for i, (s, choice) in enumerate(zip(known.sources, choices, strict=True))
    ]


def pruned(
    pixels: Pixels, known: Fit, choices: list[Choice], star: float, tell: Callable[[str], None]
) -> tuple[Fit, list[Choice]]:
    """Fit without the sources that hardly raise the bound, and the others as what they are."""
    while True:
        order = np.argsort([c.gain for c in choices])
        before = known.sources
        gone: list[int] = []
        for i in order:  # the least needed first, and no two that may explain one another
            near = neighbours(before, int(i), pixels.width)
            if choices[i].gain < COST and not set(near) & set(gone):
                gone.append(int(i))
        kept = [
            as_type(s, choices[i].p_star > 0.5, pixels)
            for i, s in enumerate(before)
            if i not in gone
        ]
        tell(f"{len(kept)} sources kept, {sum(s.star for s in kept)} of them stars")
        known = fit(pixels, kept)
        choices = [c for i, c in enumerate(choices) if i not in gone]
        if not gone:
            return known, choices
        choices = chosen_near(pixels, known, choices, [before[i] for i in gone], star)
