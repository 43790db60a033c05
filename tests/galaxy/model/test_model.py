"""GalaxyModel against its formulas written out in NumPy."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from small_galaxy_nets import DETAIL, LATENT, SIDE

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError, NetError


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


# Two stochastic layers.


def prior_of_h(net, z):
    hidden = dense(net, "p1", z, True)
    return dense(net, "p_mean", hidden), dense(net, "p_log_variance", hidden)


def posterior_of_h(net, x, z):
    both = [dense(net, "g1", x.reshape(len(x), -1), True), dense(net, "p1", z, True)]
    hidden = dense(net, "d1", np.concatenate(both, axis=1), True)
    mean, log_variance = prior_of_h(net, z)
    return mean + dense(net, "d_mean", hidden), log_variance + dense(net, "d_log_variance", hidden)


def test_lower_latent_layers_come_from_their_prior_unless_there_is_an_image(ladder, rng):
    model = galaxy.GalaxyModel(ladder)
    assert (model.latent, model.roles.z, model.roles.priors) == (
        LATENT,
        "z",
        {"h": ["p_mean", "p_log_variance"]},
    )
    images = rng.uniform(size=(13, SIDE, SIDE))
    z_mean, z_log_variance = encode(ladder, images)
    np.testing.assert_allclose(model.encode(images), (z_mean, np.exp(z_log_variance / 2)))
    h_mean, _ = posterior_of_h(ladder, images, z_mean)
    expected = decode(ladder, h_mean)
    for got, of_q in zip(model.reconstruct(images), expected, strict=True):
        np.testing.assert_allclose(got, of_q.reshape(images.shape))
    likelihood = norm.logpdf(images.reshape(13, -1), expected[0], np.sqrt(expected[1])).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(images), likelihood)

    p_mean, p_log_variance = prior_of_h(ladder, z_mean)
    assert np.abs(p_mean - h_mean).max() > 0.01  # or what follows would show nothing
    np.testing.assert_allclose(model.decode(z_mean), decode(ladder, p_mean))
    noise = np.random.default_rng(5).standard_normal((13, DETAIL))
    h = p_mean + np.exp(p_log_variance / 2) * noise
    drawn = model.decode(z_mean, np.random.default_rng(5))
    np.testing.assert_allclose(drawn, decode(ladder, h))
    z = np.zeros((1, LATENT))
    z[0, 2] = 1.5
    np.testing.assert_allclose(
        model.traverse(np.array([1.5]))[2], decode(ladder, prior_of_h(ladder, z)[0])[0]
    )
    rng = np.random.default_rng(8)
    np.testing.assert_allclose(
        model.sample(6, seed=8), model.decode(rng.standard_normal((6, LATENT)), rng)[0]
    )


def test_the_bound_of_two_stochastic_layers(ladder, rng):
    for p in ladder.params.values():  # large log-variances have means that few draws decide
        p.data *= 0.3
    model = galaxy.GalaxyModel(ladder)
    images = rng.uniform(size=(3, SIDE, SIDE))
    flat = images.reshape(3, -1)
    mean, log_variance = encode(ladder, images)
    draws, penalties = [], []
    for _ in range(4000):  # of log p(x, h, z) - log q(h, z | x), from its definition
        z = mean + np.exp(log_variance / 2) * rng.standard_normal(mean.shape)
        q_mean, q_log_variance = posterior_of_h(ladder, images, z)
        h = q_mean + np.exp(q_log_variance / 2) * rng.standard_normal(q_mean.shape)
        p_mean, p_log_variance = prior_of_h(ladder, z)
        x_mean, x_variance = decode(ladder, h)
        penalties.append(
            norm.logpdf(z, mean, np.exp(log_variance / 2)).sum(axis=1)
            + norm.logpdf(h, q_mean, np.exp(q_log_variance / 2)).sum(axis=1)
            - norm.logpdf(z).sum(axis=1)
            - norm.logpdf(h, p_mean, np.exp(p_log_variance / 2)).sum(axis=1)
        )
        draws.append(norm.logpdf(flat, x_mean, np.sqrt(x_variance)).sum(axis=1) - penalties[-1])
    bound, kl = model.bound(images, samples=4000)
    for got, sampled in ((bound, draws), (kl, penalties)):
        error = np.std(sampled, axis=0) / np.sqrt(len(sampled))
        assert np.all(np.abs(got - np.mean(sampled, axis=0)) < 8 * error)


def test_a_loss_that_helps_training_is_no_part_of_the_bound(net, rng):
    more = [*net.descriptions, L.SquareLoss("squares", "x", "x_mean", weight=3.0)]
    helped = lk.Net(more, batch_size=5, phase="test", dtype="float64", seed=net.run.seed, share=net)
    both = [galaxy.GalaxyModel(net), galaxy.GalaxyModel(helped)]
    images = rng.uniform(size=(4, SIDE, SIDE))
    for model in both:
        model.net.run.passes = 0
    for some, others in zip(*(model.bound(images) for model in both), strict=True):
        np.testing.assert_allclose(some, others)


def test_a_lower_latent_layer_may_have_the_standard_prior(rng):
    both = L.Concat("h_z", "h", "z")
    layers = lk.load_net("nets/galaxy_ladder.py", pixels=9, hidden=3)
    layers = [x for x in layers if x.name not in ("kl_h", "f1")]
    layers += [both, L.Dense("f1", "h_z", units=3)]
    layers += [L.GaussianKL("kl_h", "h_mean", "h_log_variance")]
    net = lk.Net(layers, phase="test", dtype="float64")
    for p in net.params.values():
        p.data += rng.standard_normal(p.shape)
    model = galaxy.GalaxyModel(net)
    z = rng.standard_normal((4, 8))
    expected = net.infer("x_mean", z=z, h=np.zeros((4, 24)))
    np.testing.assert_array_equal(model.decode(z)[0], expected)
    h = np.random.default_rng(1).standard_normal((4, 24))
    expected = net.infer("x_mean", z=z, h=h)
    np.testing.assert_array_equal(model.decode(z, np.random.default_rng(1))[0], expected)


# The net files.

SMALL = {
    "galaxy_gdae": {"pixels": SIDE * SIDE, "hidden": 9},
    "galaxy_wide": {"pixels": SIDE * SIDE, "hidden": 9, "latent": 5, "depth": 4},
    "galaxy_ladder": {"pixels": SIDE * SIDE, "hidden": 9, "latent": 2, "detail": 5},
    "galaxy_pose": {"side": SIDE, "hidden": 9, "latent": 5, "size": 2.5},
    "galaxy_conv": {"side": SIDE, "channels": (2, 3), "kernel": 3, "hidden": 9, "latent": 4},
}


def test_every_net_file_is_tried():
    # Those of the scene take more than pictures; tests/galaxy/light and scene have tests of them.
    assert {*SMALL, "galaxy_light", "galaxy_profile"} == {
        path.stem for path in Path("nets").glob("*.py")
    }


@pytest.mark.parametrize(
    ("name", "settings"), [*SMALL.items(), ("galaxy_pose", {**SMALL["galaxy_pose"], "noise": 3})]
)
def test_a_net_file_has_the_right_gradients_and_learns(name, settings, rng):
    layers = lk.load_net(f"nets/{name}.py", **settings)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    spread = rng.uniform(1, 4, (200, 1, 1))
    images = np.exp(-0.5 * (x**2 + y**2) / spread**2) + 0.02 * rng.standard_normal((200, 1, 1))
    given = {"x": images[:4]}
    if name == "galaxy_pose":  # measures the picture, through which no gradient flows
        layers, given = lk.with_data(layers, L.MemoryData("x", data=images[:4], shuffle=False)), {}
    double = lk.Net(layers, 4, dtype="float64", seed=int(rng.integers(2**31)))
    for p in double.params.values():
        p.data += 0.1 * rng.standard_normal(p.shape)
    lk.check_gradients(double, elements=5, **given)
    layers = lk.load_net(f"nets/{name}.py", **SMALL[name])
    net = lk.Net(lk.with_data(layers, L.MemoryData("x", data=images)), 32)
    solver = lk.Adam(net, 3e-3)
    losses = [solver.step() for _ in range(120)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 50
    model = galaxy.GalaxyModel(lk.Net(layers, phase="test", share=net))
    assert model.reconstruct(images)[0].shape == images.shape
    assert model.sample(3).shape == (3, SIDE * SIDE)


@pytest.mark.parametrize(
    "method", ["encode", "reconstruct", "scores", "log_likelihood", "bound", "importance_bound"]
)
def test_lists_are_arrays(method, rng):
    layers = lk.load_net("nets/galaxy_gdae.py", pixels=16, hidden=7, latent=2)
    model = galaxy.GalaxyModel(lk.Net(layers, 4, phase="test", dtype="float64"))
    images = rng.random((6, 16))
    model.net.run.passes = 0
    expected = getattr(model, method)(images)
    model.net.run.passes = 0
    found = getattr(model, method)(images.tolist())
    for some, other in zip(
        *(x if isinstance(x, tuple) else [x] for x in (found, expected)), strict=True
    ):
        np.testing.assert_array_equal(some, other)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, x, p: galaxy.GalaxyModel(3), NetError, "expected a net, got 3"),
        (lambda m, x, p: setattr(m, "temperatur", 2), NetError, "did you mean 'temperature'"),
        (lambda m, x, p: m.bound(x, samples=0), NetError, "bound: samples must be .* got 0"),
        (lambda m, x, p: m.bound(x, samples=-1), NetError, "bound: samples must be .* got -1"),
        (lambda m, x, p: m.bound(x, samples="3"), NetError, "bound: samples must be .* got '3'"),
        (lambda m, x, p: m.importance_bound(x, 0), NetError, "importance_bound: samples .* got 0"),
        (
            lambda m, x, p: m.importance_bound(x, 2.5),
            NetError,
            "importance_bound: samples .* got 2.5",
        ),
        (lambda m, x, p: m.sample(-1), NetError, "sample: count must be .* got -1"),
        (lambda m, x, p: m.sample("3"), NetError, "sample: count must be .* got '3'"),
        (lambda m, x, p: m.sample(2**31 - 1), NetError, "2147483647 images would take .* in parts"),
        (lambda m, x, p: m.sample(3, seed=-1), NetError, "sample: seed: .* got -1"),
        (lambda m, x, p: m.sample(3, seed="a"), NetError, "sample: seed: .* got 'a'"),
        (lambda m, x, p: m.sample(3, noise="no"), NetError, "sample: noise must be True or False"),
        (lambda m, x, p: m.encode(x, "no"), NetError, "encode: tempered must be True or False"),
        (
            lambda m, x, p: galaxy.refine(m, x, tempered=3),
            NetError,
            "refine: tempered must be True or False",
        ),
        (lambda m, x, p: m.traverse(3), NetError, "traverse: values must be a list"),
        (lambda m, x, p: m.traverse(None), NetError, "traverse: values"),
        (lambda m, x, p: m.traverse([[1.0], [2.0]]), NetError, "traverse: values must be a list"),
        (lambda m, x, p: m.decode(np.zeros((2, LATENT)), rng=3), NetError, "decode: rng must be"),
        (lambda m, x, p: m.reconstruct(x, 3), DataError, r"posterior: .*\(4, 3\), .* got 3"),
        (
            lambda m, x, p: m.scores(x, p.mean),
            DataError,
            r"posterior: .* got an array of shape \(4, 3",
        ),
        (
            lambda m, x, p: m.bound(x, 1, galaxy.Posterior(p.mean[:2], p.sd[:2])),
            DataError,
            r"posterior: .*\(4, 3\), got \(2, 3\)",
        ),
        (
            lambda m, x, p: m.importance_bound(
                x, 2, posterior=galaxy.Posterior(p.mean[:1], p.sd[:1])
            ),
            DataError,
            r"posterior: .*\(4, 3\), got \(1, 3\)",
        ),
        (
            lambda m, x, p: m.log_likelihood(x, galaxy.Posterior(p.mean, -p.sd)),
            DataError,
            "below 0",
        ),
        (
            lambda m, x, p: m.bound(x, 1, galaxy.Posterior(np.nan * p.mean, p.sd)),
            DataError,
            "finite",
        ),
        (
            lambda m, x, p: galaxy.refine(m, x, steps=-1),
            NetError,
            "refine: steps must be .* got -1",
        ),
        (
            lambda m, x, p: galaxy.refine(m, x, steps=None),
            NetError,
            "refine: steps must .* got None",
        ),
        (
            lambda m, x, p: galaxy.closest(m, x, steps=1.5),
            NetError,
            "closest: steps must .* got 1.5",
        ),
        (lambda m, x, p: galaxy.refine(m.net, x), NetError, "refine: expected a GalaxyModel"),
    ],
)
def test_calls_that_cannot_be_right(call, error, says, net, rng):
    """A bound of -1 samples was 0, and that of none no number, in silence."""
    model, images = galaxy.GalaxyModel(net), rng.uniform(size=(4, SIDE, SIDE))
    posterior = model.encode(images)
    with pytest.raises(error, match=says):
        call(model, images, posterior)
    pair = posterior.mean.tolist(), posterior.sd.tolist()  # what can be right, as lists
    np.testing.assert_array_equal(
        model.reconstruct(images, pair)[0], model.reconstruct(images, posterior)[0]
    )


@pytest.mark.parametrize("kind", ["net", "ladder"])
def test_sampled_reconstructions_scatter_as_the_posterior_says(kind, request, rng):
    model = galaxy.GalaxyModel(request.getfixturevalue(kind))
    images = rng.random((4, SIDE, SIDE))
    mean, sd = model.encode(images)
    none = galaxy.Posterior(mean, np.full_like(sd, 1e-30))
    if kind == "net":  # z without scatter leaves nothing to sample
        sampled = model.reconstruct(images, none, sample=True)[0]
        np.testing.assert_allclose(sampled, model.reconstruct(images)[0])
    draws = [
        model.reconstruct(images, galaxy.Posterior(mean, sd), sample=True)[0] for _ in range(400)
    ]
    given = {model.roles.x: images}
    by_hand = [model.net.infer(model.roles.x_mean, sample=True, **given) for _ in range(400)]
    by_hand = np.reshape(by_hand, (400, *images.shape))
    np.testing.assert_allclose(np.std(draws, 0), by_hand.std(axis=0), rtol=0.4, atol=1e-6)
    assert np.std(draws, 0).max() > 1e-3
