"""The importance weighted bound against the exact likelihood of linear Gaussian models."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import NetError

PIXELS, LATENT, NOISE = 5, 2, 1.2


def likelihood(z):
    return [
        L.Dense("x_mean", z, units=PIXELS),
        L.Dense("x_log_variance", z, units=PIXELS, weight=0.0, bias=2 * np.log(NOISE)),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance", floor=0.0),
    ]


def posterior(z, x):
    return [
        L.Dense(f"{z}_mean", x, units=LATENT),
        L.Dense(f"{z}_log_variance", x, units=LATENT),
        L.Reparameterize(z, f"{z}_mean", f"{z}_log_variance"),
    ]


def one_level():
    return [
        L.Input("x", shape=(PIXELS,)),
        *posterior("z", "x"),
        *likelihood("z"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]


def two_levels():
    """z2 ~ N(0, I), z | z2 ~ N(A z2 + a, diag exp(B z2 + b)) with B = 0; q goes the same way."""
    return [
        L.Input("x", shape=(PIXELS,)),
        *posterior("z2", "x"),
        L.Dense("prior_mean", "z2", units=LATENT),
        L.Dense("prior_log_variance", "z2", units=LATENT, weight=0.0, bias=-0.5),
        L.Concat("both", "x", "z2"),
        *posterior("z", "both"),
        *likelihood("z"),
        L.GaussianKL("kl2", "z2_mean", "z2_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance", "prior_mean", "prior_log_variance"),
    ]


def make(layers, rng):
    """A model of random parameters, images near its mean, and their exact log p(x)."""
    net = lk.Net(
        layers, 2048, dtype="float64", phase="test", kernels="array", seed=int(rng.integers(1e9))
    )
    weight = {n: p.data for n, p in net.params.items()}
    for name, p in weight.items():  # q: wider than p everywhere, so that no ratio is extreme
        if name.startswith("z"):
            wide = "variance" in name
            p[...] = (0.03 if wide else 0.15) * rng.standard_normal(p.shape)
            p += 0.8 * (wide and name.endswith("bias"))
    weight["x_mean/weight"][...] = 0.7 * rng.standard_normal((LATENT, PIXELS))
    weight["x_mean/bias"][...] = rng.standard_normal(PIXELS)
    mean, covariance = np.zeros(LATENT), np.eye(LATENT)
    if "prior_mean/weight" in weight:
        weight["prior_mean/weight"][...] = 0.5 * rng.standard_normal((LATENT, LATENT))
        weight["prior_mean/bias"][...] = mean = 0.5 * rng.standard_normal(LATENT)
        a = weight["prior_mean/weight"].T
        covariance = a @ a.T + np.exp(-0.5) * np.eye(LATENT)
    w = weight["x_mean/weight"].T
    exact = multivariate_normal(
        w @ mean + weight["x_mean/bias"], w @ covariance @ w.T + NOISE**2 * np.eye(PIXELS)
    )
    images = exact.mean + 0.5 * (exact.rvs(3, random_state=rng) - exact.mean)
    return galaxy.GalaxyModel(net), images, exact.logpdf(images)


@pytest.mark.parametrize("layers", [one_level(), two_levels()], ids=["one level", "two levels"])
def test_from_the_elbo_to_the_exact_likelihood(layers, rng):
    model, images, exact = make(layers, rng)
    repeats = 2048
    many = np.repeat(images, repeats, axis=0)
    means, errors = [], []
    for samples in (1, 6, 80):
        bounds = model.importance_bound(many, samples).reshape(3, repeats)
        means.append(bounds.mean(axis=1))
        errors.append(bounds.std(axis=1) / np.sqrt(repeats))
    elbos = model.bound(many, samples=10)[0].reshape(3, repeats)
    error = np.hypot(errors[0], elbos.std(axis=1) / np.sqrt(repeats))
    assert np.all(np.abs(means[0] - elbos.mean(axis=1)) < 6 * error)
    assert np.all(means[0] < means[1])
    assert np.all(means[1] < means[2])
    assert np.all(means[2] < exact + 6 * errors[2])
    # The mean of p / q is p(x) at any K, so that of the largest has the least spread.
    ratio = np.exp(bounds - exact[:, None])
    spread = ratio.std(axis=1) / np.sqrt(repeats)
    assert np.all(spread < 0.1)
    assert np.all(np.abs(ratio.mean(axis=1) - 1) < 6 * spread)


def test_one_sample_is_enough_where_q_is_the_posterior(rng):
    """Then p(x, z) / q(z | x) is p(x) whatever z is, in each batch and for each row."""
    model, images, _ = make(one_level(), rng)
    weight = {n: p.data for n, p in model.net.params.items()}
    w = np.linalg.qr(rng.standard_normal((PIXELS, LATENT)))[0] * rng.uniform(0.5, 2, LATENT)
    precision = 1 + (w**2).sum(axis=0) / NOISE**2  # W^T W is diagonal, so this is too
    weight["x_mean/weight"][...] = w.T
    weight["z_mean/weight"][...] = w / (precision * NOISE**2)
    weight["z_mean/bias"][...] = -weight["x_mean/bias"] @ weight["z_mean/weight"]
    weight["z_log_variance/weight"][...] = 0
    weight["z_log_variance/bias"][...] = -np.log(precision)
    covariance = w @ w.T + NOISE**2 * np.eye(PIXELS)
    expected = multivariate_normal(weight["x_mean/bias"], covariance).logpdf(images)
    small = galaxy.GalaxyModel(
        lk.Net(one_level(), 2, dtype="float64", phase="test", share=model.net, kernels="array")
    )
    for samples in (1, 3):
        np.testing.assert_allclose(small.importance_bound(images, samples), expected, rtol=1e-9)


def test_noise_is_reproducible(rng):
    model, images, _ = make(two_levels(), rng)
    model.net.run.passes = 0
    first, second = (model.importance_bound(images, 5) for _ in range(2))
    assert np.all(first != second)
    model.net.run.passes = 0
    np.testing.assert_array_equal(model.importance_bound(images, 5), first)


def test_float32_kernels_agree_with_the_formula(rng):
    model, images, exact = make(one_level(), rng)
    net = model.net.rebuild(dtype="float32", kernels="auto")
    found = galaxy.GalaxyModel(net).importance_bound(images, 20_000)
    np.testing.assert_allclose(found, exact, atol=0.2)


def test_the_encoder_runs_once_for_all_samples(rng, monkeypatch):
    model, images, _ = make(two_levels(), rng)
    calls = []
    for name in ("z2_mean", "z_mean"):
        runner = model.net.runners[name]
        compiled = hasattr(runner, "run_forward")
        owner, call = (runner, "run_forward") if compiled else (runner.layer, "forward")

        def counted(bottoms, tops, forward=runner.forward, name=name):
            calls.append(name)
            forward(bottoms, tops)

        monkeypatch.setattr(owner, call, counted)
    model.importance_bound(images, 7)
    assert (calls.count("z2_mean"), calls.count("z_mean")) == (1, 7)  # z's mean depends on z2


def test_a_sampling_layer_without_a_prior_is_refused():
    net = lk.Net(
        [
            L.Input("x", shape=(PIXELS,)),
            *posterior("z", "x"),
            *likelihood("z"),
            L.GaussianKL("kl", "z_log_variance", "z_mean"),
        ],
        phase="test",
    )
    with pytest.raises(NetError, match=r"the prior of layer 'z' .* unknown"):
        galaxy.GalaxyModel(net).importance_bound(np.zeros((1, PIXELS)), 2)
