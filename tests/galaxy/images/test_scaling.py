"""The stretch does not depend on units, and can be undone."""

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.scaling import stretch, unstretch


def test_stretch_does_not_depend_on_units_and_can_be_undone(rng):
    sky = rng.normal(0, 1, (60, 60))
    sky[30:34, 30:34] += 500
    image = stretch(sky, 0, 1, sky.max())
    assert image.min() >= 0
    assert image.max() == 1
    np.testing.assert_allclose(
        stretch(sky * 1e-11 + 3e-9, 3e-9, 1e-11, sky.max() * 1e-11 + 3e-9), image, atol=1e-6
    )
    assert image[0, 0] == pytest.approx(
        np.arcsinh((sky[0, 0] + 3) / 10) / np.arcsinh((sky.max() + 3) / 10), abs=1e-6
    )
    assert np.isnan(stretch(np.where(sky > 100, np.nan, sky), 0, 1, 9)[31, 31])
    inside = (image > 0) & (image < 1)
    back = unstretch(np.stack([image, image]), [[0, 1, sky.max()], [100, 2, 100 + 2 * sky.max()]])
    np.testing.assert_allclose(back[0][inside], sky[inside], atol=1e-3)
    np.testing.assert_allclose(back[1][inside], 100 + 2 * sky[inside], atol=2e-3)
    np.testing.assert_array_equal(unstretch(image, [0, 0, 4095]), 4095 * image.astype("f8"))


def test_unstretch_wants_a_stretch_for_each_image():
    images, stretches = np.full((2, 3, 4), 0.5), np.array([[0.0, 0, 1], [0, 0, 10]])
    np.testing.assert_array_equal(unstretch(images, stretches)[:, 0, 0], [0.5, 5])
    np.testing.assert_array_equal(unstretch(images[1], stretches[1]), np.full((3, 4), 5.0))
    bad = ((images, stretches[:1]), (images, [1, 2]), (images[0], stretches), (5, stretches))
    for pair in bad:
        with pytest.raises(DataError, match="expected images"):
            unstretch(*pair)
    with pytest.raises(DataError, match="arrays of numbers"):
        unstretch(images, "none")
