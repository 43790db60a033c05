"""Posteriors, and the images they are encoded from: what a model takes, and what it refuses."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError
from layerkit.galaxy.model.posterior.posterior import Posterior, check_posterior, temper
from layerkit.galaxy.model.posterior.refinement import closest, refine

SIDE = 4


@pytest.fixture(scope="module")
def model():
    net = [
        L.Input("x", shape=(SIDE * SIDE,)),
        L.Dense("z_mean", "x", units=2),
        L.Dense("z_log_variance", "x", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=SIDE * SIDE),
        L.Dense("x_log_variance", "z", units=SIDE**2),
        L.GaussianReconstruction("r", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]
    return galaxy.GalaxyModel(lk.Net(net, 3, phase="test"))


@pytest.fixture
def images(rng):
    return rng.random((5, SIDE, SIDE)).astype("float32")


def test_any_array_of_intensities_is_taken(model, images):
    mean = model.encode(images).mean
    weights, bias = (model.net.params[f"z_mean/{key}"].data for key in ("weight", "bias"))
    np.testing.assert_allclose(mean, images.reshape(5, -1) @ weights + bias, rtol=1e-4, atol=1e-5)
    for form in (
        images.reshape(5, -1),
        images.astype("float64"),
        images.tolist(),
        images[..., None],
        np.asfortranarray(images),
        images[::-1][::-1],
    ):
        np.testing.assert_allclose(model.encode(form).mean, mean, rtol=1e-5, atol=1e-6)
    assert model.encode(images > 0.5).mean.shape == (5, 2)
    noisy = images - 0.7  # noise about a sky that was taken away, and a hot and a dead pixel
    noisy[0, 0, :2] = 10, -10  # which linear units hold
    assert model.encode(noisy).mean.shape == (5, 2)


BAD = {
    "bytes": (lambda x: (255 * x).astype("uint8"), r"from \d+ to 2\d\d; expected .*0\.\.1"),
    "0 to 255": (lambda x: 255 * x, "expected intensities in 0..1"),
    "counts": (
        lambda x: -1000 * x,
        r"from -\d+.* expected intensities in 0\.\.1 \(stretched\) or -10\.\.10 \(linear\)",
    ),
    "hot pixels": (lambda x: np.full((5, 4, 4), 10.1), r"from 10\.1 to 10\.1; expected"),
    "one image": (lambda x: x[0], r"shape \(4, 4\); expected .*\(n, 4, 4\).*image\[None\]"),
    "one row": (lambda x: x[0].ravel(), r"shape \(16,\).*image\[None\]"),
    "larger": (lambda x: np.ones((5, 5, 5)), r"shape \(5, 5, 5\); expected .*\(n, 4, 4\)"),
    "colours": (lambda x: np.stack([x] * 3, -1), r"shape \(5, 4, 4, 3\)"),
    "NaN": (lambda x: np.where(np.arange(5)[:, None, None] == 3, np.nan, x), "1 of 5.*image 3"),
    "infinite": (lambda x: x / np.float32(0), "5 of 5.*image 0"),
    "words": (lambda x: x.astype(str), "images: .* array of numbers.*<U"),
    "complex": (lambda x: x + 1j, "complex"),
    "objects": (lambda x: x.astype(object), "object"),
    "ragged": (lambda x: [x[0].tolist(), x[1, :3].tolist()], "images: .* all rows of one shape"),
    "nothing": (lambda x: None, "images: .* array of numbers.*object"),
}


@pytest.mark.parametrize("fault", BAD)
def test_other_images_are_refused(model, images, fault):
    make, told = BAD[fault]
    with np.errstate(all="ignore"):
        bad = make(images)
    for look in (
        model.encode,
        model.reconstruct,
        model.scores,
        model.log_likelihood,
        model.bound,
        model.importance_bound,
        lambda x: refine(model, x, 1),
        lambda x: closest(model, x, 1),
    ):
        with pytest.raises(DataError, match=told) as message:
            look(bad)
        assert "\n" not in str(message.value)


def test_tempering_divides_the_precision_that_an_image_adds(rng):
    sd = rng.uniform(0.05, 1, (6, 3))
    found = temper(Posterior(rng.random((6, 3)), sd), np.array([1.0, 4.0, 1e12])).sd
    np.testing.assert_allclose(found[:, 0], sd[:, 0])
    np.testing.assert_allclose(1 / found[:, 1] ** 2, 1 + (1 / sd[:, 1] ** 2 - 1) / 4)
    np.testing.assert_allclose(found[:, 2], 1, atol=1e-9)  # the prior


def test_an_axis_wider_than_the_prior_stays_as_it_is():
    sd = np.array([[1.5, 1.0]])
    np.testing.assert_array_equal(temper(Posterior(sd, sd), np.full(2, 9.0)).sd, sd)


@pytest.mark.parametrize(
    ("mean", "sd", "says"),
    [
        ([[np.inf, 0]], [[1, 1]], "some means are not"),
        ([[0, 0]], [[1, np.nan]], "standard deviations are NaN or below 0"),
        ([[0, 0]], [[-1, 1]], "standard deviations are NaN or below 0"),
        ([[0, 0, 0]], [[1, 1, 1]], r"shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_posteriors_that_cannot_be_right(mean, sd, says):
    with pytest.raises(DataError, match=says):
        check_posterior((mean, sd), 1, 2)
