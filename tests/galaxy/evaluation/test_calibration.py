"""Calibration: of noise that is what it is said to be, and of noise that is not."""

import numpy as np
import pytest
from scipy.stats import norm

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.calibration import EDGES, calibrate, evaluate_calibration

NOMINAL = norm.cdf([1, 2, 3]) - norm.cdf([-1, -2, -3])


def predictions(rng, count=200, side=20):
    mean = rng.uniform(0.1, 0.9, (count, side, side))
    return mean, 0.01 + 0.1 * mean  # brighter pixels are noisier


def test_the_right_variances_cover_what_is_nominal(rng):
    mean, sd = predictions(rng)
    found = calibrate((rng.normal(mean, sd) - mean) / sd, mean)
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
    mean, _ = predictions(rng)
    found = calibrate(rng.normal(size=mean.shape) * np.where(mean > 0.74, 2.0, 1.0), mean)
    np.testing.assert_allclose(found.by_quintile[:4], np.tile(NOMINAL, (4, 1)), atol=0.02)
    twice = norm.cdf(np.arange(1, 4) / 2) - norm.cdf(-np.arange(1, 4) / 2)
    np.testing.assert_allclose(found.by_quintile[4], twice, atol=0.02)
    worst = found.metrics()["coverage_1sd_worst_quintile"]
    assert worst == found.by_quintile[4, 0]


def test_pixels_far_out_are_counted_apart_from_the_bins(rng):
    scores = np.full((1, 4, 5), 100.0)
    scores[0, 0], scores[0, 1] = -100, 0.05
    found = calibrate(scores, np.zeros_like(scores))
    np.testing.assert_allclose(found.beyond, [0.25, 0.5])
    width = EDGES[1] - EDGES[0]
    assert found.density.sum() * width == pytest.approx(0.25)
    assert found.density[len(found.density) // 2] * width == pytest.approx(0.25)


def test_arrays_that_differ_are_refused(rng):
    mean, _ = predictions(rng, 2)
    with pytest.raises(DataError, match="one shape"):
        calibrate(mean[:1], mean)


def test_images_drawn_from_the_model_itself_are_covered_as_they_should_be(net, rng):
    model = galaxy.GalaxyModel(net)
    posterior = galaxy.Posterior(rng.standard_normal((300, model.latent)), np.ones((300, 3)))
    mean, variance = (a.reshape(300, 12, 12) for a in model.decode(posterior.mean))
    images = np.clip(rng.normal(mean, np.sqrt(variance)), -9, 9)
    found = evaluate_calibration(model, images, posterior)
    np.testing.assert_allclose(found.coverage, NOMINAL, atol=0.01)
    assert abs(evaluate_calibration(model, images).coverage[0] - NOMINAL[0]) > 0.01
