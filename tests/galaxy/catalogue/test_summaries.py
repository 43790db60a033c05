"""Summaries of profiles whose size, shape and direction are known in closed form."""

import numpy as np
import pytest
from linear_galaxies import ellipse

from layerkit.galaxy.catalogue.summaries import SUMMARIES, spread, summarise
from layerkit.galaxy.images.crop.crop import Cut
from layerkit.galaxy.images.crop.scaling import stretch

SIDE = 81


def measured(image, side=SIDE, row_order="bottom", **scaling):
    (values,) = summarise(image[None], [Cut(3.0, 4.0, side, **scaling)], row_order)
    return dict(zip(SUMMARIES, values, strict=True))


@pytest.mark.parametrize("sigma", [6.0, 9.0])
def test_half_of_a_gaussian_lies_within_1_18_sigma(sigma):
    image = ellipse(SIDE, sigma, 1.0, 0.0)
    found = measured(image)
    assert found["half_light_radius"] == pytest.approx(np.sqrt(2 * np.log(2)) * sigma, rel=0.02)
    assert measured(image, side=3 * SIDE)["half_light_radius"] == pytest.approx(
        3 * found["half_light_radius"]
    )


def test_half_light_radius_of_an_exponential_disc_in_closed_form():
    """Within s scale lengths are 1 - (1 + s) e^-s of the light, here up to 1.5 Petrosian radii."""
    y, x = np.mgrid[:301, :301] - 150
    found = measured(0.9 * np.exp(-np.hypot(y, x) / 20), 301)["half_light_radius"]
    s = np.linspace(1e-3, 10, 100_000)
    light = 1 - (1 + s) * np.exp(-s)
    petrosian = s[np.flatnonzero(np.exp(-s) < 0.2 * 2 * light / s**2)[0]]
    half = np.interp(np.interp(1.5 * petrosian, s, light) / 2, light, s)
    assert found == pytest.approx(20 * half, rel=0.005)


@pytest.mark.parametrize("ratio", [0.35, 0.6, 0.85])
@pytest.mark.parametrize("angle", [0.0, 20.0, 90.0, 135.0, 178.0])
def test_axis_ratio_and_position_angle(ratio, angle):
    """Seen with the first row at the bottom, the angle from right to up is 90 more than from up."""
    image = ellipse(SIDE, 9.0, ratio, angle)
    found = measured(image)
    assert found["axis_ratio"] == pytest.approx(ratio, abs=0.01)
    for picture, order in ((image, "bottom"), (image[::-1], "top")):
        off = measured(picture, row_order=order)["position_angle"] - (angle - 90)
        assert (off + 90) % 180 - 90 == pytest.approx(0, abs=0.5)
    assert 0 <= found["position_angle"] < 180


def test_m20_of_a_gaussian_in_closed_form():
    """With s = r^2 / 2 sigma^2, light grows as 1 - e^-s and its moment as 1 - (1 + s) e^-s."""
    sigma, found = 9.0, measured(ellipse(SIDE, 9.0, 1.0, 0.0))
    s = np.linspace(1e-6, 30, 300_000)
    light, moment = 1 - np.exp(-s), 1 - (1 + s) * np.exp(-s)
    petrosian = s[np.flatnonzero(np.exp(-s) * s < 0.2 * light)[0]]  # ring over mean within
    petrosian = (np.ceil(np.sqrt(2 * petrosian) * sigma) / sigma) ** 2 / 2  # in whole pixels
    total, whole = np.interp(petrosian, s, light), np.interp(petrosian, s, moment)
    part = np.interp(np.interp(0.2 * total, light, s), s, moment)
    assert found["m20"] == pytest.approx(np.log10(part / whole), abs=0.02)


def test_what_was_stretched_is_measured_in_linear_light():
    image = ellipse(SIDE, 7.0, 0.6, 30.0, peak=900.0, sky=40.0)
    scaling = {"sky": 40.0, "spread": 2.0, "white": 940.0}
    plain, found = measured(image, white=1.0), measured(stretch(image, **scaling), **scaling)
    for name in SUMMARIES:
        assert found[name] == pytest.approx(plain[name], rel=3e-3, abs=1e-3), name
    as_it_is = measured(stretch(image, **scaling))
    assert as_it_is["half_light_radius"] > 1.1 * plain["half_light_radius"]


@pytest.mark.parametrize("image", [np.full((SIDE, SIDE), 0.3), np.full((SIDE, SIDE), np.nan),
                                   np.ones((5, 5))])  # fmt: skip
def test_where_there_is_no_galaxy_there_is_no_number(image):
    assert all(np.isnan(value) for value in measured(image).values())


def test_spread_of_numbers_and_of_directions(rng):
    draws = rng.normal(0, 0.1, (4000, len(SUMMARIES)))
    angle = list(SUMMARIES).index("position_angle")
    draws[:, angle] = rng.normal(179, 5, 4000) % 180
    found = spread(draws)
    assert found[angle] == pytest.approx(5, rel=0.05)
    np.testing.assert_allclose(np.delete(found, angle), 0.1, rtol=0.05)
    draws[:, angle] = rng.uniform(0, 180, 4000)
    assert spread(draws)[angle] == pytest.approx(180 / np.sqrt(12))
    draws[0] = np.nan
    assert np.isfinite(spread(draws)).all()
    assert np.isnan(spread(draws[:2])).all()
    assert np.isnan(spread(draws[:0])).all()
