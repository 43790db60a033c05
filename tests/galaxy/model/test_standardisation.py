"""Standardised axes of z: no reconstruction changes, and the KL term is at its least."""

import numpy as np
import pytest
from small_galaxy_nets import SIDE

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import NetError


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


@pytest.mark.parametrize("level", [200.0, -400.0, np.nan])
def test_a_model_that_has_diverged_is_not_standardised(level, rng):
    """Dividing by deviations of e^100 or 0 would leave weights that are no numbers."""
    net = lk.Net(
        [
            L.Input("x", shape=(9,)),
            L.Dense("z_mean", "x", units=2),
            L.Dense("z_log_variance", "x", units=2),
            L.Reparameterize("z", "z_mean", "z_log_variance"),
            L.Dense("x_mean", "z", units=9),
            L.Dense("x_log_variance", "z", units=9),
            L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
            L.GaussianKL("kl", "z_mean", "z_log_variance"),
        ],
        phase="test",
    )
    net.params["z_mean/weight"].data[:, 1] = 0
    net.params["z_log_variance/weight"].data[...] = 0
    net.params["z_log_variance/bias"].data[...] = [0, level]
    before = net.arena.data.copy()
    with pytest.raises(NetError, match=r"axis 2 of z .* diverged; lower the rate"):
        galaxy.GalaxyModel(net).standardise(rng.uniform(size=(5, 9)))
    np.testing.assert_array_equal(net.arena.data, before)


@pytest.mark.parametrize(
    ("neuron", "more"),
    [
        ("tanh", []),  # what makes z_mean is not linear
        (None, [L.ReLU("z_positive", "z")]),  # something other than Dense reads z
        (
            None,  # a second latent layer is sampled around z_mean
            [
                L.Dense("h_log_variance", "x", units=2),
                L.Reparameterize("h", "z_mean", "h_log_variance"),
                L.GaussianKL("kl_h", "z_mean", "h_log_variance"),
            ],
        ),
    ],
    ids=["not linear", "another reader", "a second sample"],
)
def test_standardising_leaves_other_nets_alone(neuron, more, rng):
    layers = [
        L.Input("x", shape=(9,)),
        L.Dense("z_mean", "x", units=2, neuron=neuron),
        L.Dense("z_log_variance", "x", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=9),
        L.Dense("x_log_variance", "z", units=9),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
        *more,
    ]
    net = lk.Net(layers, phase="test")
    before = net.arena.data.copy()
    assert not galaxy.GalaxyModel(net).standardise(rng.uniform(size=(5, 9)))
    np.testing.assert_array_equal(net.arena.data, before)


def test_standardising_the_top_of_two_stochastic_layers(ladder, rng):
    model = galaxy.GalaxyModel(ladder)
    images = rng.uniform(size=(40, SIDE, SIDE))
    before, (mean, _) = model.reconstruct(images), model.encode(images)
    decoded, names = model.decode(mean), ["kl", "kl_h"]
    kl_before = ladder.infer(names, sample=False, x=images)
    assert model.standardise(images)
    np.testing.assert_allclose(model.reconstruct(images), before, rtol=1e-8, atol=1e-10)
    moved, narrowed = model.encode(images)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(moved.var(axis=0) + (narrowed**2).mean(axis=0), 1)
    np.testing.assert_allclose(model.decode(moved), decoded, rtol=1e-8)
    kl = ladder.infer(names, sample=False, x=images)
    assert kl[0].mean() < kl_before[0].mean()
    np.testing.assert_allclose(kl[1], kl_before[1])


def test_pieces_of_z_are_standardised_unless_they_mean_something(rng):
    """The axes of shape of galaxy_pose are free; those of its pose are not."""
    layers = lk.load_net("nets/galaxy_pose.py", side=SIDE, hidden=9, latent=5, pose_latent=2)
    net = lk.Net(layers, 5, phase="test", dtype="float64")
    for p in net.params.values():
        p.data += 0.1 * rng.standard_normal(p.shape)
    model = galaxy.GalaxyModel(net)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    images = np.exp(-0.5 * (x**2 + y**2) / rng.uniform(2, 3, (30, 1, 1)) ** 2)
    images += 0.02 * rng.standard_normal(images.shape)
    before, (old_mean, _) = model.reconstruct(images), model.encode(images)
    assert model.standardise(images)
    np.testing.assert_allclose(model.reconstruct(images), before, rtol=1e-7, atol=1e-10)
    mean, sd = model.encode(images)
    moments = np.stack([mean.mean(axis=0), mean.var(axis=0) + (sd**2).mean(axis=0) - 1])
    moved = np.abs(mean - old_mean).max(axis=0) > 0
    assert moved.sum() == 3
    np.testing.assert_allclose(moments[:, moved], 0, atol=1e-9)
