"""Find where a picture holds no data: bad pixels, and the constant borders around surveys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Numbers of at least this size stand for "nothing", as -1e30 and -3.4e38 do.  A picture whose units
# are that small has a median above UNITS, and more than MARKS different numbers beyond SENTINEL.
SENTINEL, UNITS, MARKS = 1e30, 1e20, 8
# The lowest number of a picture stands for "nothing" if it is one of these and lies FAR times
# further below the darkest other pixel than that lies below the median of the others.
LOW_MARKS, FAR = (0, -99, -999, -9999, -99999, -32768, -(2**31)), 10
BLOCK = 4  # pixels on a side of the smallest constant block that is a blank, in floats
LIGHT_BLOCK = 1 / 6  # of the side, the same for pictures of 8 bits, whose dark sky has such blocks
JPEG_BLOCK = 8  # pixels by which a JPEG blurs the rim of a blank


@dataclass(frozen=True)
class NoData:
    """Masks of the pixels that tell nothing: `border`, blank and touching the edge, and `bad`."""

    border: np.ndarray
    bad: np.ndarray

    @property
    def anywhere(self) -> np.ndarray:
        """Mask of both."""
        return self.border | self.bad

    def reason(self, window: tuple[slice, slice]) -> str | None:
        """Why a window of the picture cannot be used; None if it can."""
        if self.border[window].any():
            return "reaches into blank border"
        return "bad pixels in it" if self.bad[window].any() else None


def no_data(image: np.ndarray) -> NoData | None:
    """Find the pixels without data; None, as nearly always, if there are none."""
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
    """Find the pixels that are not finite, or hold a number by which programs mark bad ones."""
    with np.errstate(invalid="ignore"):
        size = np.abs(image)
        bad = ~(size < SENTINEL)
    if bad.any():
        huge = size[bad & np.isfinite(image)]
        rest = size[np.isfinite(image) & (image != 0)]
        if len(np.unique(huge)) > MARKS and np.median(rest) > UNITS:
            bad = ~np.isfinite(image)
    if image.dtype == np.float32:  # light, which has no negative numbers and may be black
        return bad
    lowest = image.min(initial=np.inf, where=~bad if bad.any() else True)
    if lowest in LOW_MARKS:
        others = image[~bad & (image > lowest)]
        if others.size:
            darkest, level = float(others.min()), float(np.median(others))
            # Counts of few photons have no more than one step between 0 and most others.
            if darkest - lowest > FAR * (level - darkest) and (lowest < 0 or darkest < level):
                bad |= image == lowest
    return bad


def blank_border(image: np.ndarray) -> np.ndarray | None:
    """Mask of the blank regions at the border of a picture without bad pixels; None without any.

    Blank is a region of one constant value, or of one repeated row or column, that touches the
    border: whole rows or columns, or what holds a square block too large to come about by chance.
    A region that the picture fades into, as noise-free pictures do into their sky, is not blank.
    """
    light = image.dtype == np.float32
    size = _light_block(image) if light else BLOCK
    if min(image.shape) < 3 or not _suspicious(image, size):
        return None
    blank = _repeated_lines(image) | _blocks(image, size, light)
    if light and blank.any():
        blank = ndimage.binary_dilation(blank, np.ones((2 * JPEG_BLOCK + 1,) * 2))
    return blank if blank.any() else None


def partly_blank(bands: np.ndarray) -> np.ndarray | None:
    """Mask of where some bands of a picture in light, (height, width, n), are blank, but not all.

    A mean over the bands would hide it, as where a survey ends in one of them.  None without any.
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
    """The picture turned so that each of its edges in turn comes first."""
    return [image, image[::-1], image.T, image.T[::-1]]


def _suspicious(image: np.ndarray, size: int) -> bool:
    """Return whether an edge has `size` equal pixels in a row, is constant, or repeated next to it.

    Cheap, as it is asked of every picture.
    """
    for edge in _edges(image):
        steps = np.flatnonzero(np.diff(edge[0]))
        stops = np.concatenate([[-1], steps, [len(edge[0]) - 1]])
        if np.diff(stops).max() >= min(size, len(edge[0])) or (edge[0] == edge[1]).all():
            return True
    return False


def _repeated_lines(image: np.ndarray) -> np.ndarray:
    """Mask of edges whose lines all repeat one line that is not constant."""
    blank = np.zeros(image.shape, bool)
    for edge, mask in zip(_edges(image), _edges(blank), strict=True):
        equal = (edge[: len(edge) // 2] == edge[0]).all(axis=1)
        count = int(np.argmin(equal)) if not equal.all() else 0
        if count > 1 and edge[0].min() < edge[0].max():
            mask[:count] = True
    return blank


def _blocks(image: np.ndarray, size: int, light: bool) -> np.ndarray:
    """Mask of constant regions at the border that hold whole lines or a block of `size` pixels."""
    blank = _regions(image, size)
    if not light and blank.any():
        # Counts of few photons have equal neighbours all over: how large may a block be by chance?
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
        labels, count = ndimage.label(image == value)
        if not count:
            continue
        solid = np.zeros(count + 1, bool)
        same = labels > 0
        if size <= min(height, width):
            solid[labels[ndimage.minimum_filter(same, size, mode="constant", cval=1)]] = True
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
    """Return whether the picture ends at a constant region, rather than fades into it.

    Beside a blank, noise lies on both sides of its value, or all pixels are far from it.  There is
    nothing in a blank, whereas a sky that is black to the last bit has specks in it.
    """
    rim = ndimage.binary_dilation(region) & ~region
    if not rim.any():
        return False
    parts, count = ndimage.label(~region)
    if count > 1:
        largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        around = ndimage.binary_dilation(largest, np.ones((2 * JPEG_BLOCK + 1,) * 2))
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
