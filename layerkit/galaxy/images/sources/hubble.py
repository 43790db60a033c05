"""The built-in galaxies: cut from the Hubble picture that scikit-image carries in its wheel."""

from functools import cache

import numpy as np
from scipy import ndimage

from layerkit.galaxy.images.crop.detect import SMOOTHING, measure, measure_sky
from layerkit.galaxy.images.decode.pixels import rgb_to_intensity

THRESHOLD = 4.0  # noise standard deviations above the sky, as `prepare` has it by default
MIN_AREA = 12  # pixels; fewer have no shape, and most of what there is has fewer
MIN_RADIUS = 1.5  # pixels; the smoothed image of a point has 1.1 to 1.2
STARS = [(16, 405), (166, 254), (217, 147), (234, 132), (578, 754)]  # with diffraction spikes


class HubbleSource:
    """Galaxies of the Hubble eXtreme Deep Field, as scikit-image ships it (872 x 1000 pixels, RGB).

    Every object that is wider than a point is one item, named by the row and column of its centre,
    `hdf_0401_0123`: at this depth all but a handful are galaxies, and those few are left out.
    `read` returns a square around it, twice as wide as the default crop of `prepare`, which is to
    judge whether the object is alone in it.
    """

    name = "Hubble Deep Field"

    def __init__(self) -> None:
        found = _find_galaxies()
        self.ids = list(found)
        self.boxes = list(found.values())

    def __len__(self) -> int:
        return len(self.boxes)

    def read(self, i: int) -> np.ndarray:
        """The square around object `i` as float32 (side, side) in 0..1."""
        y, x, side = self.boxes[i]
        return _picture()[y : y + side, x : x + side].copy()


@cache
def _find_galaxies() -> dict[str, tuple[int, int, int]]:
    """Name, and corner and side of the square to read, of each galaxy in the picture."""
    # Heavy to import, and needed for this source only.
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    image = _picture()
    smooth = ndimage.gaussian_filter(image, SMOOTHING)
    sky = measure_sky(smooth)
    floor = THRESHOLD * sky.noise
    light = np.maximum(smooth - sky.level, floor)
    # Two peaks are two objects where the lower is half as bright again as the saddle between.
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
