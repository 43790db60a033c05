"""Likelihoods of images against the normal density written out."""

import numpy as np
import pytest
from scipy.stats import norm

from layerkit.errors import DataError
from layerkit.galaxy.baselines.likelihood import shared_variance_log_likelihood
from layerkit.layers.likelihoods.reconstruction import QUANTISATION_VARIANCE


def test_likelihood_is_the_normal_density_at_its_best_variance(rng):
    images = rng.random((4, 6, 5))
    models = images + rng.normal(size=images.shape) * np.array([0.01, 0.1, 1, 3]).reshape(4, 1, 1)
    likelihood = shared_variance_log_likelihood(images, models)
    for i in range(4):
        sd = np.sqrt(np.mean((images[i] - models[i]) ** 2))

        def at(sd, i=i):
            return norm(models[i], sd).logpdf(images[i]).sum()

        assert likelihood[i] == pytest.approx(at(sd), rel=1e-10)
        assert likelihood[i] > max(at(sd * 1.01), at(sd * 0.99))


def test_a_perfect_model_gets_the_floor_and_no_more(rng):
    images = rng.random((2, 10))
    expected = norm(0, np.sqrt(QUANTISATION_VARIANCE)).logpdf(0) * 10
    np.testing.assert_allclose(shared_variance_log_likelihood(images, images), expected)
    with pytest.raises(DataError, match="differ in shape"):
        shared_variance_log_likelihood(images, images[:1])


def test_the_floor_is_the_variance_of_rounding_to_eight_bits(rng):
    values = rng.random(100_000)
    rounding = np.round(values * 255) / 255 - values
    assert np.mean(rounding**2) == pytest.approx(QUANTISATION_VARIANCE, rel=0.02)
