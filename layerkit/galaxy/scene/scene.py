"""measure: from a field to its catalogue, model image and residual."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.galaxy.scene.images.background import background
from layerkit.galaxy.scene.images.detection import THRESHOLD, detect, significance, spread_of
from layerkit.galaxy.scene.images.field import Field
from layerkit.galaxy.scene.images.psf import estimate_psf, width_of
from layerkit.galaxy.scene.images.rays import sharp_pixels
from layerkit.galaxy.scene.inference.fitting import Pixels
from layerkit.galaxy.scene.inference.proposing import STAR, moved, new_source
from layerkit.galaxy.scene.inference.tiles import tiles_of
from layerkit.galaxy.scene.model.learned import learned_light
from layerkit.galaxy.scene.model.light import Light, Spergel
from layerkit.galaxy.scene.results.catalogue import Row, table_of
from layerkit.galaxy.scene.tile_runs import Job, fit_tiles
from layerkit.settings import Number, Optional, Truth, Whole, accept

MOST_SOURCES = 60  # of a tile's core: the time of a step grows with the square of their number
LEAST_TILE = 48  # pixels
LARGE = 96  # pixels a side from which a field tells how its noise is correlated
CORRELATED = 1.15  # deviation of matched noise above which it is taken to be
LIGHTS: dict[str, Callable[[], Light]] = {"learned": learned_light, "spergel": Spergel}


@dataclasses.dataclass
class Scene:
    """A field as measured.

    Attributes:
        field: the field.
        table: the catalogue, an astropy Table; see layerkit.galaxy.scene.results.catalogue.
        model, background, residual: shape (bands, height, width); the model has no background,
            and the residual is the field less both, NaN where masked.
        weights: inverse variances, 0 where masked, with the noise of the sources.
        psfs: shape (bands, p, p).
        width: full width at half maximum of the PSF, in pixels.
        samples: draws from the posterior of each source, by its id, where asked for.
        notes: lines about what was found and assumed.
    """

    field: Field
    table: Any
    model: np.ndarray
    background: np.ndarray
    residual: np.ndarray
    weights: np.ndarray
    psfs: np.ndarray
    width: float
    samples: dict[int, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def chi_square(self) -> float:
        """Mean squared residual in units of the noise, over pixels that are not masked."""
        used = self.weights > 0
        return float((self.residual[used] ** 2 * self.weights[used]).mean())


def measure(
    field: Field,
    *,
    threshold: float = THRESHOLD,
    gain: float | None = None,
    star: float = STAR,
    light: str | Light = "spergel",
    samples: int = 0,
    tile: int = 256,
    workers: int = 1,
    keep: str | os.PathLike[str] | None = None,
    subtract: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> Scene:
    """Find the stars and galaxies of a field, and fit all of them together.

    Args:
        field: see `layerkit.galaxy.scene.read_field`.
        threshold: least signal to noise of a detection.
        gain: electrons for each unit of brightness, for the noise of the sources themselves; by
            default it is in the variance, if that is given, else estimated from the residuals.
        star: prior probability that a source is a star.
        light: what galaxies look like before the PSF: "spergel" for Spergel's profiles, "learned"
            for the net that comes with layerkit, or a Light of one's own.
        samples: how many draws from each source's posterior to return.
        tile: side of the tiles that large fields are cut into, in pixels.
        workers: processes that fit tiles at once; the results do not depend on it.
        keep: folder that each tile is kept in once fitted; tiles found there, of the same field and
            settings, are not fitted again.  None, the default, keeps nothing.
        subtract: takes a smooth background away first.
        tell: called with a line about every stage.

    Raises:
        DataError: nothing can be measured, or a setting that makes no sense.
    """
    if not isinstance(field, Field):
        raise DataError(f"measure: expected a Field, as read_field returns it, got {brief(field)}")
    for name, value, rule in (
        ("threshold", threshold, Number(above=0)),
        ("gain", gain, Optional(Number(above=0))),
        ("samples", samples, Whole()),
        ("tile", tile, Whole(least=1)),
        ("star", star, Number(above=0, below=1)),
        ("workers", workers, Whole(least=1)),
        ("subtract", subtract, Truth()),
    ):
        accept(rule, value, name, "measure", DataError)
    if isinstance(light, str) and light in LIGHTS:
        light = LIGHTS[light]()
    if isinstance(light, str | type) or not hasattr(light, "transform"):
        raise DataError(f"light: one of {', '.join(LIGHTS)}, or a Light, got {brief(light)}")
    if not callable(tell):
        raise DataError(f"measure: tell must be a function that takes a line, got {brief(tell)}")
    notes = list(field.notes)
    shape = field.images.shape
    sky = np.zeros(shape)
    weights = np.zeros(shape)
    for b, (image, usable) in enumerate(zip(field.images, field.usable, strict=True)):
        level, noise = background(image, usable)
        if subtract:
            sky[b] = level
        variance = noise**2 if field.variance is None else field.variance[b]
        weights[b] = np.where(usable, 1 / variance, 0)
    if field.variance is None:
        notes.append("no variance: the noise is estimated from the image")
    values = np.where(field.usable, field.images - sky, 0.0)
    psfs = field.psfs
    if psfs is None:
        psfs, note = estimate_psf(values, weights)
        notes.append(note)
    if (rays := sharp_pixels(values, weights, psfs)).any():
        values[rays] = weights[rays] = 0
        notes.append(f"{int(rays.sum()):,} pixels sharper than the PSF, as of cosmic rays, masked")
    width = float(np.mean([width_of(p) for p in psfs]))
    if field.variance is None and min(shape[1:]) >= LARGE:
        bands = [slice(b, b + 1) for b in range(len(values))]
        spread = max(spread_of(significance(values[b], weights[b], psfs[b])[0]) for b in bands)
        if spread > CORRELATED:
            weights /= spread**2
            notes.append(
                f"neighbouring pixels' noise goes together: taken {spread:.1f} times larger"
            )
    whole = Pixels(values, weights, psfs, width, light)
    found = detect(values, weights, psfs, width, threshold)
    tell(f"{len(found)} detections, a PSF {width:.1f} pixels wide")

    model = np.zeros(shape)
    final = weights.copy()
    rows: list[Row] = []
    most = np.sqrt(MOST_SOURCES * shape[1] * shape[2] / max(1, len(found)))
    tile = max(LEAST_TILE, min(tile, int(most)))
    cuts = tiles_of(shape[1], shape[2], tile, int(np.ceil(psfs.shape[-1] / 2 + 2 * width)))
    jobs = [
        Job(
            cut,
            cut.of(whole),
            [moved(new_source(f, whole), -cut.x, -cut.y) for f in found if cut.holds(f.x, f.y)],
            star,
            threshold,
            samples,
            gain is not None or field.variance is None,
            gain,
        )
        for cut in cuts
    ]
    fitted = fit_tiles(jobs, workers=workers, folder=keep, tell=tell)
    for cut, done in zip(cuts, fitted, strict=True):
        rows += done.rows
        model[:, *cut.core] = done.model
        final[:, *cut.core] = done.weights
    rows = _without_doubles(rows, 0.3 * width)
    rows.sort(key=lambda r: -float(r.flux.sum()))
    table, draws = table_of(rows, field, width)
    residual = np.where(field.usable, values - model, np.nan)
    tell(f"{len(rows)} sources in the catalogue")
    return Scene(field, table, model, sky, residual, final, psfs, width, draws, notes)


def _without_doubles(rows: list[Row], apart: float) -> list[Row]:
    """Drop sources that two tiles found, the fainter of each pair."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: -float(r.flux.sum())):
        double = any(
            row.tile != k.tile and np.hypot(row.x - k.x, row.y - k.y) < apart for k in kept
        )
        if not double:
            kept.append(row)
    return kept
