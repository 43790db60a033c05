"""Augmentation: the eight symmetries of the square, under which galaxies have no preference."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends.base import Array


def dihedral_table(side: int) -> np.ndarray:
    """Return the pixel numbers of eight rotations and mirror images, int64 (8, side * side).

    Row g lists, for each pixel of the transformed image, the pixel of the original that it shows:
    g % 4 quarter turns anticlockwise, mirrored left to right first if g >= 4.
    """
    pixels = np.arange(side * side).reshape(side, side)
    return np.stack(
        [np.rot90(np.fliplr(pixels) if g >= 4 else pixels, g % 4).reshape(-1) for g in range(8)]
    )


def dihedral(xp: Any, images: Array, table: Array, which: Array) -> Array:
    """Return the images, image i transformed by symmetry `which[i]`.

    Shapes: images (n, ..., side, side), table from `dihedral_table`, which (n,) in 0..7.
    """
    n, pixels = len(images), table.shape[1]
    flat = images.reshape(n, -1, pixels)
    turned = xp.take_along_axis(flat, table[which][:, None, :], axis=2)
    return turned.reshape(images.shape)
