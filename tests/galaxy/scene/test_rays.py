"""Cosmic rays and hot pixels are masked, stars are not; settings of `measure` are checked."""

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.scene import make_field, measure
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.images.rays import sharp_pixels


def star(width, dx, dy, size=64, beta=None):
    """A star that is no sum of shifted pixels: its profile at each pixel's centre."""
    y, x = np.mgrid[:size, :size] - size // 2
    square = ((x - dx) ** 2 + (y - dy) ** 2) / width**2
    if beta is None:
        light = np.exp(-4 * np.log(2) * square)
    else:
        light = (1 + 4 * (2 ** (1 / beta) - 1) * square) ** -beta
    return light / light.sum()


@pytest.mark.parametrize("width", [1.5, 2.0, 3.0, 4.5])
@pytest.mark.parametrize("beta", [None, 3.0])
def test_no_star_is_too_sharp_wherever_between_pixels(width, beta, rng):
    psf = star(width, 0, 0, 25, beta)
    for _ in range(60):
        light = 10 ** rng.uniform(2, 6) * star(width, *rng.uniform(-0.5, 0.5, 2), beta=beta)
        image = rng.normal(light, np.sqrt(1 + 0.1 * light))
        weights = 1 / (1 + 0.1 * light)
        assert not sharp_pixels(image[None], weights[None], psf[None]).any()


def test_rays_are_found(rng):
    image = rng.normal(size=(2, 64, 64))
    hits = np.zeros(image.shape, bool)
    hits[0, 40, 40] = hits[0, 10, 10:20] = hits[0, 30:33, 50] = hits[0, 50:52, 5:7] = True
    hits[1, 20, 20] = True
    image[hits] += rng.uniform(60, 5000, hits.sum())
    image[0] += 300 * star(3.0, -12, 4)
    weights = np.ones(image.shape)
    weights[0, 39, 39:42] = 0
    psfs = np.array([gaussian(3.0)] * 2)
    np.testing.assert_array_equal(sharp_pixels(image, weights, psfs), hits)
    assert not sharp_pixels(image, weights, np.ones((2, 1, 1))).any()  # a star is a pixel there


def test_a_ray_changes_no_source(rng):
    """Fitted as a source it had made three galaxies of 100,000 elsewhere, and none of the star."""
    image = rng.normal(size=(48, 48)) + 500 * star(3.0, 0.2, -4.1, 48)
    clean = measure(make_field(image, gaussian(3.0), np.ones((48, 48))))
    image[40, 40] = 1e4
    scene = measure(make_field(image, gaussian(3.0), np.ones((48, 48))))
    assert any(note.startswith("1 pixels sharper than the PSF") for note in scene.notes)
    assert len(scene.table) == len(clean.table) == 1
    for name in ("x", "y", "flux", "flux_err", "p_star"):
        np.testing.assert_allclose(scene.table[name], clean.table[name], rtol=2e-3)
    assert abs(scene.table["x"][0] - 24.2) < 5 * scene.table["x_err"][0]


def test_the_threshold_counts_in_the_residual_too(rng):
    image = rng.normal(size=(48, 48)) + 500 * star(3.0, 0, 0, 48)
    image += 60 * star(3.0, 14, 9, 48)  # about 11 deviations; the first about 90
    field = make_field(image, gaussian(3.0), np.ones((48, 48)))
    found = [len(measure(field, threshold=threshold).table) for threshold in (5, 20, 1e9)]
    assert found == [2, 1, 0]


@pytest.mark.parametrize("settings", [
    {"threshold": np.nan}, {"threshold": 0}, {"gain": 0}, {"gain": np.nan}, {"samples": -1},
    {"samples": 2.5}, {"tile": 0}, {"star": np.nan},
])  # fmt: skip
def test_settings_that_make_no_sense(settings, rng):
    field = make_field(rng.normal(size=(20, 20)), gaussian(3.0), np.ones((20, 20)))
    with pytest.raises(DataError, match=next(iter(settings))):
        measure(field, **settings)
    with pytest.raises(DataError, match="expected a Field"):
        measure("field.fits")


@pytest.mark.parametrize("name", ["g\n", "g" * 33])
def test_names_of_filters_are_those_of_columns(name):
    """A catalogue with such columns could not be written, once all was measured."""
    with pytest.raises(DataError, match="filters must be names of up to 32 printable"):
        make_field(np.zeros((2, 20, 20)), filters=[name, "r"])
