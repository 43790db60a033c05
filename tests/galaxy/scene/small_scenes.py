"""Small scenes without noise, drawn by the net that fits them."""

import numpy as np

from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.inference.fitting import Pixels, build
from layerkit.galaxy.scene.model.layout import Layout, Source

WIDTH = 3.5


def source(star, x, y, *fluxes, radius=2.0, shear=(0.3, 0.2), latent=-0.5):
    """Return a source of these fluxes, one for each band."""
    log = np.log(np.array(fluxes, float))
    shape = np.array([np.log(radius), *shear, latent])
    return Source(star, x, y, log, shape, (x, y, float(log.mean())))


def draw(sources, bands=1, height=48, width=52):
    """Return Pixels with the image of some sources, without noise, and the net that drew it."""
    psfs = np.array([gaussian(WIDTH)] * bands)
    shape = (bands, height, width)
    pixels = Pixels(np.zeros(shape), np.ones(shape), psfs, WIDTH)
    layout = Layout(sources, bands, WIDTH)
    net = build(pixels, layout)
    net.statistics["theta/centre"].data[...] = layout.values()
    net.statistics["theta/root"].data[...] = 0.03 * np.eye(layout.size)
    net.forward(noise=np.zeros((1, layout.size)), **pixels.inputs())
    pixels.values = net.blobs["image"].data[0].copy()
    return pixels, net, layout


def blend():
    """Return two galaxies and a star, in two bands, that overlap."""
    return [
        source(False, 20.3, 22.2, 900.0, 700.0),
        source(True, 27.0, 26.6, 500.0, 300.0),
        source(False, 36.7, 15.2, 700.0, 900.0, radius=3.0, shear=(-0.5, 0.3), latent=-1.5),
    ]
