"""Finished runs: the model in the folder of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerkit.errors import SnapshotError
from layerkit.galaxy.layout import MODEL
from layerkit.galaxy.training.resuming import saved_settings
from layerkit.saving.snapshot import read_extra


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
