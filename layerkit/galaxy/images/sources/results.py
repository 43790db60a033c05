"""Results of training runs that lie among pictures, and must not be taken for pictures."""

from __future__ import annotations

from collections.abc import Callable

from layerkit.galaxy.layout import GALAXIES, METRICS, REPORT, SHEETS, is_result


def without_results(files: list[str], is_prepared: Callable[[str], bool]) -> list[str]:
    """Leave out the files that training runs have written.

    A run's folder is left out with all that is in it.  If the top folder is one, only files that
    bear a result's name are.  Prepared galaxies are left out under any name, and so are the contact
    sheets beside them.

    Args:
        files: paths relative to the top folder, with "/" between folders.
        is_prepared: tells whether the file of this path is a prepared set of galaxies.

    Returns:
        The paths that are left, in the order of `files`.
    """
    prepared = {f for f in files if f.lower().endswith((".h5", ".hdf5")) and is_prepared(f)}
    there = set(files)
    # A run has written its report, or at least the galaxies that it prepared.
    runs = {_folder(f) for f in prepared if _name(f) == GALAXIES}
    runs |= {_folder(f) for f in files if _name(f) == REPORT and _beside(f, METRICS) in there}
    settings = {f"{f}.toml" for f in prepared}  # of the commands that made them
    sheets = tuple(_beside(f, f"{SHEETS}/") for f in prepared)

    def is_kept(path: str) -> bool:
        parts = path.split("/")
        above = {"/".join(parts[:k]) for k in range(1, len(parts))}
        in_run = above & runs or ("" in runs and is_result(parts[0]))
        return not (in_run or path in prepared | settings or path.startswith(sheets))

    return [path for path in files if is_kept(path)]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _beside(path: str, name: str) -> str:
    """Return the path of `name` in the folder of another path."""
    return path[: len(path) - len(_name(path))] + name
