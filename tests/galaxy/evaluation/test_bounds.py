"""Bounds of held-out and training images, against a model whose likelihood is known."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.galaxy.evaluation import bounds as bounds_module
from layerkit.galaxy.evaluation.bounds import Bounds, ImportanceBounds, evaluate_bounds

PIXELS, NOISE = 6, 0.8


def exact(rng):
    """A linear model of one latent whose encoder is the exact posterior, and its log p(x)."""
    net = lk.Net(
        [
            L.Input("x", shape=(PIXELS,)),
            L.Dense("z_mean", "x", units=1),
            L.Dense("z_log_variance", "x", units=1, weight=0.0),
            L.Reparameterize("z", "z_mean", "z_log_variance"),
            L.Dense("x_mean", "z", units=PIXELS),
            L.Dense("x_log_variance", "z", units=PIXELS, weight=0.0, bias=2 * np.log(NOISE)),
            L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance", floor=0.0),
            L.GaussianKL("kl", "z_mean", "z_log_variance"),
        ],
        4,
        dtype="float64",
        phase="test",
        seed=int(rng.integers(1e9)),
    )
    w = rng.standard_normal(PIXELS)
    precision = 1 + w @ w / NOISE**2
    net.params["x_mean/weight"].data[...] = w
    net.params["z_mean/weight"].data[:, 0] = w / NOISE**2 / precision
    net.params["z_log_variance/bias"].data[...] = -np.log(precision)
    return galaxy.GalaxyModel(net), multivariate_normal(
        np.zeros(PIXELS), np.outer(w, w) + NOISE**2 * np.eye(PIXELS)
    )


def test_bounds_of_an_exact_posterior_are_the_likelihood(rng, monkeypatch):
    model, density = exact(rng)
    model.temperature = 5.0  # which bounds leave out
    images = density.rvs(30, random_state=rng)
    train, held_out = images[:20], images[20:]
    monkeypatch.setattr(bounds_module, "BOUND_SAMPLES", 2000)
    found = evaluate_bounds(model, train, held_out, refine_steps=0)
    np.testing.assert_array_equal(found.posterior, model.encode(held_out, tempered=False))
    np.testing.assert_allclose(found.held_out, density.logpdf(held_out), atol=0.2)
    assert len(found.train) == 10  # no more than are held out
    np.testing.assert_allclose(found.train, density.logpdf(train[:10]), atol=0.2)


def test_refining_tightens_bounds_of_both_sets(net, rng):
    model = galaxy.GalaxyModel(net)
    train, held_out = rng.random((2, 5, 12, 12))
    before, after = (evaluate_bounds(model, train, held_out, steps) for steps in (0, 60))
    assert after.held_out.mean() > before.held_out.mean()
    assert after.train.mean() > before.train.mean()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_gap_is_positive_if_training_images_have_the_higher_bound(sign):
    posterior = galaxy.Posterior(np.zeros((2, 1)), np.ones((2, 1)))
    train, held_out = sign * np.array([200.0, 200.0]), np.array([180.0, 200.0])
    held_out = held_out if sign > 0 else -np.array([200.0, 220.0])
    found = Bounds(posterior, held_out, np.array([3.0, 5.0]), train).metrics()
    assert found == {
        "train_elbo": sign * 200.0,
        "held_out_elbo": held_out.mean(),
        "bound_gap_percent": pytest.approx(5.0),
        "held_out_kl": 4.0,
    }
    importance = ImportanceBounds(np.array([1.0, 4.0]), 7).metrics()
    assert importance == {"held_out_iwae": 2.5, "iwae_samples": 7}
