"""How many pixels galaxies should be prepared at: no more than the data hold."""

from __future__ import annotations

import numpy as np

from layerkit.galaxy.images.prepare.prepare import Settings, cuts
from layerkit.galaxy.images.sources.sources import Source

LOOKED_AT = 200  # pictures
SMALLEST = 16  # pixels on a side, below which a galaxy has no shape to speak of


def native_size(source: Source, limit: int | None = None, most: int = Settings.size) -> int:
    """Choose the side of prepared galaxies: the median side of the crops, or `most` if less.

    Enlarging a crop makes no information but pixels that share their noise, and a likelihood that
    takes them for independent is surer than the data.  Larger crops lose what they have more.

    Args:
        source: of pictures; `LOOKED_AT` of them, evenly spread, are cut out.
        limit: only the first so many pictures count.
        most: the side at which galaxies are prepared where crops are larger.

    Returns:
        A number of pixels from `SMALLEST` to `most`; `most` where nothing can be cut out.
    """
    total = len(source) if limit is None else min(limit, len(source))
    looked_at = np.unique(np.linspace(0, max(total - 1, 0), min(total, LOOKED_AT)).astype(int))
    workers = 1 if total <= LOOKED_AT else 2  # where a picture may kill the process, not this one
    found = cuts(source, looked_at.tolist(), Settings(size=most), workers)
    sides = [result[1].side for result in found if not isinstance(result, str)]
    if not sides:
        return most
    return int(min(most, max(SMALLEST, np.floor(np.median(sides)))))
