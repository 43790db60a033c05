"""GalaxyModel and evaluate, against the same formulas written out in NumPy."""

import numpy as np
import pytest
from scipy.stats import norm

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import NetError

SIDE, LATENT = 12, 3


@pytest.fixture
def net(rng):
    """The paper's net, small, with parameters far from where they start."""
    layers = lk.load_net("nets/galaxy_gdae.py", pixels=SIDE * SIDE, hidden=7, latent=LATENT)
    net = lk.Net(layers, batch_size=5, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    for p in net.params.values():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return net


def dense(net, name, x, relu=False):
    y = x @ net.params[f"{name}/weight"].data + net.params[f"{name}/bias"].data
    return np.maximum(y, 0) if relu else y


def encode(net, x):
    hidden = dense(net, "g2", dense(net, "g1", x.reshape(len(x), -1), True), True)
    return dense(net, "z_mean", hidden), dense(net, "z_log_variance", hidden)


def decode(net, z):
    hidden = dense(net, "f2", dense(net, "f1", z, True), True)
    variance = np.exp(dense(net, "x_log_variance", hidden)) + (1 / 255) ** 2 / 12
    return dense(net, "x_mean", hidden), variance


def test_encode_decode_reconstruct_and_score(net, rng):
    model = galaxy.GalaxyModel(net)
    assert (model.latent, model.pixels) == (LATENT, SIDE * SIDE)
    images = rng.uniform(size=(13, SIDE, SIDE))
    mean, log_variance = encode(net, images)
    got_mean, got_sd = model.encode(images)
    np.testing.assert_allclose(got_mean, mean)
    np.testing.assert_allclose(got_sd, np.exp(log_variance / 2))
    x_mean, x_variance = decode(net, mean)
    for got, expected in zip(model.reconstruct(images), (x_mean, x_variance), strict=True):
        np.testing.assert_allclose(got, expected.reshape(images.shape))
    expected = norm.logpdf(images.reshape(13, -1), x_mean, np.sqrt(x_variance)).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(images), expected)
    z = rng.standard_normal((4, LATENT))
    np.testing.assert_allclose(model.decode(z)[0], decode(net, z)[0])
    values = np.array([-2.0, 0.0, 1.0])
    traversed = model.traverse(values)
    assert traversed.shape == (LATENT, 3, SIDE * SIDE)
    z = np.zeros((1, LATENT))
    z[0, 1] = -2.0
    np.testing.assert_allclose(traversed[1, 0], decode(net, z)[0][0])
    assert model.sample(6, seed=1).shape == (6, SIDE * SIDE)
    np.testing.assert_array_equal(model.sample(6, seed=1), model.sample(6, seed=1))
    noisy, plain = (model.sample(4000, seed=2, noise=n) for n in (True, False))
    variance = model.decode(np.random.default_rng(2).standard_normal((4000, LATENT)))[1]
    np.testing.assert_allclose(np.std((noisy - plain) / np.sqrt(variance)), 1, atol=0.01)


def test_the_bound_is_the_mean_over_noise_of_its_definition(net, rng):
    model = galaxy.GalaxyModel(net)
    images = rng.uniform(size=(3, SIDE, SIDE))
    mean, log_variance = encode(net, images)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    draws = []
    for _ in range(4000):
        z = mean + np.exp(log_variance / 2) * rng.standard_normal(mean.shape)
        x_mean, x_variance = decode(net, z)
        draws.append(norm.logpdf(images.reshape(3, -1), x_mean, np.sqrt(x_variance)).sum(axis=1))
    expected, error = np.mean(draws, axis=0) - kl, np.std(draws, axis=0) / np.sqrt(len(draws))
    bound, got_kl = model.bound(images, samples=4000)
    np.testing.assert_allclose(got_kl, kl)
    assert np.all(np.abs(bound - expected) < 8 * error)


def test_standardising_changes_no_reconstruction_and_makes_the_kl_least(net, rng):
    model = galaxy.GalaxyModel(net)
    images = rng.uniform(size=(40, SIDE, SIDE))
    before = model.reconstruct(images), model.encode(images)
    _, kl_before = model.bound(images)
    assert model.standardise(images)
    for old, new in zip(before[0], model.reconstruct(images), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-8, atol=1e-10)
    mean, sd = model.encode(images)
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(mean.var(axis=0) + (sd**2).mean(axis=0), 1)
    np.testing.assert_allclose(sd / before[1][1], (sd / before[1][1])[:1].repeat(40, axis=0))
    kl = model.bound(images)[1].mean()
    assert kl < kl_before.mean()
    for name in ("z_mean", "z_log_variance"):  # no small step of shift or scale does better
        for step in (-0.01, 0.01):
            net.params[f"{name}/bias"].data += step
            if name == "z_log_variance":
                net.params["z_mean/weight"].data *= np.exp(step / 2)
                net.params["z_mean/bias"].data *= np.exp(step / 2)
            assert model.bound(images)[1].mean() > kl
            net.params[f"{name}/bias"].data -= step
            if name == "z_log_variance":
                net.params["z_mean/weight"].data /= np.exp(step / 2)
                net.params["z_mean/bias"].data /= np.exp(step / 2)


def test_standardising_leaves_other_nets_alone(rng):
    layers = [
        L.Input("x", shape=(9,)),
        L.Dense("z_mean", "x", units=2, neuron="tanh"),
        L.Dense("z_log_variance", "x", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=9),
        L.Dense("x_log_variance", "z", units=9),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]
    net = lk.Net(layers, phase="test")
    before = net.arena.data.copy()
    assert not galaxy.GalaxyModel(net).standardise(rng.uniform(size=(5, 9)))
    np.testing.assert_array_equal(net.arena.data, before)


def test_a_net_that_is_no_galaxy_model_is_refused():
    net = lk.Net([L.Input("x", shape=(3,)), L.ReLU("y", "x")], phase="test")
    with pytest.raises(NetError, match="GaussianReconstruction"):
        galaxy.GalaxyModel(net)


def test_evaluate_counts_wins(net, rng):
    model = galaxy.GalaxyModel(net)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    train = rng.uniform(size=(20, SIDE, SIDE))
    # Pure Gaussians, which the baseline fits exactly, and what the model itself says, exactly.
    gaussians = [0.8 * np.exp(-0.5 * (x**2 + y**2) / s**2) for s in (2.0, 3.0)]
    z = rng.standard_normal(LATENT)
    net.params["z_mean/weight"].data[...] = 0
    net.params["z_mean/bias"].data[...] = z
    own = decode(net, z[None])[0].reshape(SIDE, SIDE)
    found = galaxy.evaluate(model, train, np.array([*gaussians, own, own, own]))
    assert found.metrics["mse_wins"] == 3
    assert found.metrics["pca_mse_wins"] >= 3
    assert found.metrics["held_out_mse"] == pytest.approx(found.squared_error.mean() / SIDE**2)
    assert found.mean.shape == found.variance.shape == (5, SIDE, SIDE)
    np.testing.assert_array_equal(
        found.metrics["likelihood_wins"],
        (found.log_likelihood > found.gaussian_log_likelihood).sum(),
    )
    assert 3 <= found.metrics["sersic_mse_wins"] <= 4
    assert found.metrics["sersic_likelihood_wins"] == np.sum(
        found.log_likelihood > found.sersic_log_likelihood
    )
    assert found.metrics["held_out_iwae"] > found.metrics["held_out_elbo"]
    gap = 1 - found.metrics["held_out_elbo"] / found.metrics["train_elbo"]
    gap *= np.sign(found.metrics["train_elbo"])
    assert found.metrics["bound_gap_percent"] == pytest.approx(100 * gap)
    assert found.morphology.shape == found.drawn_morphology.shape == (5, 4)
    again = galaxy.evaluate(model, train, np.array([*gaussians, own, own, own]))
    assert again.metrics == found.metrics
