"""Pictures prepared under redrawn noise, and the noise of a sky, against what was drawn."""

from functools import partial

import numpy as np
import pytest
from astropy.nddata import CCDData

from layerkit.errors import DataError
from layerkit.galaxy.evaluation.coverage.redraws import NoPictureError, redraw, sky_noise
from layerkit.galaxy.images.crop.crop import Settings, cut_out


def test_noise_of_the_sky(rng):
    counts = 1000 + 20 * rng.standard_normal((200, 200))
    counts[80:120, 80:120] += 500
    counts[0, 0] = np.nan
    assert sky_noise(counts) == pytest.approx(20, rel=0.03)
    assert sky_noise(1e-12 * counts) == pytest.approx(2e-11, rel=0.03)
    whole = np.nan_to_num(counts, nan=1000).astype("uint16")
    assert sky_noise(whole) == pytest.approx(20, rel=0.05)
    assert sky_noise(np.zeros((9, 9), "float32")) == 0.5 / 255
    assert sky_noise(np.zeros((9, 9), "uint16")) == 0.5


@pytest.mark.parametrize("fill", [0.0, np.nan, -999.0])
def test_blank_borders_get_no_noise(fill):
    """Or they would pass for sky, and for galaxies where the fill is far from it."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:100, :100] - 50
    picture = 50 + 300 * np.exp(-np.hypot(y, 1.3 * x) / 4) + rng.normal(0, 2, (100, 100))
    picture = np.pad(picture, 60, constant_values=fill)
    assert sky_noise(picture) == pytest.approx(2, rel=0.15)
    view = cut_out(picture, Settings(size=32))[0]
    views, kept = redraw(
        [picture], 2.0, 8, share=0.5, cut=lambda p: cut_out(p, Settings(size=32))[0]
    )
    assert kept.tolist() == [0]
    assert np.abs(views[0] - view).max() < 0.3
    assert np.abs(views[0] - view).mean() < 0.05


def test_noise_of_few_photons_and_of_none():
    rng = np.random.default_rng(9)
    photons = rng.poisson(0.05, (80, 80)).astype("float64")  # 19 of 20 pixels are 0
    photons[30:50, 30:50] += 40
    assert 0.05 < sky_noise(photons) < 1
    clean = np.zeros((80, 80))
    clean[40, 40] = 1
    assert sky_noise(clean) == 0
    cut = np.copy
    assert redraw([clean, photons], None, 2, share=1.0, cut=cut)[1].tolist() == [1]
    with pytest.raises(DataError, match="give noise="):
        redraw([clean], None, 2, share=1.0, cut=cut)


def galaxy_of(rng, noise=3.0, side=96):
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    return 500 * np.exp(-np.hypot(y, 1.5 * x) / 5) + rng.normal(20, noise, (side, side))


def test_masked_pixels_get_no_noise_and_do_not_count(rng):
    """Or hot pixels that are masked would be measured as light."""
    light = galaxy_of(rng)
    mask = np.zeros(light.shape, bool)
    mask[2:6, 2:6] = True
    hot = np.where(mask, 60_000, light)
    cut = partial(settled, size=32)
    expected, kept = redraw([np.where(mask, np.nan, light)], None, 2, share=0.5, cut=cut)
    assert kept.tolist() == [0]
    for picture in (np.ma.array(hot, mask=mask), CCDData(hot, unit="adu", mask=mask)):
        views, _ = redraw([picture], None, 2, share=0.5, cut=cut)
        np.testing.assert_array_equal(views, expected)


def settled(picture, size):
    return cut_out(picture, Settings(size=size))[0]


def test_light_stays_light_under_any_noise(rng):
    """Noise that brings it far out of 0..1 does not make it counts."""
    light = (galaxy_of(rng, noise=0) / 600).astype("float32")
    seen = []
    redraw([light], 2.0, 3, share=1.0, cut=lambda p: seen.append(p) or p)
    assert all(p.dtype == np.float32 and p.min() >= -0.25 and p.max() <= 1.25 for p in seen)
    assert np.ptp(seen[0]) == 1.5
    with pytest.raises(
        NoPictureError, match=r"\(1 float32 with numbers far from 0..1; give counts"
    ):
        redraw([600 * light], 3.0, 2, share=1.0, cut=partial(settled, size=32))
