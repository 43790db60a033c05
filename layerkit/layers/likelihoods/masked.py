"""Masked: the base class of losses over pixels, some of which may count for nothing."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layers.losses.loss import Loss, rows


class Masked(Loss):
    """Base of losses that are summed over pixels, each times the mask's number for it.

    A pixel whose mask is 0 counts for nothing, whatever the other bottoms hold there, such as NaN.
    """

    def mask(self, bottoms: list[Blob], number: int) -> Array:
        """Return what bottom `number` holds, of x's shape; 1 if there is no such bottom."""
        xp, shape = self.xp, bottoms[0].data.shape
        if len(bottoms) <= number:
            return xp.ones(shape, self.run.dtype)
        return xp.broadcast_to(bottoms[number].data, shape)

    def check_pixels(self, blob: Blob, good: Array, values: Array, expected: str) -> None:
        """Fail where `good` (n, ...) is False, with the value there and what is expected."""
        good = rows(good)
        if not bool(good.all()):
            row, place = divmod(int(self.xp.argmin(good)), good.shape[1])
            raise DataError(
                f"{self.label()}: row {row} of {blob.name!r} holds "
                f"{float(rows(values)[row, place]):g} at place {place}; {expected}"
            )

    def check_mask(self, bottoms: list[Blob], number: int) -> None:
        """Fail where the mask, which is bottom `number` if there is one, is no weight."""
        if len(bottoms) > number:
            mask = bottoms[number].data
            good = (mask >= 0) & self.xp.isfinite(mask)
            self.check_pixels(
                bottoms[number], good, mask, "a mask is 0 for pixels to leave out, 1 for others"
            )
