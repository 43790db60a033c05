"""Encoding: what a trained model says of each picture of a source, as a table."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.data.arrays import joined
from layerkit.errors import DataError, brief
from layerkit.galaxy.catalogue.photometry.flux import FLUXES
from layerkit.galaxy.catalogue.pictures import Picture, Pictures, pictures_of
from layerkit.galaxy.catalogue.tables.rows import SCALED, Encoder
from layerkit.galaxy.catalogue.trained import Trained, load_trained
from layerkit.galaxy.evaluation.bounds import of_whole_images
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.prepared import GalaxySet
from layerkit.galaxy.images.sources.sources import Source
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import check_images
from layerkit.settings import Number, Optional, Whole, accept, fitting
from layerkit.system.bars import watched

if TYPE_CHECKING:
    from astropy.table import Table

DRAWS = 8  # from q(z | x), by which summaries get their uncertainty


@fitting(DataError)
@np.errstate(under="ignore")
def encode(
    model: GalaxyModel | str | os.PathLike[str],
    source: Source | GalaxySet | str | os.PathLike[str] | None,
    *,
    refine: int = 0,
    draws: int = DRAWS,
    batch: int = 256,
    reference: np.ndarray | GalaxySet | None = None,
    limit: int | None = None,
    hdu: int | str | None = None,
    pixel_scale: float | None = None,
    units: str | None = None,
    zero_point: float | None = None,
    gain: float | None = None,
    workers: int | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> Table:
    """Encode the pictures of a source: an astropy table with a row for each, in their order.

    Pictures are read, encoded and forgotten batch by batch; only the table grows with their number.
    Rows of unusable pictures hold their id and file, the reason, and NaN.

    The columns are `id`; `file`, its name in the source; `reason`, why it is unusable, or empty;
    `refined`; those of COLUMNS; `z_mean_0`, `z_mean_1`, ..., `z_sd_0`, ... at the model's
    temperature; and those of SUMMARIES, measured on the reconstruction in linear light, each
    followed by its standard deviation over draws from q(z | x), as `axis_ratio_sd`.  If the
    scale of any picture is known there are `pixel_scale`, `half_light_radius_arcsec` and
    `half_light_radius_arcsec_sd`, too.

    If any picture is in physical units there are those of FLUXES, too: fluxes and magnitudes, and
    the sky that is not in them; `catalogue.photometry.flux` says how they are measured.  Pixels
    without data, and those of a mask beside a picture, count for nothing in fluxes, and in units
    "linear" in no other number either; in units "stretched" a galaxy with NaN in its square is
    unusable.

    The percentile ranks a bound among those of galaxies that training never saw, computed alike: of
    new galaxies of their kind a hundredth lies below 1.  Galaxies that the model was trained on
    rank too high.  It is NaN without such bounds, which `meta` and `unranked` then explain.
    The bound of a galaxy with missing pixels is ranked as if they were as likely as its others.

    Args:
        model: the model; or the folder or `model.h5` of a training run, which also says how to crop
            and which galaxies were held out.  See `load_model` on security.
        source: anything that `open_source` accepts, an open source, or a prepared set.
        refine: gradient steps for each picture from what the encoder says, see `refine`; default 0.
        draws: from q(z | x) for the standard deviations of summaries, default 8; 0 gives NaN.
        batch: pictures that are encoded at a time, default 256.
        reference: galaxies to rank bounds among, prepared as for the model and not trained on,
            (n, side, side); by default those that the run held out: by the bounds stored with the
            model, of the encoder and refined by as many steps as in the run's evaluation; for
            another number of steps by the galaxies in the run's folder, if they are there.
        limit: use only the first `limit` pictures.
        hdu: see `open_source`.
        pixel_scale: arcseconds per pixel of all pictures; by default what the WCS of each says.
            Prepared sets hold no WCS.
        units: "stretched" or "linear", see `prepare`; by default those that the model was trained
            on.
        zero_point: magnitude of a flux of 1; by default what the header of each picture says.
        gain: electrons per unit of the pictures; by default what the header of each says.  It adds
            the noise of a galaxy's own light, unless its file holds the variance of the noise.
        workers: processes that read pictures; see `prepare`.
        backend: where a model that is loaded runs: "auto", the default, "numpy" or "cupy".
        progress: shows a bar.

    Returns:
        The table.  Its `meta` says what it was made of: SOURCE, MODEL, REFINE, DRAWS, ROWORDER,
        UNITS; and RANKED, among how many bounds the percentile ranks, with NORANKS, the reason, if
        that is 0.

    Raises:
        DataError: a source that cannot be opened, galaxies of another size than the model's, or
            an argument out of range.
        SnapshotError: no trained model at the path.
    """
    refine = accept(Whole(), refine, "refine", "encode", DataError)
    draws = accept(Whole(), draws, "draws", "encode", DataError)
    batch = accept(Whole(least=1), batch, "batch", "encode", DataError)
    limit = accept(Optional(Whole(least=1)), limit, "limit", "encode", DataError)
    workers = accept(Optional(Whole(least=0)), workers, "workers", "encode", DataError)
    pixel_scale = accept(Optional(Number(above=0)), pixel_scale, "pixel_scale", "encode", DataError)
    zero_point = accept(Optional(Number()), zero_point, "zero_point", "encode", DataError)
    gain = accept(Optional(Number(above=0)), gain, "gain", "encode", DataError)
    name, bounds, no_ranks = "", np.zeros(0), "no reference galaxies"
    if isinstance(model, str | os.PathLike):
        trained = load_trained(model, backend, batch)
        model, name = trained.model, str(trained.path)
        if reference is None:
            reference = trained.held_out
            bounds = trained.held_out_bounds.get(refine, bounds)
            no_ranks = _no_ranks(trained, refine)
    elif not isinstance(model, GalaxyModel):
        raise DataError(
            f"encode: expected a GalaxyModel, or the path of a training run, got {brief(model)}"
        )
    side = math.isqrt(model.pixels)
    if side * side != model.pixels:
        raise DataError(
            f"encode: the model takes {model.pixels} pixels, and galaxies are square; take a model "
            f"of {side * side} or {(side + 1) ** 2}"
        )
    settings = replace(model.preparation or Settings(), size=side)
    settings = settings if units is None else replace(settings, units=units)
    pictures = pictures_of(source, settings, workers, limit, hdu)
    images = reference.images if isinstance(reference, GalaxySet) else reference
    if images is not None:
        images = check_images(images, model.pixels)
    encoder = Encoder(model, refine, draws, pictures.row_order, zero_point, gain)

    def among() -> np.ndarray:
        if len(bounds) or images is None or not len(images):
            return bounds
        return _bounds(encoder, images, batch)

    table = model.net.run.same_noise(
        lambda: _table(encoder, pictures, batch, progress, among, pixel_scale)
    )
    table.meta |= {
        "SOURCE": pictures.name, "MODEL": name, "REFINE": refine, "DRAWS": draws,
        "ROWORDER": pictures.row_order, "UNITS": settings.units,
    }  # fmt: skip
    if not table.meta["RANKED"]:
        table.meta["NORANKS"] = no_ranks
    return table


def unusable(table: Table) -> dict[str, int]:
    """Count the unusable pictures of a catalogue by reason, most frequent first."""
    return dict(Counter(reason for reason in table["reason"] if reason).most_common())


def unranked(table: Table) -> str | None:
    """Return why a catalogue has no percentiles of bounds; None if it has some."""
    return table.meta.get("NORANKS")


def _no_ranks(trained: Trained, refine: int) -> str:
    """Say why a model's file ranks no bounds refined by so many steps, and which it does."""
    known = sorted(steps for steps, found in trained.held_out_bounds.items() if len(found))
    if not known:
        return "the model's file holds no bounds of held-out galaxies"
    steps = " or ".join(map(str, known))
    return f"the model's file ranks bounds refined by {steps} steps, not by {refine}"


def _table(
    encoder: Encoder,
    pictures: Pictures,
    batch: int,
    progress: bool,
    among: Callable[[], np.ndarray],
    pixel_scale: float | None,
) -> Table:
    from astropy.table import Column, Table  # slow to import

    numbers = np.full((pictures.total, len(encoder.columns)), math.nan)
    texts: dict[str, list[str]] = {"id": [], "file": [], "reason": []}
    items = watched(pictures.items, "encode", "images", progress, pictures.total)
    for pending in _batches(items, batch):
        usable = [(len(texts["id"]) + k, p) for k, p in enumerate(pending) if p.image is not None]
        for key, values in texts.items():
            values += [getattr(picture, key) for picture in pending]
        if usable:
            images = joined([p.image[None] for _, p in usable if p.image is not None])
            cuts = [p.cut for _, p in usable if p.cut is not None]
            scales = np.array([p.scale if pixel_scale is None else pixel_scale for _, p in usable])
            stamps = [p.stamp for _, p in usable]
            numbers[[row for row, _ in usable]] = encoder.rows(images, cuts, scales, stamps)
    at = {name: k for k, name in enumerate(encoder.columns)}
    reference = among()
    ranked = at["bound_percentile"]  # where the rows have what is ranked
    numbers[:, ranked] = percentiles(numbers[:, ranked], reference)
    table = Table({name: Column(np.array(column, str)) for name, column in texts.items()})
    table["refined"] = np.array([encoder.steps > 0 and not r for r in texts["reason"]], bool)
    unknown = set[str]()
    for names in (SCALED, FLUXES):
        if np.isnan(numbers[:, [at[name] for name in names]]).all():
            unknown.update(names)
    for name, (unit, text) in encoder.columns.items():
        if name in unknown:
            continue
        column = np.ascontiguousarray(numbers[:, at[name]])
        table[name] = Column(column, unit=unit or None, description=text)
    table.meta["RANKED"] = int(np.isfinite(reference).sum())
    return table


def _batches(items: Any, size: int) -> Iterator[list[Picture]]:
    """Yield lists of successive pictures with `size` usable ones each, but for the last."""
    pending, usable = list[Picture](), 0
    for picture in items:
        pending.append(picture)
        usable += picture.image is not None
        if usable == size:
            yield pending
            pending, usable = [], 0
    if pending:
        yield pending


def _bounds(encoder: Encoder, images: np.ndarray, batch: int) -> np.ndarray:
    """Compute the bounds of reference images, (n,)."""
    parts = (images[k : k + batch] for k in range(0, len(images), batch))
    return np.concatenate(
        [of_whole_images(encoder.bound(x, encoder.posterior(x))[0], x) for x in parts]
    )


def percentiles(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute the percentage of reference values below each value, half of the equal ones counted.

    Args:
        values: (n,); NaN stays NaN.
        reference: (m,).
    """
    ordered = np.sort(reference[np.isfinite(reference)])
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    ranks = 100 * (below + upto) / (2 * max(len(ordered), 1))
    return np.where(np.isfinite(values) & (len(ordered) > 0), ranks, math.nan)
