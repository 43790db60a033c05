"""Reconstruction: the base class of losses that score a picture pixel by pixel."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Self, TypeVar

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layers.likelihoods.masked import Masked
from layerkit.layers.losses.loss import rows
from layerkit.settings import NotNegative, Tops

Item = TypeVar("Item")

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that.
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12


class Reconstruction(Masked):
    """Loss -log p(x | mean, variance), variance = exp(log_variance) + floor, summed over pixels.

    With a mask, the term of each pixel is multiplied by the mask's number for it.

    Shapes: bottoms x, mean, log_variance and, if there are such, skew and mask (n, ...), of one
    shape; top (n,).

    Args:
        skew: the bottom that holds the skew of pixels, or None.
        mask: the bottom that holds 1 for pixels that count, 0 for those that do not, whatever x is
            there (NaN too), or a weight; without it all count.  It has no gradient.
        floor: variance added to every pixel's.  The default is that of rounding x in 0..1 to 8
            bits: without it the likelihood of a constant pixel is unbounded.
        weight: see Loss.

    Raises:
        DataError: a negative mask.

    Attributes:
        skewed, masked: whether there are such bottoms.
        degrees: degrees of freedom of Student's t; infinity for a Gaussian.
        fold: E|T| of that distribution with mean 0 and variance 1.
        constant: constant term of the loss of each pixel.
    """

    degrees = math.inf
    fold = math.sqrt(2 / math.pi)
    constant = 0.5 * math.log(2 * math.pi)

    def __init__(
        self,
        name: str,
        bottoms: list[str],
        skew: str | None,
        mask: str | None,
        floor: NotNegative,
        weight: NotNegative,
        tops: Tops | None,
    ):
        further = [bottom for bottom in (skew, mask) if bottom is not None]
        super().__init__(name, [*bottoms, *further], weight, tops)
        self.skewed, self.masked = skew is not None, mask is not None
        self.floor = floor

    def with_mask(self, mask: str) -> Self:
        """Return a copy of this description, which has no mask yet, with one."""
        found = copy.copy(self)
        found.bottoms, found.masked = [*self.bottoms, mask], True
        return found

    def parts(self, items: Sequence[Item]) -> tuple[Item, Item, Item, Item | None, Item | None]:
        """Return items of bottoms as those of x, mean, log_variance, skew and mask, or None."""
        further = list(items[3:])
        skew = further.pop(0) if self.skewed else None
        return items[0], items[1], items[2], skew, further.pop() if self.masked else None

    def differentiable(self, bottom: int) -> bool:
        """Return False for the mask."""
        return not self.masked or bottom < len(self.bottoms) - 1

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if the mask is negative."""
        if self.masked:
            self.check_mask(bottoms, len(bottoms) - 1)

    def arrays(self, bottoms: list[Blob]) -> tuple[Array, Array, Array, Array | None, Array | None]:
        """Return what the bottoms hold, (n, pixels) each, as `parts` does."""
        return self.parts([rows(bottom.data) for bottom in bottoms])

    def distance(self, x: Array, mean: Array, mask: Array | None) -> Array:
        """Return x - mean; 0 where the mask is, whatever x is there."""
        return x - mean if mask is None else self.xp.where(mask != 0, x - mean, 0)

    def add_up(self, terms: Array, mask: Array | None, top: Blob) -> None:
        """Set the top to half the sum of the pixels' terms (n, pixels), and their constants."""
        constant = terms.shape[1] * self.constant
        if mask is not None:
            terms, constant = mask * (terms + 2 * self.constant), 0.0
        self.xp.sum(terms, axis=1, out=top.data)
        top.data[...] = 0.5 * top.data + constant

    def scale(self, top: Blob, mask: Array | None) -> Array:
        """Return what the derivatives of each pixel's loss are multiplied by."""
        return top.diff[:, None] if mask is None else mask * top.diff[:, None]
