"""The slope of a sky, against planes that are known, and skies that have none."""

import numpy as np
import pytest

from layerkit.galaxy.images.crop.slope import corners_of, level_in, slope


def plane(shape, down, right):
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    return down * rows[:, None] + right * columns


@pytest.mark.parametrize("shape", [(60, 60), (40, 90), (500, 500), (1000, 640)])
@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e12])
def test_a_plane_is_found_below_a_galaxy_and_a_star(shape, unit, rng):
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 800 * np.exp(-((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2) / 50)
    light += 5000 * np.exp(-((y - 8) ** 2 + (x - 9) ** 2) / 8)
    tilt = plane(shape, 0.1, -0.2)
    image = unit * (light + tilt + 30 + rng.normal(0, 2, shape))
    found = slope(image, np.ones(shape, bool))
    np.testing.assert_allclose(found / unit, tilt, atol=0.1 * np.abs(tilt).max())
    assert abs(np.mean(found)) < 1e-9 * unit


def test_a_flat_sky_stays_as_it_is_to_the_last_bit():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        part = rng.normal(0, 2, (48, 48)) + 5
        part[20:28, 20:28] += 300
        part[:6, :6] += 40  # an object in one corner
        assert level_in(part, np.zeros(part.shape, bool)) is not part
        np.testing.assert_array_equal(level_in(part, np.zeros(part.shape, bool)), part)


def test_corners_alone_tell_and_pixels_without_data_do_not(rng):
    part = plane((60, 60), 0.3, 0.0) + rng.normal(0, 1, (60, 60))
    missing = np.zeros(part.shape, bool)
    part[:9, :9], missing[:9, :9] = 1e4, True
    part[~corners_of(part.shape)] = -1e5
    flat = level_in(part, missing)
    known = corners_of(part.shape) & ~missing
    assert abs(flat[known]).max() < 5


@pytest.mark.parametrize("image", [np.zeros((30, 30)), np.eye(30), np.full((2, 200), 3.0)])
def test_skies_without_noise_have_no_slope(image):
    assert slope(image, np.ones(image.shape, bool)) == 0.0
    assert slope(image, np.zeros(image.shape, bool)) == 0.0
