"""Detection of the galaxy in a picture, its size, and light of other objects that overlap it.

The method is that of the Sloan survey's deblender: a galaxy is unchanged by a rotation of 180
degrees about its centre, whereas a star or a neighbour is not.  The darker pixel of each opposite
pair is therefore the galaxy's own light, and the excess of the brighter one is foreign light.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from layerkit.galaxy.images.decode.bounds import UnusableImageError

DETECTION_SIDE = 212  # pixels on a side, about: larger pictures are binned to this for detection
SMOOTHING = 1.0  # pixels, standard deviation: removes JPEG and pixel noise before detection
NO_PEAK = 1.0  # returned by `foreign_light` if the square has no peak in its middle
MIN_AREA = 5  # pixels: fewer connected ones are noise


@dataclass(frozen=True)
class Sky:
    """The level and the standard deviation of the empty parts of a picture."""

    level: float
    noise: float


@dataclass(frozen=True)
class Galaxy:
    """A galaxy that was detected in a picture.

    Attributes:
        y, x: centre in pixels of the picture, where pixel k extends from k to k + 1.
        radius: root mean square distance of the galaxy's own light from the centre, along its
            longest axis, in pixels of the picture.
        bins: pixels on a side that were averaged into one for detection.
        sky: level and noise of the binned and smoothed picture.
        signal: brightest pixel of the galaxy there, in standard deviations above the sky.
        off_centre: distance of that pixel from the centre of the picture, over its shorter side.
    """

    y: float
    x: float
    radius: float
    bins: int
    sky: Sky
    signal: float = np.inf
    off_centre: float = 0.0


def find_galaxy(
    image: np.ndarray,
    threshold: float,
    no_sky: np.ndarray | None = None,
    quantum: float = 1 / 255,
    bins: int | None = None,
) -> Galaxy:
    """Find the most prominent galaxy near the centre of a picture.

    An object is a set of connected pixels above a threshold.  The most prominent one has the most
    light under a Gaussian at the centre of the picture, whose standard deviation is 8% of the
    picture's shorter side.

    Args:
        image: float32 (height, width).
        threshold: standard deviations above the sky.
        no_sky: mask of the pixels to leave out when the sky is measured.
        quantum: see `measure_sky`.
        bins: pixels on a side to average into one; by default enough for DETECTION_SIDE pixels.

    Raises:
        UnusableImageError: there is no galaxy near the centre.
    """
    if image.size == 0 or all((row == image[0, 0]).all() for row in image):  # few rows, mostly
        raise UnusableImageError("blank")
    bins = bins or bins_of(image.shape)
    smooth = ndimage.gaussian_filter(_bin(image, bins), SMOOTHING)
    empty = smooth
    if no_sky is not None:
        empty = smooth[_bin(no_sky.astype(np.float32), bins) == 0]
        if empty.size < MIN_AREA:
            raise UnusableImageError("blank")
    sky = measure_sky(empty, quantum)
    light = np.maximum(smooth - np.float32(sky.level), 0)
    bright = light > threshold * sky.noise
    objects, count = ndimage.label(bright)
    near = _central(light.shape)
    found = np.flatnonzero(bright)  # most pixels are sky
    of = objects.ravel()[found]
    area = np.bincount(of, minlength=count + 1)
    prominence = np.bincount(of, light.ravel()[found] * near.ravel()[found], count + 1)
    prominence[area < MIN_AREA] = 0
    best = int(np.argmax(prominence))
    own = found[of == best]
    # Beyond two standard deviations an object is no longer "near the centre".
    if not best or near.ravel()[own].max() < np.exp(-2):
        raise UnusableImageError("no galaxy near the centre")
    window = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.divmod(own, light.shape[1]))
    mine = np.where(objects[window] == best, light[window], 0)
    start = np.unravel_index(np.argmax(mine * near[window]), mine.shape)
    y, x, radius = measure(mine, start)
    y, x = y + window[0].start, x + window[1].start
    top = np.unravel_index(np.argmax(mine), mine.shape)
    away = [k + w.start - n / 2 + 0.5 for k, w, n in zip(top, window, light.shape, strict=True)]
    return Galaxy(
        y * bins, x * bins, radius * bins, bins, sky, float(mine[top]) / (sky.noise or 1),
        float(np.hypot(*away)) / min(light.shape),
    )  # fmt: skip


def bins_of(shape: tuple[int, ...]) -> int:
    """Return how many pixels on a side are averaged into one for detection."""
    return max(1, min(shape) // DETECTION_SIDE)


def measure(light: np.ndarray, start: tuple) -> tuple[float, float, float]:
    """Measure the centre and the radius of an object, as in `Galaxy`.

    The centre moves, in five steps, to the mean position of the light under a Gaussian as wide as
    the object; the radius is that of the light which is symmetric about the centre.

    Args:
        light: the object above the sky, (height, width), 0 elsewhere.
        start: the pixel to begin at.

    Returns:
        y, x and radius, in pixels.
    """
    light = light.astype(np.float64)
    y, x = (float(s) for s in start)
    rows, columns = (np.arange(n) for n in light.shape)
    for _ in range(5):
        own = _symmetric(light, y, x)
        dy, dx = rows - y, columns - x
        total = own.sum()
        if total == 0:  # a thin crescent around an empty centre
            return y + 0.5, x + 0.5, 0.0
        yy, xx, yx = own.sum(1) @ dy**2 / total, own.sum(0) @ dx**2 / total, dy @ own @ dx / total
        radius = np.sqrt((yy + xx) / 2 + np.hypot((yy - xx) / 2, yx))
        # A single pixel has no extent, and would have an empty Gaussian.
        weighted = light * _gaussian(light.shape, (y, x), max(radius, 0.5))
        total = weighted.sum()
        y, x = weighted.sum(1) @ rows / total, weighted.sum(0) @ columns / total
    return y + 0.5, x + 0.5, float(radius)


def foreign_light(view: np.ndarray, galaxy: Galaxy, side: float) -> float:
    """Measure the brightest other object in a square, relative to the galaxy in its middle.

    Brightness is the height of a peak after smoothing: that of the other object above the opposite
    pixel, and that of the galaxy above the sky.

    Args:
        view: the square, (n, n), with the galaxy at its centre, at any resolution.
        galaxy: as detected, with the sky in the units of `view`.
        side: pixels of the picture on a side of the square.

    Returns:
        The ratio of the two peaks; NO_PEAK if there is no galaxy in the middle.
    """
    n = len(view)
    # A 69th of the square smooths out the knots of spiral arms.  In a small, enlarged square, 0.7
    # pixels smooth out the noise, which would otherwise pass for bright objects.
    smooth = ndimage.gaussian_filter(view, n * max(1 / 69, 0.7 * galaxy.bins / side))
    smooth -= galaxy.sky.level
    turned = smooth[::-1, ::-1]
    own = np.minimum(smooth, turned)
    peak = own[_middle(n, n // 2)].max()
    # A pair of equal objects is symmetric about the point between them, which is dark.
    if peak <= 0 or own[_middle(n, max(1, n // 23))].max() < 0.9 * peak:
        return NO_PEAK
    return float((smooth - turned).max() / peak)


def border_light(view: np.ndarray) -> float:
    """Return the median brightness at the border of a square, over the maximum in its middle."""
    border = np.sort(np.concatenate([view[0], view[-1], view[:, 0], view[:, -1]]))
    return float(_middle_of(border) / view[_middle(len(view), len(view) // 2)].max())


def _middle(n: int, width: int) -> tuple[slice, slice]:
    """Return the index of the middle `width` x `width` pixels, or one more, of n x n."""
    start = (n - width) // 2
    return slice(start, n - start), slice(start, n - start)


def measure_sky(image: np.ndarray, quantum: float = 1 / 255) -> Sky:
    """Measure the sky by its median and 1.4826 times the median absolute deviation.

    Pixels three standard deviations above the sky are clipped, in four rounds.

    Args:
        image: of any shape.
        quantum: step between values; the noise is at least half of it, so that a sky which is
            exactly black has some.
    """
    pixels = np.sort(image.ravel()[:: max(1, image.size // 4000)])  # enough, and fast
    for _ in range(4):
        level = _middle_of(pixels)
        # A stable sort merges the deviations on both sides of the level, which are in order.
        away = np.sort(np.abs(pixels - level), kind="stable")
        noise = max(1.4826 * _middle_of(away), 0.5 * quantum)
        if noise == 0 or (kept := np.count_nonzero(pixels < level + 3 * noise)) == len(pixels):
            break
        pixels = pixels[:kept]
    return Sky(level, noise)


def _middle_of(ordered: np.ndarray) -> float:
    """Return the median of numbers in increasing order."""
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    return float((ordered[low] + ordered[high]) / 2) if low < high else float(ordered[low])


def _bin(image: np.ndarray, bins: int) -> np.ndarray:
    """Average over bins x bins pixels; the remainder at the right and bottom is dropped."""
    h, w = (n // bins * bins for n in image.shape)
    parts = [image[dy:h:bins, dx:w:bins] for dy in range(bins) for dx in range(bins)]
    return sum(parts[1:], start=parts[0]) / np.float32(bins**2)


@functools.lru_cache(maxsize=4)
def _central(shape: tuple[int, ...]) -> np.ndarray:
    """Return the Gaussian at the centre of pictures, read-only."""
    found = _gaussian(shape, [n / 2 - 0.5 for n in shape], 0.08 * min(shape))
    found.flags.writeable = False
    return found


def _gaussian(shape: tuple, centre: tuple | list, width: float) -> np.ndarray:
    """Return a Gaussian of height 1 about the pixel coordinates `centre`."""
    y, x = (
        np.exp(-((np.arange(n, dtype=np.float32) - c) ** 2) / (2 * width**2))
        for n, c in zip(shape, centre, strict=True)
    )
    return y[:, None] * x


def _symmetric(light: np.ndarray, y: float, x: float) -> np.ndarray:
    """Return the darker of each pixel and its opposite about (y, x), rounded to half a pixel."""
    own = np.zeros_like(light)
    spans = []
    for n, c in zip(light.shape, (y, x), strict=True):
        both = round(2 * c)  # the opposite of pixel k is pixel both - k
        spans.append(slice(max(0, both - n + 1), min(n - 1, both) + 1))
    part = light[tuple(spans)]
    np.minimum(part, part[::-1, ::-1], out=own[tuple(spans)])
    return own
