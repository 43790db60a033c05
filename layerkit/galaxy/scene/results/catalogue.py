"""The catalogue of a field: a row for each source, with the uncertainty of every number."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.galaxy.scene.images.field import Field
from layerkit.galaxy.scene.inference.choosing import Choice
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels
from layerkit.galaxy.scene.inference.tiles import Tile
from layerkit.galaxy.scene.model.sources import SIDES

DRAWS = 1000  # from each posterior, for the uncertainty of numbers that are not Gaussian
STEP = 0.01  # pixels, for derivatives of a WCS
BLENDED, EDGE, MASKED, UNCERTAIN = 1, 2, 4, 8  # bits of `flags`


@dataclass
class Row:
    """A source of the catalogue; `draws` has a column for each number, a row for each draw."""

    tile: tuple[int, int]
    x: float
    y: float
    x_err: float
    y_err: float
    flux: np.ndarray
    flux_err: np.ndarray
    p_star: float
    radius: tuple[float, float]
    ellipticity: tuple[float, float]
    angle: tuple[float, float]
    flags: int
    draws: np.ndarray


def rows_of(
    known: Fit, choices: list[Choice], pixels: Pixels, cut: Tile, samples: int
) -> list[Row]:
    """Return the rows of the sources that a tile owns.

    If a source may be a star or a galaxy, mean and variance are those of the mixture.
    """
    bands = known.layout.bands
    rng = np.random.default_rng(0)
    out = []
    for i, (source, choice) in enumerate(zip(known.sources, choices, strict=True)):
        if not cut.owns(source.x + cut.x, source.y + cut.y):
            continue
        mean, covariance = with_its_pieces(known, i)
        mean[:2] += known.layout.origins[i]
        here = {source.star: (mean, covariance)}
        other = choice.galaxy if source.star else choice.star
        here[not source.star] = other
        p = choice.p_star
        stars, galaxies = here[True], here[False]
        # Common numbers: a mixture of two Gaussians.
        common = slice(0, 2 + bands)
        first, second = stars[0][common], galaxies[0][common]
        middle = p * first + (1 - p) * second
        variance = p * (np.diag(stars[1])[common] + (first - middle) ** 2) + (1 - p) * (
            np.diag(galaxies[1])[common] + (second - middle) ** 2
        )
        error = np.sqrt(variance)
        shape, spread = galaxies[0][2 + bands :], galaxies[1][2 + bands :, 2 + bands :]
        shapes = rng.multivariate_normal(shape, spread, DRAWS, method="cholesky")
        about = [] if source.star else _about(known, i)
        if about:
            every = joint_shapes(known, [i, *about], rng)
            shape, shapes = every[0], every[1:]
            spread = np.cov(shapes.T)
        radius = float(np.exp(shape[0]))
        ellipticity = ellipticity_of(shapes[:, 1:3])
        angle = 0.5 * np.arctan2(shape[2], shape[1])
        turns = 0.5 * np.arctan2(shapes[:, 2], shapes[:, 1]) - angle
        turns = (turns + np.pi / 2) % np.pi - np.pi / 2
        flux = np.exp(middle[2:])
        x, y = middle[:2] + np.array([cut.x, cut.y])
        draws = np.empty((0, 0))
        if samples:
            star = rng.random(samples) < p
            both = {k: rng.multivariate_normal(*here[k], samples, method="cholesky") for k in here}
            draws = np.full((samples, len(galaxies[0]) + 1), np.nan)
            draws[:, 0] = star
            for kind, rows in both.items():
                draws[star == kind, 1 : rows.shape[1] + 1] = rows[star == kind]
            draws[:, 1:3] += [cut.x, cut.y]
        out.append(
            Row(
                (cut.x, cut.y),
                float(x),
                float(y),
                float(error[0]),
                float(error[1]),
                flux,
                flux * error[2:],
                p,
                (radius, radius * float(np.sqrt(spread[0, 0]))),
                ellipticity,
                (float(np.degrees(angle)), float(np.degrees(np.sqrt((turns**2).mean())))),
                _flags(known, pixels, i),
                draws,
            )
        )
    return out


def with_its_pieces(known: Fit, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of a source's numbers, its log fluxes those of all its pieces.

    The logarithm of a sum of fluxes F_k has the derivatives F_k / sum by the logarithms of each.
    """
    own, first, bands = known.layout.part(i), known.layout.starts, known.layout.bands
    slopes = np.eye(len(known.mean))[own]
    mean = known.mean[own].copy()
    for b in range(bands):
        places = [first[k] + 2 + b for k in (i, *known.layout.pieces(i))]
        mean[2 + b] = np.logaddexp.reduce(known.mean[places])
        slopes[2 + b, places] = np.exp(known.mean[places] - mean[2 + b])
    return mean, slopes @ known.covariance @ slopes.T


def _about(known: Fit, i: int) -> list[int]:
    """Return which pieces of a source are profiles about its centre."""
    me = known.sources[i]
    own = zip(known.layout.pieces(i), me.pieces, strict=True)
    return [k for k, s in own if np.hypot(s.x - me.x, s.y - me.y) < np.exp(s.shape[0])]


def joint_shapes(known: Fit, parts: list[int], rng: np.random.Generator) -> np.ndarray:
    """Return log half-light radius and shear of profiles about one centre together.

    The radius is that of circles of equal area; the shear is a mean weighted by flux.

    Returns:
        Shape (1 + DRAWS, 3), first of the posterior's mean, then of draws from it.
    """
    layout, light, b = known.layout, known.layout.light, known.layout.bands
    numbers = np.concatenate([np.r_[layout.part(k)] for k in parts])
    mean, covariance = known.mean[numbers], known.covariance[np.ix_(numbers, numbers)]
    draws = rng.multivariate_normal(mean, covariance, DRAWS, method="cholesky")
    rows = np.vstack([mean, draws]).reshape(DRAWS + 1, len(parts), -1)
    shares = np.exp(rows[:, :, 2 : 2 + b]).sum(axis=2)
    shares /= shares.sum(axis=1, keepdims=True)
    radii, latents = rows[:, :, 2 + b], rows[:, :, 5 + b :]
    low, high = radii.min(axis=1), radii.max(axis=1)
    for _ in range(30):
        middle = (low + high) / 2
        inside = sum(
            shares[:, k] * light.within(latents[:, k], np.exp(middle - radii[:, k]))
            for k in range(len(parts))
        )
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    shears = (shares[:, :, None] * rows[:, :, 3 + b : 5 + b]).sum(axis=1)
    return np.column_stack([low, shears])


def ellipticity_of(shears: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of 1 - b/a over draws of the shear, shape (draws, 2).

    A density of shears that is smooth at 0 has none of its weight on round galaxies, and noise
    would make all of them elongated.  So draws count by the inverse of their shear's size, which
    stands for a prior that is smooth in the size itself.
    """
    size = np.hypot(*shears.T)
    weight = 1 / np.maximum(size, 0.02)
    weight /= weight.sum()
    values = 1 - np.exp(-size)
    mean = float(weight @ values)
    return mean, float(np.sqrt(weight @ (values - mean) ** 2))


def _flags(known: Fit, pixels: Pixels, i: int) -> int:
    """Return the bits that warn about a source."""
    source = known.sources[i]
    flags = 0
    for j, other in enumerate(known.sources):
        reach = pixels.width + sum(0 if s.star else np.exp(s.shape[0]) for s in (source, other))
        if j != i and np.hypot(other.x - source.x, other.y - source.y) < reach:
            flags |= BLENDED
    _, height, width = pixels.values.shape
    near = pixels.width / 2
    if min(source.x, source.y, width - 1 - source.x, height - 1 - source.y) < near:
        flags |= EDGE
    y, x = int(np.clip(round(source.y), 0, height - 1)), int(np.clip(round(source.x), 0, width - 1))
    half = max(1, round(pixels.width / 2))
    part = pixels.weights[:, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
    if (part <= 0).any():
        flags |= MASKED
    uncertain = np.diag(with_its_pieces(known, i)[1])[2 : 2 + known.layout.bands].min() > 0.25
    if uncertain or known.images.reach(source) > SIDES[-1]:  # its picture wraps around
        flags |= UNCERTAIN
    return flags


def table_of(rows: list[Row], field: Field, width: float) -> tuple[Any, dict[int, np.ndarray]]:
    """Return the catalogue as an astropy Table, and the draws of each source by its id.

    Columns: `id` (from 1, brightest first), `x`, `y` (pixels, the first centre at 0), where the
    field has a WCS `ra`, `dec` (degrees; `glon`, `glat` and so on where that is in another system;
    errors are of these numbers, without a cosine), `flux` or `flux_i` and so on (the image's
    units), `p_star`, `half_light_radius` (of the circle of equal area, pixels, before the PSF),
    `ellipticity` (1 - b/a), `angle` (degrees from the x axis to the y axis), each with `_err`, the
    standard deviation; `flags` (1 blended, 2 at the edge, 4 masked pixels, 8 fluxes uncertain).
    Radius, ellipticity and angle assume that the source is a galaxy; see `p_star`.
    """
    from astropy.table import Table

    table = Table()
    table["id"] = np.arange(1, len(rows) + 1)
    for name in ("x", "y", "x_err", "y_err"):
        table[name] = np.array([getattr(r, name) for r in rows], float)
    if field.wcs is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the WCS's age
            sky = _on_sky(field.wcs, table["x"], table["y"])
            across = _on_sky(field.wcs, table["x"] + STEP, table["y"]) - sky
            upwards = _on_sky(field.wcs, table["x"], table["y"] + STEP) - sky
        names = [t.strip().lower() for t in (field.wcs.wcs.lngtyp, field.wcs.wcs.lattyp)]
        for name, values in zip(names, sky, strict=True):
            table[name] = values
        for name, by_x, by_y in zip(names, across, upwards, strict=True):
            slopes = [((by + 180) % 360 - 180) / STEP for by in (by_x, by_y)]  # 359.9 is near 0
            table[f"{name}_err"] = np.hypot(slopes[0] * table["x_err"], slopes[1] * table["y_err"])
    for b, band in enumerate(field.filters):
        end = f"_{band}" if band else ""
        table[f"flux{end}"] = np.array([r.flux[b] for r in rows], float)
        table[f"flux_err{end}"] = np.array([r.flux_err[b] for r in rows], float)
    p = np.array([r.p_star for r in rows], float)
    table["p_star"], table["p_star_err"] = p, np.sqrt(p * (1 - p))
    for name, key in (
        ("half_light_radius", "radius"),
        ("ellipticity", "ellipticity"),
        ("angle", "angle"),
    ):
        table[name] = np.array([getattr(r, key)[0] for r in rows], float)
        table[f"{name}_err"] = np.array([getattr(r, key)[1] for r in rows], float)
    table["flags"] = np.array([r.flags for r in rows], int)
    table.meta["FIELD"], table.meta["PSFWIDTH"] = field.name, width
    return table, {i + 1: r.draws for i, r in enumerate(rows) if r.draws.size}


def _on_sky(wcs: Any, x: Any, y: Any) -> np.ndarray:
    """Return longitudes and latitudes in degrees, whichever comes first in the WCS, (2, n)."""
    found = wcs.all_pix2world(x, y, 0)
    return np.array([np.asarray(found[axis], float) for axis in (wcs.wcs.lng, wcs.wcs.lat)])
