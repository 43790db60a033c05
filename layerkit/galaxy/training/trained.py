"""Finished runs: the model in the folder of one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from layerkit import netfile
from layerkit.errors import NetError, SnapshotError
from layerkit.files import path_of
from layerkit.galaxy.layout import MODEL
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.report.metrics import read_metrics
from layerkit.galaxy.training.nets import size_settings
from layerkit.galaxy.training.resuming import saved_settings
from layerkit.galaxy.training.settings import Settings
from layerkit.loading import load
from layerkit.net import Net
from layerkit.settings import fitting
from layerkit.snapshot import read_extra


def read_finished(folder: Path) -> dict[str, Any]:
    """Return the `extra` of the snapshot in a folder, if training is done there.

    Raises:
        SnapshotError: there is no snapshot, it is of no training run, or training is not done.
    """
    file = folder / MODEL
    if not file.exists():
        raise SnapshotError(f"{folder} holds no finished run: there is no {MODEL}")
    extra = read_extra(file)
    saved_settings(file, extra)
    if extra.get("done") is not True:
        raise SnapshotError(f"{file} is not trained to the end; resume the run first")
    return extra


def picture_side(folder: Path) -> int:
    """Return how many pixels the pictures of a finished run have on a side.

    Raises:
        DataError: its metrics.json is missing, unreadable, or does not say so.
    """
    found = re.fullmatch(r"(\d+) x \1", str(metrics := read_metrics(folder).get("pixels")))
    if not found:
        raise SnapshotError(f"{folder}: metrics.json gives pixels as {metrics!r}, not as 69 x 69")
    return int(found[1])


@fitting(SnapshotError)
def load_model(folder: str | os.PathLike[str], backend: str = "auto") -> GalaxyModel:
    """Return the model of a finished run of `train`, with its temperatures.

    The net is the one the run was trained with, whatever has become of its file.

    Args:
        folder: of the run.
        backend: "auto", the default, "numpy" or "cupy".

    Raises:
        SnapshotError, DataError, NetFileError: the folder holds no finished run, or parts of it are
            missing or damaged.
    """
    folder = path_of(folder, SnapshotError)
    extra = read_finished(folder)
    file = folder / MODEL
    settings = Settings(**saved_settings(file, extra))
    text, place, values = extra.get("net_text"), Path(settings.net), settings.net_values()
    if not isinstance(text, str):
        raise SnapshotError(f"{file} lacks the text of its net; train again")
    known = netfile.settings_of(text, place, values)
    sized = size_settings(settings, known, picture_side(folder))
    net = Net(netfile.layers_of(text, place, {**values, **sized}), 1, backend, phase="test")
    load(file, net)
    try:
        return GalaxyModel(net, extra.get("latent_temperature", 1.0))
    except NetError as error:
        raise SnapshotError(f"{file} cannot be used: {error}") from error
