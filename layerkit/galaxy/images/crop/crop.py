"""Cropping: find the galaxy in a picture, judge it, cut it out and resample it.

This follows section 4 of Regier, McAuliffe and Prabhat (2015): each picture is cropped to a square
around its most prominent galaxy, in proportion to the galaxy's size, and resampled to 69 x 69
pixels; pictures in which another bright object overlaps the galaxy are excluded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.detect import (
    NO_PEAK,
    Galaxy,
    Sky,
    bins_of,
    border_light,
    find_galaxy,
    foreign_light,
    measure_sky,
)
from layerkit.galaxy.images.crop.missing import bridged, filled, mended, missing_at
from layerkit.galaxy.images.crop.scaling import stretch, stretch_units
from layerkit.galaxy.images.crop.slope import corners_of, level_in, slope
from layerkit.galaxy.images.crop.units import INTENSITIES, UNITS
from layerkit.galaxy.images.decode.blank import NoData, no_data
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.decode.pixels import as_picture
from layerkit.settings import Choice, Number, Rule, Whole, accept

SIDE, FRAME, LIMIT = Whole(4, 4096), Number(above=0), Number(least=0)  # rules of `Settings`
CHOICE = Choice(*UNITS)
DEEPEST = 65535.0  # the largest value of 16 bits
CENTRED = 0.16  # of the side: two standard deviations of the Gaussian in `find_galaxy`
FAINT = 3.0  # times the threshold: a peak below this is too faint for a size to mean anything
INNER = 0.9  # of the square's side: where a galaxy in physical units is measured
PASSES = 2  # of that measurement; more would shrink the square of a bright galaxy
CLEAN = 1000.0  # brightness over noise that is assumed for a galaxy without noise
FILLING = 8  # passes in which holes and the centre follow each other
STEP = 1.15  # ratio of successive sizes of that square
CROSS = ndimage.generate_binary_structure(2, 1)  # a pixel and the four beside it
MOST_MISSING = 0.3  # of the pixels in a square, whose light is known otherwise in linear units
NO_UNITS = "light in 0..1, and linear units are for pictures in counts or fluxes"


@dataclass(frozen=True)
class Settings:
    """Settings that decide how pictures are cropped and which of them are excluded.

    Args:
        size: pixels on a side of a prepared galaxy, 4 to 4096, default 69.
        frame: side of the crop over the galaxy's radius (`detect.Galaxy`), default 6.5.
        overlap: exclude a picture if another object's peak is at least this fraction of the
            galaxy's (`detect.foreign_light`), default 0.5.
        background: exclude a picture if the border of the crop is at least this fraction of the
            galaxy's peak (`detect.border_light`), default 0.2: the galaxy is in the glare of a
            star, say, or fills the picture, which leaves no sky to measure it by.
        threshold: standard deviations above the sky from which light belongs to an object,
            default 4.
        min_radius: smallest radius of a galaxy, default 1.4, in pixels of the picture as binned for
            detection, to about 212 on a side.  A point source, smoothed, has 1.0 to 1.2.
        units: of pictures in physical units: "stretched", the default, compresses bright pixels
            (see `scaling`); "linear" subtracts the sky and divides by one number for each picture,
            keeps pictures in which up to MOST_MISSING of the square are without data, and leaves
            out all others, such as JPEGs, which were stretched before.

    Raises:
        DataError: a setting is out of range.
    """

    size: int = 69
    frame: float = 6.5
    overlap: float = 0.5
    background: float = 0.2
    threshold: float = 4.0
    min_radius: float = 1.4
    units: str = "stretched"

    def __post_init__(self) -> None:
        """Check each setting."""
        for field in fields(self):
            value = getattr(self, field.name)
            rule: Rule = {"size": SIDE, "frame": FRAME, "units": CHOICE}.get(field.name, LIMIT)
            # At infinity a limit excludes no picture.
            if rule is not LIMIT or not (isinstance(value, float) and value == np.inf):
                value = accept(rule, value, field.name, "prepare", DataError)
            object.__setattr__(self, field.name, value)


@dataclass(frozen=True)
class Cut:
    """The square cut from a picture, and how its values were scaled.

    Attributes:
        y0, x0, side: top left corner and side, in pixels and fractions of pixels.
        sky, spread, white: see `scaling`.  Spread is 0 if pixels were scaled linearly: sky is then
            the value from `Source.read` that became 0, and white the one that became 1.
    """

    y0: float
    x0: float
    side: float
    sky: float = 0.0
    spread: float = 0.0
    white: float = 1.0


def cut_out(
    image: np.ndarray, settings: Settings, white: float = DEEPEST
) -> tuple[np.ndarray, Cut]:
    """Cut the galaxy out of a picture and resample it to `settings.size`.

    Args:
        image: (height, width); the dtype says what the values mean.  float32 is linear light in
            0..1, and so is uint8 after division by 255; uint16 is linear light in steps of
            1 / white; any other dtype, such as float64, is in physical units.  These are stretched
            by the sky and the galaxy inside the square (see `scaling`), so that nothing outside it
            matters.  NaN and masked pixels are no data.
        settings: of the crop.
        white: value of a uint16 picture that becomes 1.

    Returns:
        The galaxy, float32 (size, size), and the square that was cut.  `INTENSITIES` has the range
        of its pixels.  In linear units the galaxy is a masked array if pixels of it are without
        data: under the mask is the light of those opposite.

    Raises:
        UnusableImageError: float32 holds numbers far from 0..1; there is no galaxy near the
            centre; or its square is too small, does not fit into the picture, contains pixels
            without data or another bright object.
    """
    image = as_picture(image)
    if image.size == 0 or (low := image.min()) == (high := image.max()):
        raise UnusableImageError("blank")
    if all(((row == low) | (row == high)).all() for row in image):  # few rows, mostly
        raise UnusableImageError("a mask of only two values")
    if settings.units == "linear" and image.dtype != np.float64:
        raise UnusableImageError(NO_UNITS)
    if image.dtype == np.uint16:
        view, cut = _cut_light(np.minimum(image * np.float32(1 / white), 1), settings)
        return view, replace(cut, white=white)
    if image.dtype == np.float64:
        return _cut_flux(image, settings)
    return _cut_light(np.asarray(image, np.float32), settings)


def visible(image: np.ndarray, white: float = DEEPEST) -> np.ndarray:
    """Scale a whole picture of any dtype to float32 in 0..1 for display; see `cut_out`."""
    if image.dtype == np.uint16:
        return np.minimum(image * np.float32(1 / white), 1)
    if image.dtype != np.float64:
        return np.nan_to_num(np.clip(image, 0, 1))
    image, missing = filled(image, no_data(image))
    sky = _sky(image, ~missing)
    brightest = np.percentile(image[~missing], 99.9)
    return stretch(image, sky.level, sky.noise, max(brightest, sky.level + 10 * sky.noise))


def _cut_light(image: np.ndarray, settings: Settings) -> tuple[np.ndarray, Cut]:
    gaps = no_data(image)
    missing = None
    if gaps is not None:
        image, missing = filled(image, gaps)
    galaxy = find_galaxy(image, settings.threshold, missing)
    cut = _square(galaxy, image, gaps, settings)
    view = resample(image, cut, settings.size)
    # A bright neighbour is reported first, as it may be what makes the square too large.
    _check_overlap(view, galaxy, cut, settings)
    if border_light(view) >= settings.background:
        raise UnusableImageError("bright background")
    _check_room(galaxy, cut, settings)
    return view, cut


def _cut_flux(image: np.ndarray, settings: Settings) -> tuple[np.ndarray, Cut]:
    gaps = no_data(image)
    image, missing = filled(image, gaps)
    flat = image - slope(image, ~missing)
    far = _sky(flat, ~missing)
    holes = settings.units == "linear" and missing.any()
    if holes:  # which would draw the centre away from them, or part the galaxy
        flat = bridged(flat, missing, far.level, bins_of(image.shape))
        image = whole = np.where(missing, flat, image)
    galaxy = _find(flat, far, settings.threshold, missing)
    off_centre = galaxy.off_centre
    # Nothing outside the square may change the result, not even its last bit.  So measure again
    # from the pixels inside alone, until the measurement asks for just these pixels.
    last = None
    for _ in range(FILLING if holes else PASSES):
        if holes:
            image = mended(whole, missing, (galaxy.y, galaxy.x), galaxy.radius, far.level)
        window = _window(galaxy, image.shape, settings)
        if window == last and not holes:
            break
        galaxy, last = _find_in(image, window, galaxy, settings, missing), window
    galaxy = replace(galaxy, off_centre=off_centre)
    cut = _square(galaxy, image, gaps, settings)
    rows, columns = pixels_in(cut, image.shape)
    part = level_in(image[rows, columns], missing[rows, columns])
    sky = sky_in(part, missing[rows, columns])
    units = np.clip((part - sky.level) / sky.noise, -1e9, 1e9).astype(np.float32)
    inside = replace(cut, y0=cut.y0 - rows.start, x0=cut.x0 - columns.start)
    raw = _resampled(units, inside, settings.size)
    # Hot pixels must not set the scale: a pixel counts for little more than twice its brightest
    # neighbour, and white is little more than twice the brightest light that is symmetric.
    tame = _resampled(np.minimum(units, 2 * _brightest_neighbour(units) + 5), inside, settings.size)
    own = float(np.minimum(tame, tame[::-1, ::-1]).max())
    white = min(float(tame.max()), 2 * max(own, 0) + 5)
    if white < settings.threshold:
        raise UnusableImageError("too faint")
    view = stretch_units(raw, white)
    level = float(stretch_units(np.zeros(1), white)[0])
    _check_overlap(view, replace(galaxy, sky=Sky(level, 0)), cut, settings)
    # Compare the border of the square with its peak, both above the sky of the whole picture.
    peak = np.arcsinh(((white * sky.noise + sky.level - far.level) / far.noise + 1) / 10)
    if np.arcsinh(((sky.level - far.level) / far.noise + 1) / 10) >= settings.background * peak:
        faint = sky.level < far.level + far.noise
        raise UnusableImageError("too faint" if faint else "bright background")
    _check_room(galaxy, cut, settings)
    cut = replace(cut, sky=sky.level, spread=sky.noise, white=sky.level + white * sky.noise)
    if settings.units == "linear":
        view = np.clip(raw / np.float32(white), *INTENSITIES["linear"][:2])
        gone = missing_at(missing[rows, columns], inside.y0, inside.x0, cut.side, settings.size)
        view = view if gone is None else np.ma.array(view, mask=gone)
        return view, replace(cut, spread=0.0)
    return view, cut


def _sky(image: np.ndarray, where: np.ndarray) -> Sky:
    """Measure the sky from the pixels where a mask is true; the noise is never 0."""
    pixels = image[where]
    sky = measure_sky(pixels, quantum=0)
    if sky.noise > 0:
        return measure_sky(_off_steps(pixels), quantum=0)
    # Most pixels are equal: there are few photons, or no noise, or the sky was cut off with its
    # noise.  The noise still shows in the galaxy, and in the pixels that rise above the cut.
    light = image[image > sky.level]
    if not light.size:
        return Sky(sky.level, 1.0)
    quiet = pixels[pixels <= sky.level + np.percentile(light - sky.level, 50)]
    noise = max(_roughness(image, sky.level), float(quiet.std()))
    bright = float(np.percentile(light, 99)) - sky.level
    return Sky(sky.level, max(noise, bright / CLEAN, 1e-7 * abs(sky.level)))


def _roughness(image: np.ndarray, level: float) -> float:
    """Measure the noise in a galaxy's faint half, as the deviation from neighbouring pixels."""
    inside = ndimage.minimum_filter(image, footprint=CROSS) > level
    around = ndimage.convolve(image, CROSS / 4.0) - image / 4
    if np.count_nonzero(inside) < CROSS.size:
        return 0.0
    faint = inside & (around <= np.median(around[inside]))
    return 1.4826 * float(np.median(np.abs(image - around)[faint])) / np.sqrt(1.25)


def sky_in(part: np.ndarray, missing: np.ndarray) -> Sky:
    """Measure the sky in the corners of a square, where a galaxy's light is faintest.

    Args:
        part: the square, in physical units, finite.
        missing: the mask of its pixels without data, which count only if no corner has others.
    """
    corners = corners_of(part.shape)
    known = corners & ~missing
    return _sky(part, known if known.any() else corners)


def _off_steps(pixels: np.ndarray) -> np.ndarray:
    """Spread quantised pixels, such as counts, evenly over their quantisation steps.

    The median of whole numbers is a whole number: for counts with a noise of 2, the level would be
    up to half a count off, and 1.4826 times the median absolute deviation would be 1.5 or 3.
    """
    values, index, counts = np.unique(pixels.ravel(), return_inverse=True, return_counts=True)
    if not 1 < len(values) <= pixels.size / 4:
        return pixels
    rank = np.empty(pixels.size)
    rank[np.argsort(index, kind="stable")] = np.arange(pixels.size)
    first = np.cumsum(counts) - counts
    share = (rank - first[index] + 0.5) / counts[index] - 0.5
    return pixels.ravel() + float(np.median(np.diff(values))) * share


def _find(
    image: np.ndarray, sky: Sky, threshold: float, no_sky: np.ndarray, bins: int | None = None
) -> Galaxy:
    """Find the galaxy in a picture in physical units, after compressing its bright pixels."""
    seen = np.arcsinh(np.maximum((image - sky.level) / sky.noise + 3, 0) / 10).astype(np.float32)
    return find_galaxy(seen, threshold, no_sky, quantum=0.01, bins=bins)


def _window(galaxy: Galaxy, shape: tuple[int, ...], settings: Settings) -> tuple[slice, slice]:
    """Return most of the square around a galaxy, in steps too coarse for small errors to matter."""
    half = INNER * settings.frame * galaxy.radius / 2 / galaxy.bins
    half = galaxy.bins * round(STEP ** round(np.log(max(half, 4)) / np.log(STEP)))
    middle = 2 * galaxy.bins
    y, x = (round(c / middle) * middle for c in (galaxy.y, galaxy.x))
    rows, columns = (
        slice(max(0, c - half), min(n, c + half)) for c, n in zip((y, x), shape, strict=True)
    )
    return rows, columns


def _find_in(
    image: np.ndarray,
    window: tuple[slice, slice],
    galaxy: Galaxy,
    settings: Settings,
    missing: np.ndarray,
) -> Galaxy:
    """Measure the galaxy from the pixels of a window alone, whose corners are taken for sky."""
    part, gone = image[window], missing[window]
    no_sky = gone | ~corners_of(part.shape)
    if no_sky.all():
        return galaxy
    part = level_in(part, gone)
    try:
        found = _find(part, _sky(part, ~no_sky), settings.threshold, no_sky, galaxy.bins)
    except UnusableImageError:
        return galaxy
    return replace(found, y=found.y + window[0].start, x=found.x + window[1].start)


def _brightest_neighbour(image: np.ndarray) -> np.ndarray:
    """Return the brightest of the four pixels beside each pixel."""
    around = np.pad(image, 1, constant_values=-np.inf)
    return np.maximum(
        np.maximum(around[:-2, 1:-1], around[2:, 1:-1]),
        np.maximum(around[1:-1, :-2], around[1:-1, 2:]),
    )


def _square(galaxy: Galaxy, image: np.ndarray, gaps: NoData | None, settings: Settings) -> Cut:
    """Return the square around a galaxy, as large as the picture allows."""
    if galaxy.radius < settings.min_radius * galaxy.bins:
        faint = galaxy.signal < FAINT * settings.threshold
        raise UnusableImageError("too faint" if faint else "too small")
    room = 2 * min(galaxy.y, galaxy.x, image.shape[0] - galaxy.y, image.shape[1] - galaxy.x)
    side = min(settings.frame * galaxy.radius, room)
    if side < 2 * galaxy.radius:
        raise UnusableImageError("runs off the image edge")
    cut = Cut(galaxy.y - side / 2, galaxy.x - side / 2, side)
    if gaps is not None:
        inside = pixels_in(cut, image.shape)
        few = settings.units == "linear" and gaps.anywhere[inside].mean() <= MOST_MISSING
        if not few and (reason := gaps.reason(inside)) is not None:
            raise UnusableImageError(reason)
    return cut


def pixels_in(cut: Cut, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the index of the pixels that a square touches."""
    rows, columns = (
        slice(max(0, int(np.floor(start))), min(n, int(np.ceil(start + cut.side))))
        for start, n in zip((cut.y0, cut.x0), shape, strict=True)
    )
    return rows, columns


def _check_overlap(view: np.ndarray, galaxy: Galaxy, cut: Cut, settings: Settings) -> None:
    foreign = foreign_light(view, galaxy, cut.side)
    if foreign >= settings.overlap:
        # Without a peak in the middle, the light there is the outskirts of another object.
        away = foreign == NO_PEAK and galaxy.off_centre > CENTRED
        raise UnusableImageError("galaxy off centre" if away else "overlapping bright object")


def _check_room(galaxy: Galaxy, cut: Cut, settings: Settings) -> None:
    if settings.frame * galaxy.radius > cut.side:
        raise UnusableImageError("runs off the image edge")


def resample(image: np.ndarray, cut: Cut, size: int) -> np.ndarray:
    """Resample the square `cut` of an image to size x size pixels, without aliasing.

    Shrinking weighs the source pixels by a Hamming-windowed sinc of the width of an output pixel;
    enlarging is bicubic.

    Args:
        image: (height, width) in 0..1.
        cut: the square.
        size: pixels on a side of the result.

    Returns:
        float32 (size, size), clipped to 0..1.
    """
    return np.clip(_resampled(image, cut, size), 0, 1)


def _resampled(image: np.ndarray, cut: Cut, size: int) -> np.ndarray:
    filt = Image.Resampling.HAMMING if cut.side > size else Image.Resampling.BICUBIC
    box = (cut.x0, cut.y0, cut.x0 + cut.side, cut.y0 + cut.side)
    box = tuple(min(max(k, 0.0), n) for k, n in zip(box, image.shape[::-1] * 2, strict=True))
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize((size, size), filt, box=box))
