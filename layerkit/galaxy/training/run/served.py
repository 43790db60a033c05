"""MaskedImages: galaxies of prepared sets in files, served with their masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit import layers as L
from layerkit.galaxy.images.masks import MASKS, with_masks
from layerkit.galaxy.model.masks import beside_mask
from layerkit.layer import Shape


class MaskedImages(L.HDF5Data):
    """Source of the galaxies of prepared sets, each beside a picture of 1 where its pixels count.

    Shapes: no bottom; top (n, 2, side, side).

    Args:
        path, and others: see HDF5Data.
    """

    def __init__(self, name: str, **settings: Any):
        super().__init__(name, datasets=["images", MASKS], **settings)

    def example_shapes(self) -> list[Shape]:
        """Return the shape of an image beside its mask."""
        image, _ = super().example_shapes()
        return [(2, *image)]

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return images beside their masks."""
        images, packed = super().host(epoch, start, stop)
        return [beside_mask(with_masks(images, packed))]

    def dtypes(self) -> list[np.dtype]:
        """Return the dtype of `host`."""
        return [np.dtype(np.float32)]
