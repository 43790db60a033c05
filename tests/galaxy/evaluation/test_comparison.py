"""Comparisons: counts written out by hand, and parts against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm
from small_galaxy_nets import SIDE

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.comparison import (
    Baselines,
    Comparison,
    ModelReconstructions,
    Reconstructions,
    closest_errors,
    fit_baselines,
    reconstruct,
)


def test_wins_are_counted_for_each_pair():
    images = np.zeros((3, 2, 2))

    def model(errors, likelihoods):
        return ModelReconstructions(images, np.array(errors), np.array(likelihoods), images)

    def baseline(errors, likelihoods):
        return Reconstructions(images, np.array(errors), np.array(likelihoods))

    found = Comparison(
        encoded=model([4.0, 4.0, 4.0], [1.0, 1.0, 1.0]),
        refined=model([2.0, 4.0, 6.0], [2.0, 2.0, 2.0]),
        closest_errors=np.array([1.0, 1.0, 1.0]),
        baselines=Baselines(
            gaussian=baseline([3.0, 3.0, 7.0], [0.0, 3.0, 1.5]),
            sersic=baseline([2.0, 5.0, 9.0], [3.0, 3.0, 3.0]),  # a tie is no win
            pca=baseline([0.5, 0.5, 2.0], [1.0, 1.0, 2.0]),
            components=5,
        ),
    ).metrics()
    assert found == {
        "held_out_mse": 1.0,
        "encoded_held_out_mse": 1.0,
        "closest_held_out_mse": 0.25,
        "gaussian_mse": pytest.approx(13 / 12),
        "sersic_mse": pytest.approx(16 / 12),
        "pca_mse": 0.25,
        "mse_wins": 2,
        "sersic_mse_wins": 2,
        "pca_mse_wins": 0,
        "encoded_mse_wins": 1,
        "encoded_sersic_mse_wins": 2,
        "encoded_pca_mse_wins": 0,
        "closest_mse_wins": 3,
        "closest_sersic_mse_wins": 3,
        "closest_pca_mse_wins": 1,
        "likelihood_wins": 2,
        "encoded_likelihood_wins": 1,
        "sersic_likelihood_wins": 0,
        "pca_components": 5,
        "pca_likelihood_wins": 2,
    }


def test_the_model_is_compared_at_the_posterior_given(net, rng):
    model = galaxy.GalaxyModel(net)
    images = rng.random((4, SIDE, SIDE))
    posterior = galaxy.Posterior(rng.standard_normal((4, model.latent)), np.ones((4, model.latent)))
    found = reconstruct(model, images, posterior)
    means, variances = (a.reshape(images.shape) for a in model.decode(posterior.mean))
    np.testing.assert_allclose(found.images, means)
    np.testing.assert_allclose(found.variances, variances)
    np.testing.assert_allclose(found.squared_errors, ((images - means) ** 2).sum(axis=(1, 2)))
    expected = norm.logpdf(images, means, np.sqrt(variances)).sum(axis=(1, 2))
    np.testing.assert_allclose(found.log_likelihoods, expected)
    closest = closest_errors(model, images)
    assert (closest < reconstruct(model, images).squared_errors).all()


def test_baselines_fit_what_they_can_describe(rng):
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    gaussian = 0.8 * np.exp(-0.5 * (x**2 + y**2) / 4)
    sky = gaussian + 0.1  # which the Sersic profile has, and the Gaussian has not
    train = rng.standard_normal((9, SIDE, SIDE))
    held_out = np.stack([gaussian, sky, train[0] - train[1] + train.mean(axis=0)])
    found = fit_baselines(train, held_out, components=8)
    power = (held_out**2).sum(axis=(1, 2))
    share = {k: getattr(found, k).squared_errors / power for k in ("gaussian", "sersic", "pca")}
    assert (share["gaussian"] < 1e-6).tolist() == [True, False, False]
    assert (share["sersic"] < 1e-4).tolist() == [True, True, False]
    assert (share["pca"] < 1e-6).tolist() == [False, False, True]  # all directions of training
    assert found.components == 8
    for fits in (found.gaussian, found.sersic, found.pca):
        sd = np.sqrt(np.maximum(((held_out - fits.images) ** 2).mean(axis=(1, 2)), 1 / 255**2 / 12))
        expected = norm.logpdf(held_out, fits.images, sd[:, None, None]).sum(axis=(1, 2))
        np.testing.assert_allclose(fits.log_likelihoods, expected)
    with pytest.raises(DataError, match="not finite"):
        fit_baselines(train, np.full((1, SIDE, SIDE), np.nan), 2)
