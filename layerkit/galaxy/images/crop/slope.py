"""Slope of a sky: what a twilight, the moon, or the halo of a star beside it adds across a picture.

A galaxy on a slope would seem smaller than it is, as the sky would seem noisier.  A plane is taken
away where it is sure and rises by more than a fraction of the noise; pictures of a flat sky stay as
they are, to the last bit.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 5  # of clipping
CLIP = 3.0  # deviations from the plane beyond which a pixel is no sky
SURE = 6.0  # standard errors of a slope
LEAST = 0.5  # deviations of the noise from the middle to a corner; less changes no size
ENOUGH = 32  # pixels
MOST = 4000  # pixels that are fitted, about
CORNER = 1.4  # |y| + |x| from the middle, in half-sides, where corners begin


def corners_of(shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of the four corners of a rectangle, where a galaxy's light is faintest."""
    y, x = (np.abs(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape)
    return np.add.outer(y, x) > CORNER


def level_in(part: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return a square without the slope of the sky in its corners.

    Args:
        part: the square, in physical units, finite.
        missing: the mask of its pixels without data.
    """
    return part - slope(part, corners_of(part.shape) & ~missing)


def slope(image: np.ndarray, where: np.ndarray, least: float = LEAST) -> np.ndarray | float:
    """Return the plane through a sky that slopes, 0 in the middle of the picture; else 0.

    Args:
        image: (height, width), in physical units.
        where: mask of the pixels that may be sky; those of objects are clipped.
        least: deviations of the noise by which it must rise from the middle to a corner.
    """
    at = np.flatnonzero(where)
    at = at[:: len(at) // MOST | 1]  # an odd step, which visits more columns than one
    if len(at) < ENOUGH:
        return 0.0
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in image.shape)
    places = np.column_stack(np.unravel_index(at, image.shape)).astype(np.intp)
    axes = np.column_stack([np.ones(len(at)), rows[places[:, 0]], columns[places[:, 1]]])
    values = image.ravel()[at]
    rest, kept = values - np.median(values), np.ones(len(at), bool)
    for _ in range(ROUNDS):
        middle = np.median(rest[kept])
        noise = 1.4826 * float(np.median(np.abs(rest[kept] - middle)))
        kept = np.abs(rest - middle) < CLIP * noise
        if noise == 0 or np.count_nonzero(kept) < ENOUGH:
            return 0.0
        found, _, rank, _ = np.linalg.lstsq(axes[kept], values[kept], rcond=None)
        if rank < axes.shape[1]:
            return 0.0
        rest = values - axes @ found
    tilt, own = found[1:], axes[kept, 1:] - axes[kept, 1:].mean(axis=0)
    sure = tilt @ (own.T @ own) @ tilt > (SURE * noise) ** 2
    rise = abs(tilt) @ [rows[-1], columns[-1]]
    if not (sure and rise > least * noise):
        return 0.0
    return tilt[0] * rows[:, None] + tilt[1] * columns
