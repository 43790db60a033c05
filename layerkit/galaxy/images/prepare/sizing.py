"""The size at which to prepare galaxies, so that no crop is enlarged beyond its data."""

from __future__ import annotations

import numpy as np

from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.prepare.prepare import cuts
from layerkit.galaxy.images.sources.sources import Source

SAMPLE = 200  # pictures that are cut out to see how large crops are
SMALLEST = 16  # pixels on a side; a smaller galaxy shows no shape


def native_size(
    source: Source, limit: int | None = None, most: int = Settings.size, units: str = Settings.units
) -> int:
    """Choose the size of prepared galaxies: the median side of the crops, but at most `most`.

    Enlarging a crop adds no information; its pixels share their noise, and a likelihood that takes
    them for independent is overconfident.

    Args:
        source: the pictures; `SAMPLE` of them, evenly spread, are cut out.
        limit: use only the first `limit` pictures.
        most: the size to choose where crops are larger.
        units: see `Settings`; those that keep more pictures show the crops of more.

    Returns:
        Pixels on a side, from `SMALLEST` to `most`; `most` if no galaxy can be cut out.
    """
    total = len(source) if limit is None else min(limit, len(source))
    sample = np.unique(np.linspace(0, max(total - 1, 0), min(total, SAMPLE)).astype(int))
    workers = (
        1 if total <= SAMPLE else 2
    )  # so that a picture may crash a worker, but not this process
    found = cuts(source, sample.tolist(), Settings(size=most, units=units), workers)
    sides = [result[1].side for result in found if not isinstance(result, str)]
    if not sides:
        return most
    return int(min(most, max(SMALLEST, np.floor(np.median(sides)))))
