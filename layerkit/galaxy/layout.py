"""Names of all that a run writes into its folder, and how to tell such a folder from pictures."""

from __future__ import annotations

import re
from pathlib import Path

GALAXIES = "galaxies.h5"  # prepared from pictures
SHEETS = "contact_sheets"  # of what was prepared; a folder
HELD_OUT = "held_out"  # a folder, with galaxies and sheets of its own
MODEL, BEST, METRICS, REPORT = "model.h5", "best.h5", "metrics.json", "report.html"
FIGURES = (
    "reconstructions",
    "embedding",
    "traversal",
    "samples",
    "learning_curves",
    "squared_error",
    "likelihood",
    "sersic_squared_error",
    "calibration",
    "morphology",
    "latent_coverage",
)
RESULTS = (MODEL, BEST, METRICS, REPORT, *(f"{name}.png" for name in FIGURES))
BEFORE = re.compile(r"before-[1-9]\d*")  # folders of earlier results


def is_result(name: str) -> bool:
    """Tell whether a run gives this name to a file or folder in its own folder."""
    return name in (*RESULTS, GALAXIES, SHEETS, HELD_OUT) or bool(BEFORE.fullmatch(name))


def holds_results(folder: Path) -> bool:
    """Tell whether a run has written its results, or the galaxies it prepared, into a folder."""
    from layerkit.galaxy.images.sources.sources import is_prepared

    finished = (folder / METRICS).is_file() and (folder / REPORT).is_file()
    return finished or is_prepared(folder / GALAXIES)


def without_results(top: Path, files: list[str]) -> list[str]:
    """Leave out of `files`, found under `top` and named from there, what runs have written.

    A run's folder is left out with all that is in it; of `top` itself, if it is one, only what
    bears a result's name.  So are prepared galaxies under any name, and the sheets beside them.
    """
    from layerkit.galaxy.images.sources.sources import is_prepared

    sets = {f for f in files if f.lower().endswith((".h5", ".hdf5")) and is_prepared(top / f)}
    sheets = tuple(f"{f[: f.rfind('/') + 1]}{SHEETS}/" for f in sets)
    mine = {f for f in files if f.rpartition("/")[2] == GALAXIES}
    files = [f for f in files if f in mine or (f not in sets and not f.startswith(sheets))]
    marks = {f.rpartition("/")[0] for f in files if f.rpartition("/")[2] in (GALAXIES, REPORT)}
    runs = {folder for folder in marks if holds_results(top / folder)}
    if not runs:
        return files

    def kept(name: str) -> bool:
        parts = name.split("/")
        above = {"/".join(parts[:k]) for k in range(1, len(parts))}
        return not above & runs and not ("" in runs and is_result(parts[0]))

    return [name for name in files if kept(name)]
