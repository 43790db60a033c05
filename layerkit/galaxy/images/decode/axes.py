"""Axes of an array: which of them count pictures, and which are height, width and colours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.galaxy.images.decode.pixels import intensities

BANDS_BELOW = 16  # a last axis shorter than this, after longer axes, counts bands
MIN_SIDE = 8  # a picture that is not square holds no galaxy if a side is shorter than this
AMBIGUOUS = "ambiguous axes; save as (n, height, width) or (n, height, width, 3)"
FLATTENED = "rows that look like flattened pictures; save them as (n, height, width)"


class Layout:
    """The interpretation of an array's axes as pictures, judged by the array's shape.

    Axes of length 1 are dropped.  The others are taken as follows; "3" stands for colours or bands,
    3 or 4 of them, which are averaged, those without data left out:

    - two axes: (height, width);
    - three axes: (3, height, width), else (height, width, 3), else (height, width, bands) with
      fewer than BANDS_BELOW bands, each a picture, else (n, height, width);
    - four axes: (n, ...) with any of these, else (height, width, 3, n), else (3, width, height, n),
      which is (n, height, width, 3) as MATLAB stores it.

    Args:
        shape: of the array.
        stack: whether the first of three axes counts pictures even if there are 3 or 4.

    Attributes:
        count: number of pictures, 0 if the array holds none.
        doubt: the reason where the axes are ambiguous, else None.
        part: shape of one picture with its colours.
        bands: the axis of the array that colours are on, or None.
        sides: shape of one picture without them.
    """

    def __init__(self, shape: tuple[int, ...], stack: bool = False):
        axes = [k for k, n in enumerate(shape) if n > 1]
        sides = [shape[k] for k in axes]
        self.dimensions, self.counted, self.colours = len(shape), axes[:-2], None
        self.turned = False
        coloured = [n in (3, 4) for n in sides]
        stack = stack and len(sides) == 3 and axes[0] == 0
        if len(sides) > 2 and not stack and coloured[-3]:
            self.counted, self.colours = axes[:-3], 0
        elif len(sides) > 2 and coloured[-1]:
            self.counted, self.colours = axes[:-3], 2
        elif len(sides) == 4 and coloured[2]:
            self.counted, self.colours = axes[3:], 2
        elif len(sides) > 2 and sides[-1] < BANDS_BELOW <= min(sides[-3:-1]):
            self.counted = [*axes[:-3], axes[-1]]
        elif len(sides) == 4 and coloured[0] and sides[1] == sides[2] != sides[3]:
            self.counted, self.colours, self.turned = axes[3:], 0, True
        self.sizes = [shape[k] for k in self.counted]
        rest = [k for k in axes if k not in self.counted]
        self.part = tuple(shape[k] for k in rest)
        self.bands = None if self.colours is None else rest[self.colours]
        self.sides = tuple(shape[k] for k in rest if k != self.bands)
        usable = len(axes) >= 2 and len(self.counted) <= 2 and 0 not in shape
        self.doubt = self._doubt(axes) if usable else None
        self.count = math.prod(self.sizes) if usable and self.doubt is None else 0

    def _doubt(self, axes: list[int]) -> str | None:
        """Return the reason why the axes are ambiguous; None if they are not."""
        picture = [n for k, n in enumerate(self.part) if k != self.colours]
        least, most = sorted(picture)
        if not self.counted and self.colours is None:
            flat = most > 4 * least and flat_side(picture[1]) is not None
            return FLATTENED if flat else None
        if least == most:
            return None
        # The axis that counts pictures may be a side of them, if it is as long as a side.
        several = self.counted == axes[:2] and self.sizes[0] in (3, 4, self.sizes[1])
        first = self.counted == axes[:1] and self.colours is None and self.sizes[0] == picture[0]
        return AMBIGUOUS if least < MIN_SIDE or several or first else None

    def index(self, k: int, band: int | None = None) -> tuple[Any, ...]:
        """Return the index of picture `k` in the array, or of one of its colours."""
        whole: list[Any] = [slice(None)] * self.dimensions
        if band is not None and self.bands is not None:
            whole[self.bands] = slice(band, band + 1)
        for axis, n in zip(reversed(self.counted), reversed(self.sizes), strict=True):
            k, whole[axis] = divmod(k, n)
        return tuple(whole)

    def one_band(self, part: np.ndarray) -> np.ndarray:
        """Turn the part of the array that is one band of a picture into (height, width)."""
        part = part.reshape(self.sides)
        return intensities(part.T if self.turned else part)

    def picture(self, part: np.ndarray, alpha: bool = False) -> np.ndarray:
        """Turn the part of the array that is one picture into (height, width).

        Args:
            part: the array at `index(k)`.
            alpha: whether the last of four colours is an alpha channel.
        """
        part = part.reshape(self.part)
        if self.colours is None:
            return intensities(part)
        part = np.moveaxis(part, self.colours, -1)
        if self.turned:
            part = part.swapaxes(0, 1)
        return intensities(part, 3 if alpha else part.shape[-1])


def flat_side(count: int) -> int | None:
    """Return the side of a square picture, grey or RGB, of `count` values, or None."""
    for colours in (1, 3):
        side = math.isqrt(count // colours)
        if side >= MIN_SIDE and colours * side**2 == count:
            return side
    return None
