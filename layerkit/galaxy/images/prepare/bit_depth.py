"""How many bits a set of 16-bit pictures uses, which no header says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerkit.galaxy.images.crop.crop import DEEPEST
from layerkit.galaxy.images.prepare.workers import or_reason, results_of
from layerkit.galaxy.images.sources.sources import Source

MARK = 65535  # may mark saturated or bad pixels


def white_value(source: Source, items: Sequence[int], workers: int | None) -> float:
    """Find the value of white in 16-bit pictures: the largest value of the bits that are used.

    Cameras use 10, 12 or 14 of the 16 bits.

    Args:
        source: the pictures; those in `source.deep` are 16-bit.
        items: numbers of the pictures to look at.
        workers: see `prepare`.

    Returns:
        2^bits - 1 for the bits that the brightest picture needs, at least 8.
    """
    deep = sorted(set(items).intersection(getattr(source, "deep", ())))
    largest = [x for x in results_of(_Largest(source), deep, workers) if not isinstance(x, str)]
    return float(2 ** max(8, max(largest).bit_length()) - 1) if largest else DEEPEST


@dataclass(frozen=True)
class _Largest:
    """The job of finding the largest value in picture `i`; see `largest_value`."""

    source: Source

    def __call__(self, i: int) -> int | str:
        return or_reason(lambda: largest_value(self.source.read(i)))


def largest_value(image: np.ndarray) -> int:
    """Return the largest value that two adjacent pixels of a uint16 picture reach.

    A hot pixel does not count, therefore.  Neither does 65535 if all other values are far below it,
    as it then marks saturated or bad pixels.
    """
    largest = _largest_pair(image)
    if largest == MARK:
        light = _largest_pair(np.where(image == MARK, 0, image))
        return light if 0 < light < MARK // 4 else largest
    return largest


def _largest_pair(image: np.ndarray) -> int:
    pairs = (np.minimum(image[1:], image[:-1]), np.minimum(image[:, 1:], image[:, :-1]))
    return max(int(pair.max(initial=0)) for pair in pairs)
