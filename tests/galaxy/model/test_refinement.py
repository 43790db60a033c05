"""Posteriors and pictures found for each image, against closed forms of linear models."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L

PIXELS, LATENT, NOISE = 9, 2, 0.7


def linear(rng, count, batch_size=8, level=0.0):
    """A model with f_mu(z) = W z + b, of which g knows little; W, b, and images it could make."""
    net = lk.Net(
        [
            L.Input("x", shape=(PIXELS,)),
            L.Dense("z_mean", "x", units=LATENT),
            L.Dense("z_log_variance", "x", units=LATENT, weight=0.0, bias=level),
            L.Reparameterize("z", "z_mean", "z_log_variance"),
            L.Dense("x_mean", "z", units=PIXELS),
            L.Dense("x_log_variance", "z", units=PIXELS, weight=0.0, bias=2 * np.log(NOISE)),
            L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance", floor=0.0),
            L.GaussianKL("kl", "z_mean", "z_log_variance", weight=0.1),
        ],
        batch_size,
        dtype="float64",
        phase="test",
        seed=int(rng.integers(1e9)),
    )
    # With orthogonal columns the exact posterior has independent axes, as q has.
    w = np.linalg.qr(rng.standard_normal((PIXELS, LATENT)))[0] * rng.uniform(1, 3, LATENT)
    net.params["x_mean/weight"].data[...] = w.T
    net.params["x_mean/bias"].data[...] = b = rng.standard_normal(PIXELS)
    net.params["z_mean/weight"].data[...] = 0.1 * rng.standard_normal((PIXELS, LATENT))
    images = rng.standard_normal((count, LATENT)) @ w.T + b
    images += NOISE * rng.standard_normal(images.shape)
    return galaxy.GalaxyModel(net), w, b, images


def test_refined_posteriors_come_to_the_exact_ones(rng):
    """Several batches, the last of which is not full."""
    model, w, b, images = linear(rng, 300)
    precision = 1 + (w**2).sum(axis=0) / NOISE**2
    exact = (images - b) @ w / NOISE**2 / precision
    before = model.encode(images)
    found = galaxy.refine(model, images, 400)
    sd = precision**-0.5
    assert np.abs((before.mean - exact) / sd).mean() > 0.5
    assert np.abs((found.mean - exact) / sd).mean() < 0.15
    np.testing.assert_allclose(np.log(found.sd / sd).mean(axis=0), 0, atol=0.1)
    bounds = [model.bound(images, 20, q)[0].mean() for q in (before, found)]
    assert bounds[0] < bounds[1]
    # Parameters, and what g says, are as they were.
    for old, new in zip(before, model.encode(images), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_steps_leave_what_g_says(rng):
    model, *_, images = linear(rng, 5)
    for old, new in zip(model.encode(images), galaxy.refine(model, images, 0), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bounds_of_the_exact_posterior_are_the_likelihood(rng):
    """ELBO and importance weighted bound meet in log p(x)."""
    model, w, b, images = linear(rng, 6)
    precision = 1 + (w**2).sum(axis=0) / NOISE**2
    mean = (images - b) @ w / NOISE**2 / precision
    exact = galaxy.Posterior(mean, np.broadcast_to(precision**-0.5, mean.shape))
    covariance = w @ w.T + NOISE**2 * np.eye(PIXELS)
    d = images - b
    likelihood = -0.5 * (
        np.einsum("np,np->n", d, np.linalg.solve(covariance, d.T).T)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(
        model.importance_bound(images, 3, posterior=exact), likelihood, rtol=1e-9
    )
    elbo = np.mean([model.bound(images, 500, exact)[0] for _ in range(4)], axis=0)
    np.testing.assert_allclose(elbo, likelihood, atol=0.5)
    mean_picture, _ = model.reconstruct(images, exact)
    np.testing.assert_allclose(mean_picture, mean @ w.T + b)
    np.testing.assert_allclose(model.scores(images, exact), (images - mean_picture) / NOISE)
    assert model.log_likelihood(images, exact).shape == (6,)


def test_the_closest_picture_is_the_least_squares_fit(rng):
    model, w, b, images = linear(rng, 270)
    z = galaxy.closest(model, images, 1000)  # enough for those that begin far off
    np.testing.assert_allclose(z, np.linalg.lstsq(w, (images - b).T)[0].T, atol=0.02)


@pytest.mark.parametrize("file", ["galaxy_ladder", "galaxy_pose"])
def test_nets_with_more_than_one_path(file, rng):
    side = 15
    size = {"side": side} if file == "galaxy_pose" else {"pixels": side * side}
    net = lk.Net(lk.load_net(f"nets/{file}.py", hidden=9, **size), 4, phase="test")
    model = galaxy.GalaxyModel(net)
    y, x = np.mgrid[:side, :side] - side // 2
    images = np.exp(-(x**2 + 2 * y**2) / rng.uniform(10, 40, (6, 1, 1)))
    before = model.bound(images, 8)[0]
    found = galaxy.refine(model, images, 60)
    assert found.mean.shape == (6, model.latent)
    assert model.bound(images, 8, found)[0].mean() > before.mean()
    assert galaxy.closest(model, images, 5).shape == (6, model.latent)
