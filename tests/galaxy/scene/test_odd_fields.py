"""Fields of odd units, shapes and sources, whose numbers must be right, or said to be doubtful."""

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.scene import make_field, measure
from layerkit.galaxy.scene.images.background import background
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.inference.fitting import Fit, Pixels, build
from layerkit.galaxy.scene.model.layout import Layout, Source
from layerkit.galaxy.scene.results.catalogue import UNCERTAIN, _flags


def star(rng, flux=500.0):
    """A star at x = 21, y = 18, under noise of 1."""
    image = rng.normal(size=(40, 44))
    image[6:31, 9:34] += flux * gaussian(3.5)
    return image


@pytest.mark.parametrize("unit", [1e-30, 1e-18, 1e6, 1e25])
def test_the_unit_of_brightness_changes_no_number(unit, rng):
    """Also where the noise of the sources' own light is estimated."""
    image = star(rng)
    one = measure(make_field(image, gaussian(3.5))).table
    other = measure(make_field(image * unit, gaussian(3.5))).table
    assert len(one) == len(other) == 1
    for name in ("flux", "flux_err"):
        np.testing.assert_allclose(other[name] / unit, one[name], rtol=1e-4)
    for name in ("x", "y", "x_err", "p_star", "half_light_radius"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3)


def test_variances_that_have_no_inverse_are_masked(rng, recwarn):
    image, variance = star(rng), np.ones((40, 44))
    variance[3, 4] = 1e-310
    field = make_field(image, gaussian(3.5), variance)
    assert np.argwhere(~field.usable[0]).tolist() == [[3, 4]]
    assert len(measure(field).table) == 1
    assert not recwarn.list


@pytest.mark.parametrize(
    "hidden",
    [np.s_[18, 21], np.s_[17:20, 20:23], np.s_[:, 1::2]],
    ids=["the pixel of the peak", "3 x 3 pixels around", "every other column"],
)
def test_stars_whose_peak_is_masked_are_found(hidden, rng):
    """The pixels around it say where it is, and how bright."""
    mask = np.zeros((40, 44), bool)
    mask[hidden] = True
    image = np.where(mask, np.nan, star(rng, 2000.0))
    row, *others = measure(make_field(image, gaussian(3.5), np.ones((40, 44)), mask=mask)).table
    assert not others
    assert abs(row["flux"] - 2000) < 4 * row["flux_err"] < 80
    assert np.hypot(row["x"] - 21, row["y"] - 18) < 0.05
    assert row["p_star"] > 0.5


@pytest.mark.parametrize("known", [True, False], ids=["variance", "no variance"])
@pytest.mark.parametrize(("shape", "rise"), [((40, 44), 8.0), ((90, 140), 5.0)])
def test_a_sky_that_slopes_is_no_light(shape, rise, known, rng):
    image = rng.normal(size=shape) + np.linspace(100, 100 + rise, shape[1])
    image[6:31, 9:34] += 500 * gaussian(3.5)
    field = make_field(image, gaussian(3.5), np.ones(shape) if known else None)
    row, *others = measure(field).table
    assert not others
    assert abs(row["flux"] - 500) < 4 * row["flux_err"] < 50


@pytest.mark.parametrize("peak", [140.0, 300.0])
@pytest.mark.parametrize("place", [(10, 14), (12, 12)])
def test_a_galaxy_beside_the_middle_is_no_slope(place, peak, rng):
    """Its wings slope, but not on the other side."""
    y, x = np.mgrid[:50, :50] - np.reshape(place, (2, 1, 1))
    image = rng.normal(size=(50, 50)) + peak * np.exp(-1.678 * np.hypot(x, y / 0.7) / 6)
    assert np.ptp(background(image, np.ones(image.shape, bool))[0]) < 1e-9


@pytest.mark.parametrize("shape", [(0, 40, 40), (33, 40, 40), (40,), (), (2, 2, 40, 40)])
def test_shapes_that_are_no_field_are_told(shape):
    with pytest.raises(DataError, match="expected an image of shape"):
        make_field(np.zeros(shape), gaussian(3.5))


@pytest.mark.parametrize(("radius", "flagged"), [(5.0, False), (40.0, True)])
def test_a_galaxy_too_large_for_its_picture_is_flagged(radius, flagged):
    """Its light wraps around in a picture of 256 pixels."""
    shape = np.array([np.log(radius), 0.0, 0.0, -0.9])
    source = Source(False, 150.0, 150.0, np.log([1e5]), shape, (150.0, 150.0, np.log(1e5)))
    values = np.zeros((1, 300, 300))
    pixels = Pixels(values, values + 1, gaussian(3.5)[None], 3.5)
    layout = Layout([source], 1, 3.5)
    images = build(pixels, layout).layers["image"]
    known = Fit(layout, layout.values(), 1e-4 * np.eye(layout.size), 0.0, values, images)
    assert bool(_flags(known, pixels, 0) & UNCERTAIN) == flagged
