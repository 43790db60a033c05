"""Small files of trained models: those that come with layerkit, and those made of own runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from layerkit.errors import SnapshotError
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.layout import MODEL
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.population.stored import population_arrays
from layerkit.saving import snapshot
from layerkit.settings.names import quoted
from layerkit.system.files import path_of

BOXED = Path(__file__).resolve().parents[1] / "boxed"
DEFAULT = "galaxy_zoo"
OF_TRAINING = (
    "history",
    "recent",
    "trained",
    "settings",
    "held_out_ids",
)  # left out of a small file


def find_model(name: str | os.PathLike[str]) -> Path:
    """Return the path of a model's snapshot, which may be called by its name if it is boxed.

    Args:
        name: a run's folder, the `model.h5` in it, or a name such as "galaxy_zoo".

    Raises:
        SnapshotError: neither; it says which names there are.
    """
    path = path_of(name, SnapshotError)
    if path.is_dir():
        return path / MODEL
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    boxed = BOXED / f"{path}.h5"
    if not boxed.is_file():
        names = sorted(file.stem for file in BOXED.glob("*.h5"))
        raise SnapshotError(
            f"{path}: no snapshot there, and no model that comes with layerkit; those are "
            f"{quoted(names)}"
        )
    return boxed


def save_small(
    model: GalaxyModel,
    extra: dict[str, Any],
    out: str | os.PathLike[str],
    dtype: Literal["float16", "float32"] = "float16",
) -> None:
    """Write a trained model without what only training needs, and without paths of this computer.

    Args:
        model: the model, with its temperatures, prior and noise.
        extra: of the snapshot that it was loaded from.
        out: the file.
        dtype: of parameters in it.

    Raises:
        SnapshotError: the file cannot be written.
    """
    kept = {key: value for key, value in extra.items() if key not in OF_TRAINING}
    settings = extra["settings"]
    kept["settings"] = {
        **{key: value for key, value in settings.items() if isinstance(value, int | float)},
        "net": Path(settings["net"]).name,
        "set": settings["set"],
        "units": settings.get("units", Settings.units),
        "data": None,
        "held_out": None,
    }
    snapshot.save(out, model.net, None, kept, population_arrays(model), dtype)
