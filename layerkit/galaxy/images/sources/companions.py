"""Files that by their names belong to the picture in another file: weights, masks, models."""

from __future__ import annotations

import re

from layerkit.galaxy.images.decode.science import is_no_science, is_science
from layerkit.galaxy.images.sources.ids import SUFFIX

LAST_WORD = re.compile(r"(.*[^/])[-_.]([A-Za-z]+)", re.DOTALL)


def companions(names: list[str]) -> set[int]:
    """Find the files that say by their names to hold no light but what belongs to another file.

    Such are `ngc1_mask.png` or `ngc1.weight.fits` where there is an `ngc1.fits` or an
    `ngc1_sci.fits`.  The words are those for the extensions of FITS files, without numbers.
    """
    plain = [SUFFIX.sub("", name) for name in names]
    there = set(plain)
    there |= {m[1] for name in plain if (m := LAST_WORD.fullmatch(name)) and is_science(m[2])}
    return {
        k
        for k, name in enumerate(plain)
        if (m := LAST_WORD.fullmatch(name)) and is_no_science(m[2]) and m[1] in there
    }
