"""Files whose names say that they are weights, masks, models or the like of another file."""

from __future__ import annotations

import re

from layerkit.galaxy.images.decode.science import is_no_science, is_science
from layerkit.galaxy.images.sources.ids import SUFFIX

LAST_WORD = re.compile(r"(.*[^/])[-_.]([A-Za-z]+)", re.DOTALL)


def companions(names: list[str]) -> set[int]:
    """Find the files that are named as weights, a mask, a model or the like of another file.

    `ngc1_mask.png` and `ngc1.weight.fits` are such files if there is an `ngc1.fits` or an
    `ngc1_sci.fits`.  The words are those that `science` knows, without digits.

    Args:
        names: paths with "/" between folders.

    Returns:
        The positions of such files in `names`.
    """
    plain = [SUFFIX.sub("", name) for name in names]
    there = set(plain)
    there |= {m[1] for name in plain if (m := LAST_WORD.fullmatch(name)) and is_science(m[2])}
    return {
        k
        for k, name in enumerate(plain)
        if (m := LAST_WORD.fullmatch(name)) and is_no_science(m[2]) and m[1] in there
    }
