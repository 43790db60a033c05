"""Calibration: of noise that is what it is said to be, and of noise that is not."""

import numpy as np
import pytest
from scipy.stats import norm

from layerkit.errors import DataError
from layerkit.galaxy.calibration import EDGES, calibrate, rescale

NOMINAL = norm.cdf([1, 2, 3]) - norm.cdf([-1, -2, -3])


def predictions(rng, count=200, side=20):
    mean = rng.uniform(0.1, 0.9, (count, side, side))
    return mean, (0.01 + 0.1 * mean) ** 2  # brighter pixels are noisier


def test_the_right_variances_cover_what_is_nominal(rng):
    mean, variance = predictions(rng)
    found = calibrate(rng.normal(mean, np.sqrt(variance)), mean, variance)
    np.testing.assert_allclose(found.coverage, NOMINAL, atol=0.01)
    np.testing.assert_allclose(found.by_quintile, np.tile(NOMINAL, (5, 1)), atol=0.02)
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    np.testing.assert_allclose(found.density, norm.pdf(centres), atol=0.03)
    assert found.density.sum() * (EDGES[1] - EDGES[0]) == pytest.approx(1)
    np.testing.assert_allclose(found.brightness, [0.18, 0.34, 0.5, 0.66, 0.82], atol=0.02)
    metrics = found.metrics()
    assert metrics["coverage_2sd"] == found.coverage[1]
    assert metrics["coverage_2sd_quintiles"] == found.by_quintile[:, 1].tolist()


def test_a_variance_that_is_wrong_where_it_is_bright_shows_there(rng):
    mean, variance = predictions(rng)
    noise = np.sqrt(variance) * np.where(mean > 0.74, 2.0, 1.0)
    found = calibrate(rng.normal(mean, noise), mean, variance)
    np.testing.assert_allclose(found.by_quintile[:4], np.tile(NOMINAL, (4, 1)), atol=0.02)
    twice = norm.cdf(np.arange(1, 4) / 2) - norm.cdf(-np.arange(1, 4) / 2)
    np.testing.assert_allclose(found.by_quintile[4], twice, atol=0.02)
    worst = found.metrics()["coverage_1sd_worst_quintile"]
    assert worst == found.by_quintile[4, 0]


def test_residuals_far_out_are_in_the_last_bins(rng):
    mean = np.zeros((1, 4, 5))
    images = mean + 100
    images[0, 0] = -100
    found = calibrate(images, mean, np.ones_like(mean))
    width = EDGES[1] - EDGES[0]
    np.testing.assert_allclose(found.density[[0, -1]] * width, [0.25, 0.75])


def test_arrays_that_differ_are_refused(rng):
    mean, variance = predictions(rng, 2)
    with pytest.raises(DataError, match="one shape"):
        calibrate(mean[:1], mean, variance)


def test_rescaling_mends_what_is_wrong_by_a_factor_that_depends_on_brightness(rng):
    def pictures(count):
        mean = rng.uniform(size=(count, 40, 40))
        return rng.normal(mean, 0.1 * (0.5 + mean)), mean, np.full_like(mean, 0.1**2)

    factors = rescale(*pictures(40))
    assert (np.diff(factors.factors) > 0).all()
    np.testing.assert_allclose(factors.factors, [0.6, 0.8, 1.0, 1.2, 1.4], atol=0.03)
    images, mean, variance = pictures(40)
    assert np.abs(calibrate(images, mean, variance).by_quintile[:, 0] - NOMINAL[0]).max() > 0.1
    found = calibrate(images, mean, factors.variance(mean, variance))
    np.testing.assert_allclose(found.by_quintile[:, :2], [NOMINAL[:2]] * 5, atol=0.015)


def test_rescaling_with_long_tails_lies_between_the_two_shares(rng):
    mean = np.zeros((30, 50, 50))
    images = rng.standard_t(3, mean.shape)
    factors = rescale(images, mean, np.ones_like(mean))
    share = [(np.abs(images) < k * factors.factors[0]).mean() for k in (1, 2)]
    assert share[0] > NOMINAL[0]
    assert share[1] < NOMINAL[1]
