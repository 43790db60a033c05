"""Pixels without data: bad pixels, and the constant borders around the area of a survey."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Values of at least this magnitude, such as -1e30 and -3.4e38, mark bad pixels.  A picture in units
# so small that its data are that large has a median above UNITS, and more than MARKS different
# values beyond SENTINEL.
SENTINEL, UNITS, MARKS = 1e30, 1e20, 8
# The lowest value of a picture marks bad pixels if it is one of LOW_MARKS and lies FAR times
# further below the second lowest value than that lies below the median of the others.
LOW_MARKS, FAR = (0, -99, -999, -9999, -99999, -32768, -(2**31)), 10
# A row or column of at least LINE pixels of one value is dead if each of those beside it has that
# value in at most this fraction of its pixels.
LINE, HARDLY = 16, 0.05
BLOCK = 4  # pixels on a side of the smallest constant block that counts as blank, in floats
LIGHT_BLOCK = 1 / 6  # that block, over the picture's side, in 8 bits: dark skies have small ones
JPEG_BLOCK = 8  # pixels by which a JPEG blurs the rim of a blank region


@dataclass(frozen=True)
class NoData:
    """Masks of the pixels without data: `border`, blank and touching the edge, and `bad`."""

    border: np.ndarray
    bad: np.ndarray

    @property
    def anywhere(self) -> np.ndarray:
        """The union of both masks."""
        return self.border | self.bad

    def reason(self, window: tuple[slice, slice]) -> str | None:
        """Return the reason why a window of the picture cannot be used; None if it can."""
        if self.border[window].any():
            return "reaches into blank border"
        return "bad pixels" if self.bad[window].any() else None


def no_data(image: np.ndarray) -> NoData | None:
    """Find the pixels without data of a picture (height, width); None if there are none."""
    bad = bad_pixels(image)
    if not bad.any():
        border = blank_border(image)
        return None if border is None else NoData(border, bad)
    if bad.all():
        return NoData(bad, bad)
    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    border = blank_border(image[tuple(nearest)])
    labels, count = ndimage.label(bad)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= BLOCK**2
    at_edge = np.zeros(count + 1, bool)
    at_edge[np.concatenate([edge[0] for edge in _edges(labels)])] = True
    at_edge[0] = False
    outside = (large & at_edge)[labels]
    return NoData(outside if border is None else border | outside, bad & ~outside)


def bad_pixels(image: np.ndarray) -> np.ndarray:
    """Return the mask of pixels that are not finite or hold a value that marks bad pixels."""
    light = image.dtype == np.float32  # is never negative and may be black
    if light and image.size and image.min() > -SENTINEL and image.max() < SENTINEL:
        return np.zeros(image.shape, bool)
    with np.errstate(invalid="ignore"):
        size = np.abs(image)
        bad = ~(size < SENTINEL)
    if bad.any():
        huge = size[bad & np.isfinite(image)]
        rest = size[np.isfinite(image) & (image != 0)]
        if len(np.unique(huge)) > MARKS and np.median(rest) > UNITS:
            bad = ~np.isfinite(image)
    if light:
        return bad
    lowest = image.min(initial=np.inf, where=~bad if bad.any() else True)
    if lowest in LOW_MARKS:
        others = image[~bad & (image > lowest)]
        if others.size:
            darkest, level = float(others.min()), float(np.median(others))
            # In photon counts near 0, most others are no more than one step away.
            if darkest - lowest > FAR * (level - darkest) and (lowest < 0 or darkest < level):
                bad |= image == lowest
    for dead, lines in ((bad, image), (bad.T, image.T)):
        dead[_dead_lines(lines)] = True
    return bad


def _dead_lines(image: np.ndarray) -> list[int]:
    """List the rows of one value between rows that hardly have it, as of a dead row of a detector.

    In an image from which the sky has been subtracted, zeros in such a row look like sky.
    """
    with np.errstate(invalid="ignore"):
        flat = image.min(axis=1) == image.max(axis=1)
    alive = np.flatnonzero(~flat)
    if image.shape[1] < LINE or not flat.any() or not alive.size:
        return []
    found = []
    for row in np.flatnonzero(flat[alive[0] : alive[-1]]) + alive[0]:
        k = np.searchsorted(alive, row)
        equal = np.count_nonzero(image[alive[k - 1 : k + 1]] == image[row, 0], axis=1)
        if equal.max() <= HARDLY * image.shape[1]:
            found.append(int(row))
    return found


def blank_border(image: np.ndarray) -> np.ndarray | None:
    """Return the mask of blank regions at the border of a picture; None if there are none.

    A region is blank if it touches the border and has one constant value, or repeats one row or
    column; it must span whole rows or columns, or contain a square block too large to arise by
    chance.  A region into which the picture fades, like the sky of a noise-free picture, is not.

    Args:
        image: (height, width), without bad pixels.
    """
    light = image.dtype == np.float32
    size = _light_block(image) if light else BLOCK
    if min(image.shape) < 3 or not _suspicious(image, size):
        return None
    blank = _repeated_lines(image) | _blocks(image, size, light)
    if light and blank.any():
        blank = _grown(blank)
    return blank if blank.any() else None


def _grown(mask: np.ndarray) -> np.ndarray:
    """Return a mask with all that lies up to JPEG_BLOCK rows and columns from it."""
    return ndimage.maximum_filter(mask, 2 * JPEG_BLOCK + 1, mode="constant")  # row by row: fast


def partly_blank(bands: np.ndarray) -> np.ndarray | None:
    """Return the mask of pixels where some bands are blank, but not all; None if there are none.

    An average over the bands would hide that a survey ends in one of them.

    Args:
        bands: light, (height, width, n).
    """
    found = [
        blank_border(band.astype(np.float32)) if _suspicious(band, _light_block(band)) else None
        for band in np.moveaxis(bands, -1, 0)
        if min(band.shape) >= 3
    ]
    blank = [mask for mask in found if mask is not None]
    if not blank:
        return None
    partly: np.ndarray = np.any(blank, axis=0)
    if len(blank) == len(found):
        partly &= ~np.all(blank, axis=0)
    return partly if partly.any() else None


def _light_block(image: np.ndarray) -> int:
    return max(32, round(LIGHT_BLOCK * min(image.shape)))


def _edges(image: np.ndarray) -> list[np.ndarray]:
    """Return views of the picture in which each of its edges in turn is the first row."""
    return [image, image[::-1], image.T, image.T[::-1]]


def _suspicious(image: np.ndarray, size: int) -> bool:
    """Tell whether an edge has `size` equal pixels in a row, is constant, or equals the next row.

    The test is cheap, as every picture takes it.
    """
    for edge in _edges(image):
        line, inner = np.ascontiguousarray(edge[:2])
        if line[0] == inner[0] and (line == inner).all():
            return True
        # A run of n equal pixels is n - 1 of these bytes, 1, in a row.
        equal = (line[1:] == line[:-1]).tobytes()
        if bytes([1]) * (min(size, len(line)) - 1) in equal:
            return True
    return False


def _repeated_lines(image: np.ndarray) -> np.ndarray:
    """Return the mask of rows or columns at an edge that repeat it, unless it is constant."""
    blank = np.zeros(image.shape, bool)
    for edge, mask in zip(_edges(image), _edges(blank), strict=True):
        equal = (edge[: len(edge) // 2] == edge[0]).all(axis=1)
        count = int(np.argmin(equal)) if not equal.all() else 0
        if count > 1 and edge[0].min() < edge[0].max():
            mask[:count] = True
    return blank


def _blocks(image: np.ndarray, size: int, light: bool) -> np.ndarray:
    """Return the mask of constant border regions with whole lines or a block of `size` pixels."""
    blank = _regions(image, size)
    if not light and blank.any():
        # Photon counts near 0 have equal neighbours: how large is a block that arises by chance?
        pair = ~(blank[:, 1:] | blank[:, :-1])
        equal = np.count_nonzero(pair & (image[:, 1:] == image[:, :-1])) / max(1, pair.sum())
        if equal > 0.1:
            size = math.ceil(math.sqrt(1 + math.log(1e-3 / image.size) / math.log(equal - 1e-6)))
            blank = _regions(image, size)
    return blank


def _regions(image: np.ndarray, size: int) -> np.ndarray:
    blank = np.zeros(image.shape, bool)
    height, width = image.shape
    frame = np.concatenate([edge[0] for edge in _edges(image)])
    values, counts = np.unique(frame, return_counts=True)
    for value in values[counts >= min(size, height, width)][:8]:
        same = image == value
        block = np.zeros(image.shape, bool)
        # A block may reach beyond the picture: in a corner, with a quarter of it inside.
        if size <= min(height, width) and np.count_nonzero(same) >= (size - size // 2) ** 2:
            block = ndimage.minimum_filter(same, size, mode="constant", cval=1)
        if not (block.any() or any(edge[0].all() for edge in _edges(same))):
            continue
        labels, count = ndimage.label(same)
        solid = np.zeros(count + 1, bool)
        solid[labels[block]] = True
        for edge in _edges(labels):
            if edge[0].min() == edge[0].max():
                solid[edge[0, 0]] = True
        at_edge = np.zeros(count + 1, bool)
        at_edge[np.concatenate([edge[0] for edge in _edges(labels)])] = True
        for k in np.flatnonzero(solid & at_edge)[:16]:
            if k and _is_cut_off(image, labels == k, value):
                blank |= labels == k
    return blank


def _is_cut_off(image: np.ndarray, region: np.ndarray, value: float) -> bool:
    """Tell whether the picture is cut off at a constant region, and does not fade into it.

    Pixels beside a blank region scatter about its value, or are all far from it.  A blank region
    has nothing in it, whereas a sky that is exactly black has specks.
    """
    rim = ndimage.binary_dilation(region) & ~region
    if not rim.any():
        return False
    parts, count = ndimage.label(~region)
    if count > 1:
        largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        around = _grown(largest)
        if (~region & ~around).any():
            return False
    steps = image[rim] - value
    above = np.count_nonzero(steps > 0) / steps.size
    if 0.05 < above < 0.95:
        return True
    second = ndimage.binary_dilation(rim) & ~rim & ~region
    if not second.any():
        return False
    quantum = np.diff(np.unique(image[rim | second | region]))
    step = abs(float(np.median(steps)))
    slope = abs(float(np.median(image[second]) - np.median(image[rim])))
    scatter = float(np.median(np.abs(steps - np.median(steps))))
    return step > 4 * float(quantum.min()) and step > 1.5 * max(slope, scatter)
