"""Masked pixels count for nothing in likelihoods, bounds and posteriors, and turn with images."""

import numpy as np
import pytest
from scipy import stats

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError
from layerkit.galaxy.model.masks import beside_mask, with_mask, with_masked_data

PIXELS, LATENT, NOISE = 9, 2, 0.7
METHODS = ["log_likelihood", "bound", "importance_bound"]


def layers(student=False, prior_weight=1.0):
    """A linear model, f_mu(z) = W z + b."""
    likelihood = (
        L.StudentReconstruction("loss", "x", "x_mean", "x_log_variance", "x_skew")
        if student
        else L.GaussianReconstruction("loss", "x", "x_mean", "x_log_variance", floor=0.0)
    )
    return [
        L.Input("x", shape=(PIXELS,)),
        L.Dense("z_mean", "x", units=LATENT),
        L.Dense("z_log_variance", "x", units=LATENT, weight=0.0),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=PIXELS),
        L.Dense("x_log_variance", "z", units=PIXELS, weight=0.0, bias=2 * np.log(NOISE)),
        *([L.Dense("x_skew", "z", units=PIXELS, bias=0.3)] if student else []),
        likelihood,
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=prior_weight),
    ]


@pytest.fixture(params=[False, True], ids=["Gaussian", "Student"])
def model(request, rng):
    net = lk.Net(layers(request.param), 4, dtype="float64", phase="test")
    for p in net.params.values():
        p.data += 0.3 * rng.standard_normal(p.shape)
    return galaxy.GalaxyModel(net)


@pytest.fixture
def images(rng):
    """Images, the masks of some of which hide a few pixels."""
    mask = rng.random((6, PIXELS)) < 0.3
    mask[2] = False
    return np.ma.array(rng.standard_normal((6, PIXELS)), mask=mask)


def test_the_likelihood_is_that_of_the_pixels_that_count(rng, images):
    net = lk.Net(layers(), 4, dtype="float64", phase="test")
    model = galaxy.GalaxyModel(net)
    mean, variance = model.reconstruct(images)
    terms = stats.norm.logpdf(images.data, mean, np.sqrt(variance))
    expected = np.where(images.mask, 0, terms).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(images), expected, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_under_a_mask_changes_nothing_for_a_given_posterior(model, images, method):
    posterior = model.encode(images)
    found = []
    for fill in (0.0, 5.0, np.nan):
        model.net.run.passes = 0
        filled = np.ma.array(np.where(images.mask, fill, images.data), mask=images.mask)
        found.append(np.array(getattr(model, method)(filled, posterior=posterior)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_that_of_whole_images(model, images, method):
    """An image none of whose pixels is masked has the numbers that it has beside whole ones."""
    model.net.run.passes = 0
    whole = np.array(getattr(model, method)(images.data))
    looks = model.net.run._looks
    model.net.run.passes = 0
    found = np.array(getattr(model, method)(images))
    assert model.net.run._looks == looks
    np.testing.assert_allclose(found[..., 2], whole[..., 2], rtol=1e-12)
    differ = images.mask.any(axis=1)
    loss = found if found.ndim == 1 else found[0]
    of_whole = whole if whole.ndim == 1 else whole[0]
    assert (np.abs(loss - of_whole)[differ] > 1e-3).all()


def test_a_mask_of_nothing_is_none(model, images):
    """To the last bit, and no other net is made."""
    for method in METHODS:
        model.net.run.passes = 0
        plain = np.array(getattr(model, method)(images.data))
        model.net.run.passes = 0
        found = np.array(getattr(model, method)(np.ma.array(images.data, mask=False)))
        np.testing.assert_array_equal(found, plain)
    assert model._scorers._masked is None


def test_refined_posteriors_are_those_of_the_pixels_that_count(rng):
    """The exact ones of a linear model, by the rows of W that belong to these pixels."""
    net = lk.Net(layers(prior_weight=0.1), 8, dtype="float64", phase="test")
    # Pixels in pairs that alike say something of one axis: q's axes stay independent.
    w = np.zeros((PIXELS, LATENT))
    w[:4, 0], w[4:8, 1] = 2.0, 1.5
    net.params["x_mean/weight"].data[...] = w.T
    net.params["z_mean/weight"].data[...] = 0.1 * rng.standard_normal((PIXELS, LATENT))
    model = galaxy.GalaxyModel(net)
    x = rng.standard_normal((120, LATENT)) @ w.T + NOISE * rng.standard_normal((120, PIXELS))
    mask = rng.random(x.shape) < 0.4
    images = np.ma.array(np.where(mask, 3.0, x), mask=mask)
    precision = 1 + np.where(mask, 0, 1) @ w**2 / NOISE**2
    exact = np.where(mask, 0, x) @ w / NOISE**2 / precision
    found = galaxy.refine(model, images, 400)
    sd = precision**-0.5
    assert np.abs((found.mean - exact) / sd).mean() < 0.2
    np.testing.assert_allclose(np.log(found.sd / sd).mean(axis=0), 0, atol=0.1)


def test_the_closest_image_is_that_of_the_pixels_that_count(rng):
    net = lk.Net(layers(), 8, dtype="float64", phase="test")
    model = galaxy.GalaxyModel(net)
    w = net.params["x_mean/weight"].data.T
    images = np.ma.array(rng.standard_normal((5, PIXELS)), mask=rng.random((5, PIXELS)) < 0.3)
    found = galaxy.closest(model, images, 600)
    for z, image in zip(found, images, strict=True):
        seen = ~np.ma.getmaskarray(image)
        best = np.linalg.lstsq(w[seen], image.data[seen], rcond=None)[0]
        np.testing.assert_allclose(w[seen] @ z, w[seen] @ best, atol=0.02)


def test_a_net_with_data_of_its_own_takes_masks_too(images):
    source = L.MemoryData("x", data=images.data)
    net = lk.Net(lk.with_data(layers(), source), 4, dtype="float64", phase="test")
    found = galaxy.GalaxyModel(net).bound(images, 2)[0]
    model = galaxy.GalaxyModel(lk.Net(layers(), 4, dtype="float64", phase="test"))
    np.testing.assert_array_equal(found, model.bound(images, 2)[0])


def test_scores_are_masked_as_images_are(model, images):
    found = model.scores(images)
    np.testing.assert_array_equal(found.mask, images.mask)
    np.testing.assert_array_equal(found.data, model.scores(images.data))


def test_masks_turn_with_images(rng):
    """Each pixel that does not count holds 7, and no other does."""
    side = 5
    images = rng.random((30, side, side)).astype("f4")
    mask = rng.random(images.shape) < 0.2
    images = np.ma.array(np.where(mask, 7, images), mask=mask)
    net_layers = lk.load_net("nets/galaxy_gdae.py", pixels=side * side, hidden=6, latent=2)
    source = L.MemoryData("x_and_mask", data=beside_mask(images), augment="dihedral")
    net = lk.Net(with_masked_data(net_layers, source), 16)
    seen = []
    for _ in range(4):
        net.forward()
        np.testing.assert_array_equal(net.blobs["x"].data == 7, net.blobs["x_mask"].data == 0)
        seen.append(net.blobs["x"].data.copy())
    whole = {image.tobytes() for image in images.data.reshape(30, -1)}
    assert any(row.tobytes() not in whole for row in np.concatenate(seen))
    assert np.isfinite(lk.Adam(net, 1e-3).steps(3)).all()


def test_masked_nets_have_the_gradients_of_their_objective(rng):
    net = lk.Net(with_mask(layers(student=True), (PIXELS,)), 3, dtype="float64", seed=3)
    x, mask = rng.standard_normal((3, PIXELS)), rng.random((3, PIXELS)) < 0.5
    lk.check_gradients(net, x=x, x_mask=mask.astype(float))


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_masks_that_are_no_weights_are_refused(rng, bad):
    net = lk.Net(with_mask(layers(), (PIXELS,)), 3)
    mask = np.ones((3, PIXELS))
    mask[1, 4] = bad
    with pytest.raises(DataError, match=r"'loss'.*row 1 of 'x_mask' holds (-1|nan) at place 4"):
        net.forward(x=rng.random((3, PIXELS)), x_mask=mask)
