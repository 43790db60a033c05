"""Axes of an array: which of them count pictures, and which are a picture's sides and colours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.galaxy.images.decode.pixels import intensities

FEW = 16  # a last axis shorter than this, after longer ones, is bands: no galaxy is so narrow
NARROW = 8  # a picture of fewer pixels on one side than on the other holds no galaxy either
OTHER_AXES = "axes of uncertain order; save as (n, height, width) or (n, height, width, 3)"
FLATTENED = "rows that look like flattened pictures; save them as (n, height, width)"


class Layout:
    """How the pictures lie in an array of a given shape.

    Axes of length 1 are dropped.  Two axes are a picture; of three, a first or else a last axis of
    3 or 4 is colours or bands, which are averaged, but for those without data; a last axis of
    another length below FEW, after longer ones, counts bands, each a picture; and any other first
    axis counts pictures.  Of four, the first counts pictures and three are as above; or else the
    last counts pictures, and colours are the third, (height, width, 3, n), or the first, as in an
    array (n, height, width, 3) that MATLAB wrote in reverse.

    count: of pictures, 0 if the array holds none.  doubt: the reason, where its axes may mean
    several things.  stack: a single further axis counts pictures where it comes first, even if
    there are 3 or 4 of them.  part: the shape of one picture with its colours.
    """

    def __init__(self, shape: tuple[int, ...], stack: bool = False):
        axes = [k for k, n in enumerate(shape) if n > 1]
        sides = [shape[k] for k in axes]
        self.dimensions, self.counted, self.colours = len(shape), axes[:-2], None
        self.turned = False
        few = [n in (3, 4) for n in sides]
        stack = stack and len(sides) == 3 and axes[0] == 0
        if len(sides) > 2 and not stack and few[-3]:
            self.counted, self.colours = axes[:-3], 0
        elif len(sides) > 2 and few[-1]:
            self.counted, self.colours = axes[:-3], 2
        elif len(sides) == 4 and few[2]:
            self.counted, self.colours = axes[3:], 2
        elif len(sides) > 2 and sides[-1] < FEW <= min(sides[-3:-1]):
            self.counted = [*axes[:-3], axes[-1]]
        elif len(sides) == 4 and few[0] and sides[1] == sides[2] != sides[3]:
            self.counted, self.colours, self.turned = axes[3:], 0, True
        self.sizes = [shape[k] for k in self.counted]
        self.part = tuple(shape[k] for k in axes if k not in self.counted)
        usable = len(axes) >= 2 and len(self.counted) <= 2 and 0 not in shape
        self.doubt = self._doubt(axes) if usable else None
        self.count = math.prod(self.sizes) if usable and self.doubt is None else 0

    def _doubt(self, axes: list[int]) -> str | None:
        """Say why the axes may mean something else; None if they cannot."""
        picture = [n for k, n in enumerate(self.part) if k != self.colours]
        least, most = sorted(picture)
        if not self.counted and self.colours is None:
            flat = most > 4 * least and flat_side(picture[1]) is not None
            return FLATTENED if flat else None
        if least == most:
            return None
        # As many of so narrow a picture, or as its other side is long?  Then that is the picture.
        several = self.counted == axes[:2] and self.sizes[0] in (3, 4, self.sizes[1])
        first = self.counted == axes[:1] and self.colours is None and self.sizes[0] == picture[0]
        return OTHER_AXES if least < NARROW or several or first else None

    def index(self, k: int) -> tuple[Any, ...]:
        """Index of picture `k` in the array."""
        whole: list[Any] = [slice(None)] * self.dimensions
        for axis, n in zip(reversed(self.counted), reversed(self.sizes), strict=True):
            k, whole[axis] = divmod(k, n)
        return tuple(whole)

    def picture(self, part: np.ndarray, alpha: bool = False) -> np.ndarray:
        """One picture (height, width) from its part of the array; alpha: of four colours, one."""
        part = part.reshape(self.part)
        if self.colours is None:
            return intensities(part)
        part = np.moveaxis(part, self.colours, -1)
        if self.turned:
            part = part.swapaxes(0, 1)
        return intensities(part, 3 if alpha else part.shape[-1])


def flat_side(count: int) -> int | None:
    """Return the side of square pictures, grey or of three colours, of so many numbers each."""
    for colours in (1, 3):
        side = math.isqrt(count // colours)
        if side >= NARROW and colours * side**2 == count:
            return side
    return None
