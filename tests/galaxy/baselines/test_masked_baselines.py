"""Baselines of images some pixels of which are masked, and count for nothing."""

import numpy as np
import pytest
from linear_galaxies import ellipse
from scipy.stats import norm

from layerkit.galaxy.baselines.gaussian import fit_gaussians
from layerkit.galaxy.baselines.likelihood import shared_variance_log_likelihood, squared_errors
from layerkit.galaxy.baselines.pca import PCABaseline
from layerkit.galaxy.baselines.sersic import SersicObjective, fit_sersics, parameter_of
from layerkit.galaxy.evaluation.bounds import of_whole_images
from layerkit.galaxy.evaluation.calibration import calibrate


@pytest.fixture
def spoilt(rng):
    """Gaussians with a hot column and a dead patch, which the mask hides; one has neither."""
    shapes = rng.uniform([2, 0.5, 0], [4, 0.9, 180], (3, 3))
    truth = np.array([ellipse(25, *shape, rng.uniform(-2, 2, 2), sky=0.0) for shape in shapes])
    mask = np.zeros(truth.shape, bool)
    mask[:2, :, 14], mask[0, 8:12, 5:9] = True, True
    return np.ma.array(np.where(mask, 3.0, truth), mask=mask), truth


def test_profiles_are_fitted_to_the_pixels_that_count(spoilt):
    images, truth = spoilt
    gaussians = fit_gaussians(images, workers=1)
    np.testing.assert_allclose(gaussians.models, truth, atol=1e-3)
    assert (gaussians.squared_errors < 1e-4).all()
    sersics = fit_sersics(images, gaussians.parameters, workers=1)
    np.testing.assert_allclose(sersics.models, truth, atol=1e-2)
    np.testing.assert_allclose(
        sersics.squared_errors, squared_errors(images, sersics.models), atol=1e-9
    )
    # The third is fitted as by itself.
    alone = fit_gaussians(truth[2:], workers=1)
    np.testing.assert_array_equal(gaussians.models[2], alone.models[0])


def test_the_gradient_of_a_masked_profile_is_that_of_its_error(rng):
    image, mask = rng.random((9, 9)), rng.random((9, 9)) < 0.3
    objective = SersicObjective(image, 2 / 9, mask)
    p = np.array([1.0, 1.1, -0.5, -0.7, 0.1, parameter_of(1.5), 0.3, 0.1])
    for k in range(8):
        step = np.zeros(8)
        step[k] = 1e-6
        slope = (objective.error(p + step) - objective.error(p - step)) / 2e-6
        assert objective.gradient(p)[k] == pytest.approx(slope, abs=1e-5)


def test_errors_and_likelihoods_are_of_the_pixels_that_count(rng):
    images = np.ma.array(rng.random((4, 5, 5)), mask=rng.random((4, 5, 5)) < 0.3)
    models = rng.random((4, 5, 5))
    for image, model, error, likelihood in zip(
        images,
        models,
        squared_errors(images, models),
        shared_variance_log_likelihood(images, models),
        strict=True,
    ):
        seen = ~image.mask
        d = image.data[seen] - model[seen]
        assert error == pytest.approx((d**2).sum())
        expected = norm.logpdf(d, 0, np.sqrt((d**2).mean())).sum()
        assert likelihood == pytest.approx(expected)


def test_components_are_fitted_to_the_pixels_that_count(rng):
    """An image made of the components is found again whatever lies under the mask."""
    train = rng.normal(size=(40, 6, 6)) @ np.diag([3, 2, 1, 0.1, 0.1, 0.1])
    model = PCABaseline.fit(train, 5)
    truth = model.reconstruct(rng.normal(size=(4, 6, 6)))
    mask = rng.random(truth.shape) < 0.25
    mask[3] = False
    images = np.ma.array(np.where(mask, 50.0, truth), mask=mask)
    np.testing.assert_allclose(model.reconstruct(images), truth, atol=1e-6)


def test_coverage_is_of_the_pixels_that_count(rng):
    scores, mean = rng.standard_normal((3, 8, 8)), rng.random((3, 8, 8))
    mask = rng.random(scores.shape) < 0.4
    found = calibrate(np.ma.array(np.where(mask, 9.0, scores), mask=mask), mean)
    for one, other in zip(found, calibrate(scores[~mask], mean[~mask]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bounds_rank_by_what_they_would_be_of_all_pixels():
    images = np.ma.array(np.zeros((2, 4, 5)), mask=False)
    images[0, 0] = np.ma.masked  # five of twenty
    np.testing.assert_allclose(of_whole_images(np.array([30.0, 30.0]), images), [40.0, 30.0])
    bounds = np.array([1.0, 2.0])
    assert of_whole_images(bounds, np.zeros((2, 4, 5))) is bounds
