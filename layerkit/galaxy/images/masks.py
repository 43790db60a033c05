"""Masks of prepared images, as their sets store them."""

from __future__ import annotations

import numpy as np

MASKS = "masks"  # data set of the masks of all images, a bit for each pixel


def with_masks(images: np.ndarray, packed: np.ndarray | None) -> np.ndarray:
    """Return images (n, size, size) as a masked array, if any of their pixels is masked.

    Args:
        images: the images.
        packed: a bit for each pixel, (n, `mask_bytes`), or None.
    """
    if packed is None or not packed.any():
        return images
    bits = np.unpackbits(packed, axis=1, count=images[0].size)
    return np.ma.array(images, mask=bits.reshape(images.shape).astype(bool))


def mask_bytes(size: int) -> int:
    """Return how many bytes the mask of an image takes."""
    return -(-size * size // 8)
