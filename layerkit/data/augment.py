"""Augmentation: the eight symmetries of the square, random windows, and mirror images."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends import philox
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


class Windows:
    """Windows of pictures: where each begins, and whether it is mirrored.

    Args:
        whole, window: (height, width) of the pictures, and of the windows cut out of them.
        first, rows: number of the first example in the endless run of epochs, and how many follow.
        seed, stream: of the random numbers, which depend on these and an example's number alone.
        move: whether windows lie anywhere; else they lie in the middle.
        mirror: whether half of them, at random, are mirrored left to right.
    """

    def __init__(
        self,
        whole: tuple[int, ...],
        window: tuple[int, ...],
        first: int,
        rows: int,
        seed: int,
        stream: int,
        move: bool,
        mirror: bool,
    ):
        drawn = philox.at(np.arange(first, first + rows), seed, stream)
        self.window = window
        room = [w - n for w, n in zip(whole, window, strict=True)]
        self.starts = np.tile([r // 2 for r in room], (rows, 1))
        if move:
            places = np.array([r + 1 for r in room], np.uint64)
            self.starts = (drawn[:, :2] * places >> np.uint64(32)).astype(int)
        self.mirrored = (drawn[:, 2] & np.uint64(1)).astype(bool) & mirror

    def cut(self, pictures: Array, span: slice, out: Array) -> None:
        """Fill `out`, (n, ..., height, width), from the pictures of the examples of a span."""
        height, width = self.window
        places = zip(self.starts[span].tolist(), self.mirrored[span].tolist(), strict=True)
        for picture, own, ((top, left), mirrored) in zip(pictures, out, places, strict=True):
            window = picture[..., top : top + height, left : left + width]
            own[...] = window[..., ::-1] if mirrored else window
