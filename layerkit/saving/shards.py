"""Shards: a folder of files with an index, which data layers read as one set.

`index.json` lists the files under "parts", in order, from the start.  Beside each file that is
complete lies a small JSON file with its counts, written after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerkit.errors import LayerkitError

INDEX = "index.json"
KEPT = "kept"  # among the counts of a shard: how many rows it has

Errors = Callable[[str], LayerkitError]


def read_index(folder: Path, error: Errors) -> dict[str, Any]:
    """Read the index of a folder.

    Raises:
        error: there is none, or it is damaged.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
        if not all(is_plain(part["file"]) for part in index["parts"]):
            raise ValueError("parts must be files of this folder")
    except FileNotFoundError as problem:
        raise error(
            f"cannot open {folder}: a directory without {INDEX}, so no set in shards; give a file"
        ) from problem
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise error(f"{path}: no index of a set in shards ({problem!r})") from problem
    return index


def is_plain(name: Any) -> bool:
    """Tell whether a name is that of a file in the folder itself."""
    return isinstance(name, str) and Path(name).name == name


def counts_of(file: Path) -> dict[str, Any] | None:
    """Return the counts of a file that is complete, or None."""
    try:
        found = json.loads(file.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    return found if _are_counts(found) and file.is_file() else None


def _are_counts(found: Any) -> bool:
    """Tell whether something is a dict of whole numbers, or of dicts of these."""
    return isinstance(found, dict) and all(
        type(value) is int or (isinstance(value, dict) and set(map(type, value.values())) <= {int})
        for value in found.values()
    )


def check_count(shard: Path, count: int, error: Errors) -> None:
    """Fail if a file of a set holds another number of rows than were written into it.

    Raises:
        error: it does.
    """
    written = (counts_of(shard) or {}).get(KEPT, count)
    if count != written:
        raise error(
            f"{shard}: {count} rows, and {written} were written; remove the file, and make the "
            "rest again by the command that began it, with --resume"
        )


def finished(folder: Path, error: Errors) -> list[tuple[Path, dict[str, Any]]]:
    """List the files of a set and their counts, in order.

    Raises:
        error: see `read_index`; or files are missing.
    """
    files = [folder / part["file"] for part in read_index(folder, error)["parts"]]
    counts = [(file, found) for file in files if (found := counts_of(file)) is not None]
    if len(counts) < len(files) or not files:
        raise error(
            f"{folder}: {len(files) - len(counts)} of {len(files)} parts are missing; make the "
            "rest by the command that began it, with --resume"
        )
    return counts


def shards_of(folder: Path, error: Errors) -> list[Path]:
    """List the files of a set that have rows, in order; see `finished`."""
    files = [file for file, counts in finished(folder, error) if counts.get(KEPT, 1)]
    if not files:
        raise error(f"{folder}: a set in shards without a single row")
    return files
