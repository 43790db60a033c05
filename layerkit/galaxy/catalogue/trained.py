"""Trained models, as a training run leaves them in its folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layerkit import netfile
from layerkit.errors import DataError, LayerkitError, NetError, SnapshotError
from layerkit.galaxy.catalogue.boxes import DEFAULT, find_model, save_small
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.prepared import is_prepared, split, spread_out
from layerkit.galaxy.images.stored import StoredSet
from layerkit.galaxy.layout import GALAXIES
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.population.stored import restore_population
from layerkit.net import Net
from layerkit.saving import snapshot
from layerkit.saving.loading import load
from layerkit.settings import fitting

HELD_OUT = 1000  # galaxies that a run holds out unless told otherwise, or a fifth where few


@fitting(SnapshotError)
def export_model(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: Literal["float16", "float32"] = "float16",
) -> GalaxyModel:
    """Write the model of a training run as a small file, to be given away.

    It holds what `load_model` reads: no history, no state of the solver, no paths.

    Args:
        run: see `load_model`.
        out: the file.
        dtype: of parameters in it; "float16", the default, keeps three digits of each.

    Returns:
        The model as it is loaded from the file.

    Raises:
        SnapshotError: see `load_model`; or the file cannot be written.
    """
    model, _, extra = _load(run, "auto", 256)
    save_small(model, extra, out, dtype)
    return load_model(out)


@dataclass
class Trained:
    """A trained model and what is known of the galaxies that it was trained and evaluated on.

    Attributes:
        model: the model, with its temperatures and its preparation.
        path: of its snapshot.
        held_out: up to 500 galaxies that training never saw, (n, side, side); none if the run's
            prepared galaxies are not where it left them.
        held_out_bounds: bounds of these galaxies, as the run stored them, by the number of steps
            that refined their posteriors: 0 for the encoder's.
    """

    model: GalaxyModel
    path: Path
    held_out: np.ndarray
    held_out_bounds: dict[int, np.ndarray]


@fitting(SnapshotError)
def load_model(
    path: str | os.PathLike[str] = DEFAULT, *, backend: str = "auto", batch_size: int = 256
) -> GalaxyModel:
    """Load a trained model: one that comes with layerkit, or that a training run has saved.

    **Security.** The snapshot holds the Python text of the net file, which is run: load models of
    people you trust.

    Args:
        path: a run's folder, the `model.h5` in it, or the name of a model that comes with layerkit:
            "galaxy_zoo", the default; galaxy/boxed/galaxy_zoo.md says what it is.
        backend: "numpy", "cupy" or "auto", the default, a GPU if there is one.
        batch_size: the most images in a pass, default 256.

    Returns:
        The model, with the temperatures that the run measured, its prior and noise if these were
        fitted, and its preparation: the size, units and limits by which its galaxies were cropped.

    Raises:
        SnapshotError: no snapshot there, or one that is not of a finished galaxy run.
        NetFileError: the net that the run was trained with does not run any more.
    """
    return _load(path, backend, batch_size)[0]


def load_trained(
    path: str | os.PathLike[str], backend: str = "auto", batch_size: int = 256
) -> Trained:
    """Load a model as `load_model` does, with its held-out galaxies where they can be found."""
    model, path, extra = _load(path, backend, batch_size)
    side = math.isqrt(model.pixels)
    with _not_a_run(path):
        refined = extra.get("refined_bounds") or {"steps": 0, "bounds": []}
        found = {int(refined["steps"]): refined["bounds"], 0: extra.get("held_out_bounds", [])}
        bounds = {steps: np.array(each, float).reshape(-1) for steps, each in found.items()}
    trained = Trained(model, path, np.zeros((0, side, side), np.float32), bounds)
    galaxies = _prepared(path, extra, "prepared", path.parent / GALAXIES, extra["settings"]["data"])
    if galaxies is None:
        return trained
    if "preparation" not in extra:  # a run of an earlier layerkit
        with _not_a_run(path):
            model.preparation = Settings(**galaxies.settings)
    others = _prepared(
        path, extra, "prepared_held_out", path.parent / "held_out" / GALAXIES,
        extra["settings"]["held_out"],
    )  # fmt: skip
    if others is None and "prepared_held_out" in extra:
        return trained
    ids = (others or galaxies).ids
    if "held_out_ids" in extra:
        with _not_a_run(path):
            chosen = np.flatnonzero(np.isin(ids, [str(i) for i in extra["held_out_ids"]]))
    elif others is not None:
        chosen = np.arange(len(ids))
    else:  # a run of an earlier layerkit: by the rule that it went by
        given = extra["settings"]["held_out"]
        with _not_a_run(path):
            count = min(HELD_OUT, max(1, len(ids) // 5)) if given is None else int(given)
        chosen = split(ids, count)[1]
    others = others or galaxies
    trained.held_out = others.images_of(chosen[spread_out(len(chosen))])
    return trained


def _load(
    path: str | os.PathLike[str], backend: str, batch_size: int
) -> tuple[GalaxyModel, Path, dict[str, Any]]:
    """Return the model, the path of its snapshot, and what else is in that."""
    path = find_model(path)
    extra = dict(snapshot.read_extra(path))
    with _not_a_run(path):
        text, settings = extra["net_text"], extra["settings"]
        file = path.parent / settings["net"]  # a small file knows the name alone
        values = {name: netfile.literal(value) for name, value in settings["set"].items()}
        temperature = extra["latent_temperature"]
        settings["data"], settings["held_out"]  # are there
    if extra.get("done") is not True:
        raise SnapshotError(f"{path} is not trained to the end; resume the run first")
    if not isinstance(text, str):
        raise SnapshotError(f"{path}: the text of its net file is none; train the model again")
    # A run tells its net the size of the galaxies, unless the user has.
    known = netfile.settings_of(text, file, values)
    if open_settings := {"side", "pixels"} & known.keys() - values.keys():
        model = GalaxyModel(Net(netfile.layers_of(text, file, values), 1, backend, phase="test"))
        pixels = _pixels(path, model.roles.x)
        if pixels != model.pixels:
            sizes = {"side": math.isqrt(pixels), "pixels": pixels}
            values |= {name: sizes[name] for name in open_settings}
    net = Net(netfile.layers_of(text, file, values), batch_size, backend, phase="test")
    load(path, net)
    try:
        model = GalaxyModel(net, temperature)
        with _not_a_run(path):
            model.preparation = _preparation(model, extra)
        restore_population(model, snapshot.read_arrays(path))
        return model, path, extra
    except NetError as error:
        raise SnapshotError(f"{path}: {error}") from error


def _preparation(model: GalaxyModel, extra: dict[str, Any]) -> Settings:
    """Return how galaxies were prepared for a model, from what else is in its snapshot."""
    if "preparation" in extra:
        return Settings(**extra["preparation"])
    units = extra["settings"].get("units", Settings.units)
    return Settings(size=math.isqrt(model.pixels), units=units)


def _pixels(path: Path, x: str) -> int:
    """Read from the summary of the net in a snapshot how many pixels its blob `x` has."""
    with snapshot.opened(path) as file:
        summary = file.text("net")
    found = re.search(rf"-> {re.escape(x)} +\(([\d, ]+)\)", summary)
    if found is None:
        raise SnapshotError(f"{path}: its net has no input {x!r}; train the model again")
    return math.prod(int(n) for n in found[1].split(",") if n.strip())


@contextmanager
def _not_a_run(path: Path) -> Iterator[None]:
    """Turn what goes wrong with parts of a snapshot that are missing into this file's error."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, DataError) as error:
        raise SnapshotError(
            f"{path}: not of a galaxy model that a training run has saved "
            f"({type(error).__name__}: {error}); give a run's folder, or the model.h5 in it"
        ) from error


def _prepared(
    path: Path, extra: dict[str, Any], key: str, *places: str | Path | None
) -> StoredSet | None:
    """Return the first of the sets at some places that is the one that a run knows by its digest.

    Args:
        path: of the snapshot.
        extra: its contents.
        key: of the digest in it.
        places: paths; others, such as counts, are skipped.
    """
    for place in places:
        if not isinstance(place, str | os.PathLike):
            continue
        try:
            if is_prepared(place) and (found := StoredSet(place)).digest == extra.get(key):
                return found
        except (LayerkitError, OSError, ValueError):  # damaged, or not a path at all
            continue
    return None
