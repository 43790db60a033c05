"""Find the galaxy in a picture, measure it, and judge whether something else lies over it.

The idea throughout is the one with which the Sloan survey takes blended galaxies apart: a galaxy
looks the same when turned by 180 degrees about its centre, and a star or a neighbour does not.
The darker of each pixel and its opposite is therefore the galaxy's own light, and what the brighter
one has on top of it is foreign.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from layerkit.galaxy.images.decode.bounds import UnusableImageError

DETECTION_SIDE = 212  # pixels on a side, about, to which larger pictures are binned for detection
SMOOTHING = 1.0  # pixels, standard deviation: takes out JPEG and pixel noise before looking
NO_PEAK = 1.0  # what `foreign_light` returns where the square has no peak in its middle
MIN_AREA = 5  # pixels: fewer connected ones are noise


@dataclass(frozen=True)
class Sky:
    """Level and standard deviation of the empty parts of a (smoothed) picture."""

    level: float
    noise: float


@dataclass(frozen=True)
class Galaxy:
    """A galaxy in a picture.

    y, x: its centre in pixels, where pixel k reaches from k to k + 1.
    radius: the root mean square distance of its own light from the centre along its longest axis,
        in pixels.
    bins: pixels of the picture, on a side, to one in which it was detected.
    sky: of the picture so binned and smoothed.
    signal: its brightest pixel there, in noise standard deviations above the sky.
    off_centre: how far that pixel lies from the centre of the picture, over its shorter side.
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

    Connected pixels that are `threshold` noise standard deviations above the sky make an object;
    the one with the most light under a Gaussian about the centre of the picture (standard deviation
    8% of its side) is taken.

    Args:
        image: float32 (height, width).
        threshold: see above.
        no_sky: mask of the pixels that the sky is not to be measured from.
        quantum: see `measure_sky`.
        bins: pixels to bin on a side, by default as many as make the picture DETECTION_SIDE large.

    Raises:
        UnusableImageError: there is none.
    """
    if image.size == 0 or image.min() == image.max():
        raise UnusableImageError("blank")
    bins = bins or max(1, min(image.shape) // DETECTION_SIDE)
    smooth = ndimage.gaussian_filter(_bin(image, bins), SMOOTHING)
    empty = smooth
    if no_sky is not None:
        empty = smooth[_bin(no_sky.astype(np.float32), bins) == 0]
        if empty.size < MIN_AREA:
            raise UnusableImageError("blank")
    sky = measure_sky(empty, quantum)
    light = np.maximum(smooth - np.float32(sky.level), 0)
    objects, _ = ndimage.label(light > threshold * sky.noise)
    near = _gaussian(light.shape, [n / 2 - 0.5 for n in light.shape], 0.08 * min(light.shape))
    area = np.bincount(objects.ravel())
    prominence = np.bincount(objects.ravel(), (light * near).ravel())
    prominence[area < MIN_AREA] = 0
    prominence[0] = 0  # the sky
    best = int(np.argmax(prominence))
    window = ndimage.find_objects(objects, best)[best - 1] if best else (slice(0), slice(0))
    mine = np.where(objects[window] == best, light[window], 0)
    # Beyond two standard deviations it is not "near the centre" any more.
    if not best or near[window][mine > 0].max() < np.exp(-2):
        raise UnusableImageError("no galaxy near the centre")
    start = np.unravel_index(np.argmax(mine * near[window]), mine.shape)
    y, x, radius = measure(mine, start)
    y, x = y + window[0].start, x + window[1].start
    top = np.unravel_index(np.argmax(mine), mine.shape)
    away = [k + w.start - n / 2 + 0.5 for k, w, n in zip(top, window, light.shape, strict=True)]
    return Galaxy(
        y * bins, x * bins, radius * bins, bins, sky, float(mine[top]) / (sky.noise or 1),
        float(np.hypot(*away)) / min(light.shape),
    )  # fmt: skip


def measure(light: np.ndarray, start: tuple) -> tuple[float, float, float]:
    """Centre (y, x) and radius, as in `Galaxy`, of the object whose `light` above the sky is given.

    From the pixel `start`, the centre moves to the mean of the light under a Gaussian as wide as
    the object, and the radius becomes that of the light which has its like on the opposite side.
    """
    light = light.astype(np.float64)
    y, x = (float(s) for s in start)
    rows, columns = (np.arange(n) for n in light.shape)
    for _ in range(5):
        own = _symmetric(light, y, x)
        dy, dx = rows - y, columns - x
        total = own.sum()
        if total == 0:  # a thin crescent, bent around a centre where nothing is
            return y + 0.5, x + 0.5, 0.0
        yy, xx, yx = own.sum(1) @ dy**2 / total, own.sum(0) @ dx**2 / total, dy @ own @ dx / total
        radius = np.sqrt((yy + xx) / 2 + np.hypot((yy - xx) / 2, yx))
        # A single pixel has no extent, and no centre of gravity but itself.
        weighted = light * _gaussian(light.shape, (y, x), max(radius, 0.5))
        y, x = weighted.sum(1) @ rows / weighted.sum(), weighted.sum(0) @ columns / weighted.sum()
    return y + 0.5, x + 0.5, float(radius)


def foreign_light(view: np.ndarray, galaxy: Galaxy, side: float) -> float:
    """Brightness of the brightest other object in `view`, over that of the galaxy in its middle.

    view: a square of `side` pixels of the picture, the galaxy centred in it, at any resolution.
    Both are heights of a peak after smoothing: the other object's above what the opposite pixel
    shows, the galaxy's above the sky.  NO_PEAK where there is nothing in the middle.
    """
    n = len(view)
    # A 69th of the square takes out the knots of spiral arms; where a small square is enlarged,
    # 0.7 pixels take out the noise, which would else pass for bright objects beside faint galaxies.
    smooth = ndimage.gaussian_filter(view, n * max(1 / 69, 0.7 * galaxy.bins / side))
    smooth -= galaxy.sky.level
    turned = smooth[::-1, ::-1]
    own = np.minimum(smooth, turned)
    peak = own[_middle(n, n // 2)].max()
    # A pair of equals looks the same when turned about the point between them, which is dark.
    if peak <= 0 or own[_middle(n, max(1, n // 23))].max() < 0.9 * peak:
        return NO_PEAK
    return float((smooth - turned).max() / peak)


def border_light(view: np.ndarray) -> float:
    """Brightness at the border of the square `view` (median), over the greatest in its middle."""
    border = np.concatenate([view[0], view[-1], view[:, 0], view[:, -1]])
    return float(np.median(border) / view[_middle(len(view), len(view) // 2)].max())


def _middle(n: int, width: int) -> tuple[slice, slice]:
    """The square of `width` pixels, or one more, in the middle of n x n."""
    start = (n - width) // 2
    return slice(start, n - start), slice(start, n - start)


def measure_sky(image: np.ndarray, quantum: float = 1 / 255) -> Sky:
    """Median, and 1.4826 times the median absolute deviation, of the pixels that are not clipped.

    Clipped is what is three standard deviations above the sky, four times over.  The deviation is
    never below half a `quantum`, lest a sky that is black to the last bit have none.
    """
    pixels = image.ravel()[:: max(1, image.size // 4000)]  # plenty for a median, and fast
    for _ in range(4):
        level = float(np.median(pixels))
        noise = max(1.4826 * float(np.median(np.abs(pixels - level))), 0.5 * quantum)
        if noise == 0:
            break
        pixels = pixels[pixels < level + 3 * noise]
    return Sky(level, noise)


def _bin(image: np.ndarray, bins: int) -> np.ndarray:
    """Averages over bins x bins pixels; what is left over at the right and bottom is dropped."""
    h, w = (n // bins * bins for n in image.shape)
    parts = [image[dy:h:bins, dx:w:bins] for dy in range(bins) for dx in range(bins)]
    return sum(parts[1:], start=parts[0]) / np.float32(bins**2)


def _gaussian(shape: tuple, centre: tuple | list, width: float) -> np.ndarray:
    """A Gaussian of height 1 about the pixel coordinates `centre`."""
    y, x = (
        np.exp(-((np.arange(n, dtype=np.float32) - c) ** 2) / (2 * width**2))
        for n, c in zip(shape, centre, strict=True)
    )
    return y[:, None] * x


def _symmetric(light: np.ndarray, y: float, x: float) -> np.ndarray:
    """The darker of each pixel and its opposite with respect to (y, x), taken to half a pixel."""
    own = np.zeros_like(light)
    spans = []
    for n, c in zip(light.shape, (y, x), strict=True):
        both = round(2 * c)  # the opposite of pixel k is pixel both - k
        spans.append(slice(max(0, both - n + 1), min(n - 1, both) + 1))
    part = light[tuple(spans)]
    own[tuple(spans)] = np.minimum(part, part[::-1, ::-1])
    return own
