"""A linear VAE has a known optimum: that of probabilistic PCA, reached by sampling and descent.

Sampling, likelihood, KL, solver and freezing have to be right together for the bound to get there.
"""

import math

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L

PIXELS, LATENT, COUNT, BATCH = 6, 2, 800, 100
ITERATIONS = 3500  # turning W so that its columns are orthogonal takes longest


def linear_vae():
    """p(x | z) = N(W z + mu, s^2 I), as in PPCA; q(z | x) = N(V x + m, diag v), v one for all x.

    The bound is tight for it: where the columns of W are orthogonal, as they can always be turned
    to be, the true posterior has a diagonal covariance that is the same for all x.  Log-variances
    that do not depend on the data are biases of layers whose weights are frozen at zero; log s^2
    is one number, spread over all pixels by frozen ones.
    """
    return [
        L.Input("x", shape=(PIXELS,)),
        L.Dense("z_mean", "x", units=LATENT),
        L.Dense("z_log_variance", "x", units=LATENT, weight=0.0),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=PIXELS),
        L.Dense("noise", "z", units=1, weight=0.0),
        L.Dense("x_log_variance", "noise", units=PIXELS, weight=1.0),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance", floor=0.0),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]


def best_log_likelihood(x):
    """Mean log p(x) under the maximum likelihood PPCA model: Tipping and Bishop (1999), eq. 4-8."""
    variances = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    noise = variances[LATENT:].mean()
    log_determinant = np.log(variances[:LATENT]).sum() + (PIXELS - LATENT) * math.log(noise)
    return -0.5 * (PIXELS * math.log(2 * math.pi) + log_determinant + PIXELS)


def log_likelihood(x, w, mu, noise):
    """Mean log N(x; mu, W W^T + s^2 I), written out."""
    covariance = w @ w.T + noise * np.eye(PIXELS)
    error = x - mu
    distance = (error * np.linalg.solve(covariance, error.T).T).sum(axis=1).mean()
    return -0.5 * (PIXELS * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + distance)


@pytest.fixture
def x(rng):
    """Data of a PPCA model: two strong directions of different strength, noise, an offset."""
    directions = np.linalg.qr(rng.standard_normal((PIXELS, LATENT)))[0]
    w = directions * rng.uniform([2.5, 1.0], [3.5, 1.5])
    z = rng.standard_normal((COUNT, LATENT))
    noise = rng.uniform(0.5, 0.7) * rng.standard_normal((COUNT, PIXELS))
    return z @ w.T + rng.standard_normal(PIXELS) + noise


def test_the_closed_form(x):
    """The formula for the optimum is the likelihood of the model it is the optimum of."""
    variances, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = variances[:-LATENT].mean()
    w = directions[:, -LATENT:] * np.sqrt(variances[-LATENT:] - noise)
    best = best_log_likelihood(x)
    assert log_likelihood(x, w, x.mean(axis=0), noise) == pytest.approx(best, rel=1e-12)
    for worse in (
        log_likelihood(x, 1.01 * w, x.mean(axis=0), noise),
        log_likelihood(x, w, x.mean(axis=0) + 0.01, noise),
        log_likelihood(x, w, x.mean(axis=0), 1.01 * noise),
    ):
        assert worse < best


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_the_bound_reaches_the_exact_likelihood(kernels, x, rng):
    layers = lk.with_data(linear_vae(), L.MemoryData("x", data=x))
    net = lk.Net(layers, BATCH, seed=int(rng.integers(2**31)), kernels=kernels)
    net.freeze("z_log_variance/weight", "noise/weight", "x_log_variance")
    solver = lk.Adam(net, lk.rates.Cosine(0.05, ITERATIONS, final=1e-4))
    for _ in range(ITERATIONS):
        solver.step()

    # The bound over all data, with its sampling error.
    seed = int(rng.integers(2**31))
    test = lk.Net(linear_vae(), COUNT, phase="test", share=net, seed=seed, kernels=kernels)
    bounds = np.array([-test.forward(x=x) for _ in range(40)])
    bound, error = bounds.mean(), bounds.std(ddof=1) / math.sqrt(len(bounds))
    best = best_log_likelihood(x)
    assert error < 0.002 * abs(best)
    assert bound > best - 0.01 * abs(best)
    assert bound < best + 6 * error, "a lower bound cannot exceed the best there is"

    # And the decoder is the generative model: its own exact likelihood is about as good.
    w, mu = net.params["x_mean/weight"].data.T, net.params["x_mean/bias"].data
    noise = math.exp(net.params["noise/bias"].data[0])
    assert best - 0.01 * abs(best) < log_likelihood(x, w, mu, noise) <= best + 1e-5 * abs(best)
