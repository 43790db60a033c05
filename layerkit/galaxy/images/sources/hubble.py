"""The built-in galaxies, found in the Hubble picture that is part of scikit-image."""

from functools import cache

import numpy as np
from scipy import ndimage

from layerkit.galaxy.images.crop.detect import SMOOTHING, measure, measure_sky
from layerkit.galaxy.images.decode.pixels import rgb_to_intensity

THRESHOLD = 4.0  # standard deviations above the sky, the default of `prepare`
MIN_AREA = 12  # pixels; smaller objects, which are the majority, show no shape
MIN_RADIUS = 1.5  # pixels; a point source, smoothed, has 1.1 to 1.2
STARS = [(16, 405), (166, 254), (217, 147), (234, 132), (578, 754)]  # with diffraction spikes


class HubbleSource:
    """The galaxies of the Hubble eXtreme Deep Field, as scikit-image ships it (872 x 1000, RGB).

    Every object that is wider than a point source is one picture, except a handful of stars.  Its
    id holds the row and column of its centre, as in `hdf_0401_0123`.  The picture is a square twice
    as wide as the default crop, so that `prepare` can judge whether other objects are in it.
    """

    name = "Hubble Deep Field"

    def __init__(self) -> None:
        found = _find_galaxies()
        self.ids = list(found)
        self.boxes = list(found.values())

    def __len__(self) -> int:
        return len(self.boxes)

    def read(self, i: int) -> np.ndarray:
        """Read the square around object `i`: float32 (side, side) in 0..1."""
        y, x, side = self.boxes[i]
        return _picture()[y : y + side, x : x + side].copy()


@cache
def _find_galaxies() -> dict[str, tuple[int, int, int]]:
    """Find the galaxies; return the top left corner and the side of each one's square, by id."""
    # Slow to import, and needed for this source only.
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    image = _picture()
    smooth = ndimage.gaussian_filter(image, SMOOTHING)
    sky = measure_sky(smooth)
    floor = THRESHOLD * sky.noise
    light = np.maximum(smooth - sky.level, floor)
    # Two peaks are two objects if the lower one is 1.5 times as bright as the saddle between.
    peaks = h_maxima(np.log(light), np.log(1.5)).astype(bool) & (light > floor)
    peaks = ndimage.label(peaks, np.ones((3, 3)))[0]
    objects = watershed(-light, peaks, mask=light > floor)
    found = {}
    for k, window in enumerate(ndimage.find_objects(objects), start=1):
        mine = np.where(objects[window] == k, light[window], 0)
        if np.count_nonzero(mine) < MIN_AREA:
            continue
        y, x, radius = measure(mine, np.unravel_index(np.argmax(mine), mine.shape))
        y, x = y + window[0].start, x + window[1].start
        half = min(6.5 * radius, y, x, image.shape[0] - y, image.shape[1] - x)
        star = any(np.hypot(y - sy, x - sx) < 5 for sy, sx in STARS)
        if radius >= MIN_RADIUS and half > 4 * radius and not star:
            box = round(y - half), round(x - half), round(2 * half)
            found[f"hdf_{int(y):04d}_{int(x):04d}"] = box
    return found


@cache
def _picture() -> np.ndarray:
    from skimage.data import hubble_deep_field

    return rgb_to_intensity(hubble_deep_field())
