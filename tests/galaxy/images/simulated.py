"""Simulated pictures of galaxies, and a source that holds them in memory."""

import numpy as np

SIDE = 424  # as in Galaxy Zoo; binned by two for detection


def blob(y, x, major, ratio=1.0, angle=0.0, peak=0.6, side=SIDE):
    """An elliptical Gaussian; `major` is its standard deviation along its longest axis."""
    dy, dx = np.mgrid[:side, :side] + 0.5 - np.array([y, x])[:, None, None]
    along = dy * np.sin(angle) + dx * np.cos(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    return peak * np.exp(-(along**2 + (across / ratio) ** 2) / (2 * major**2))


def picture(rng, *blobs, noise=0.01, sky=0.02, side=SIDE):
    image = sky + sum(blobs, start=np.zeros((side, side))) + rng.normal(0, noise, (side, side))
    return np.clip(image, 0, 1).astype(np.float32)


class Pictures:
    """A source in memory, for the tests."""

    def __init__(self, *images):
        self.name = "pictures"
        self.images = images
        self.ids = [f"g{i}" for i in range(len(images))]

    def __len__(self):
        return len(self.images)

    def read(self, i):
        if isinstance(self.images[i], BaseException):
            raise self.images[i]
        return self.images[i]


def profile(side, y, x, scale, ratio=0.7, peak=100.0):
    """An exponential galaxy of some scale length, in counts."""
    dy, dx = np.mgrid[:side, :side] + 0.5 - np.array([y, x])[:, None, None]
    return peak * np.exp(-np.hypot(np.hypot(dx, dy / ratio) / scale, 0.7))
