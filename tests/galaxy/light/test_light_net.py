"""nets/galaxy_light.py against SciPy: what it draws, and what it knows of flux, unit and mask."""

import numpy as np
import pytest
from scipy import integrate, signal

import layerkit as lk
from layerkit import layers as L

SIDE, PSF = 13, 5
NAMES = ["image", "psf", "variance", "mask"]
SMALL = {"side": SIDE, "psf": PSF, "hidden": 9, "latent": 7, "size": 2.0, "shift_spread": 0.5}


def stamps(rng, n):
    """Elliptical Gaussians under a Gaussian PSF, with noise, and a few pixels left out."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle, q = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(0.4, 1, (n, 1, 1))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-(along**2 + across**2 / q**2) / (2 * rng.uniform(1, 2, (n, 1, 1)) ** 2))
    line = np.arange(PSF) - PSF // 2
    psf = np.exp(-(line[:, None] ** 2 + line**2) / (2 * rng.uniform(0.6, 1, (n, 1, 1)) ** 2))
    psf /= psf.sum(axis=(1, 2), keepdims=True)
    seen = np.stack([signal.convolve(a, b, "same") for a, b in zip(light, psf, strict=True)])
    variance = rng.uniform(0.5, 1.5, light.shape) * 0.03**2
    mask = (rng.random(light.shape) > 0.05).astype(float)
    image = np.where(mask > 0, seen + np.sqrt(variance) * rng.standard_normal(seen.shape), 0)
    return dict(zip(NAMES, (image, psf, variance, mask), strict=True))


def moved(net, rng):
    """The net with parameters that are not those of the start, so that nothing is 0 or even."""
    for p in net.params.values():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return net


@pytest.fixture
def net(rng):
    layers = lk.load_net("nets/galaxy_light.py", **SMALL)
    return moved(lk.Net(layers, 6, phase="test", dtype="float64", seed=3), rng)


def test_light_is_not_negative_and_of_unit_flux_and_seen_through_the_psf(net, rng):
    given = stamps(rng, 6)
    z = rng.standard_normal((6, 7))
    light, seen, mean = (net.infer(name, z=z, **given) for name in ("light", "seen", "mean"))
    assert light.min() > 0
    assert np.ptp(light, axis=(1, 2)).min() > 1e-3
    np.testing.assert_allclose(light.sum(axis=(1, 2)), 1)
    for k in range(6):
        expected = signal.convolve(light[k], given["psf"][k], "same")
        np.testing.assert_allclose(seen[k], expected, atol=1e-12)
        root = np.sqrt(given["mask"][k] / given["variance"][k]).ravel()
        flux = np.linalg.lstsq(
            (root * expected.ravel())[:, None], root * given["image"][k].ravel(), rcond=None
        )[0]
        np.testing.assert_allclose(mean[k], flux * expected, rtol=1e-8, atol=1e-10)


def test_losses_are_the_likelihood_with_the_flux_integrated_out(net, rng):
    given = stamps(rng, 6)
    net.forward(**given)
    losses = net.blobs["reconstruction"].data + net.blobs["flux_range"].data
    for k in range(6):
        used = given["mask"][k] > 0
        x, v, seen = (
            a[k][used] for a in (given["image"], given["variance"], net.blobs["seen"].data)
        )
        at = float(net.blobs["flux"].data[k].item())

        def log_density(flux, x=x, v=v, seen=seen):
            return -0.5 * np.sum(np.log(2 * np.pi * v) + (x - flux * seen) ** 2 / v)

        top = log_density(at)
        width = float(net.blobs["precision"].data[k].item()) ** -0.5
        area = integrate.quad(
            lambda f, top=top: np.exp(log_density(f) - top), at - 9 * width, at + 9 * width
        )[0]
        assert losses[k] - np.log(2 * np.pi) == pytest.approx(-top - np.log(area), rel=1e-9)


def test_pixels_left_out_and_the_unit_change_nothing(net, rng):
    given = stamps(rng, 6)
    out = given["mask"] == 0
    assert out.any()
    z = rng.standard_normal((6, 7))

    def results(given):
        return (
            net.infer("z_mean", **given),
            net.infer("z_log_variance", **given),
            net.infer("flux", z=z, **given),
        )

    before = results(given)
    other = {**given, "image": np.where(out, 1e3, given["image"])}
    other["variance"] = np.where(out, 7, given["variance"])
    for some, expected in zip(results(other), before, strict=True):
        np.testing.assert_allclose(some, expected, rtol=1e-9)
    unit = {**given, "image": 50 * given["image"], "variance": 2500 * given["variance"]}
    for some, expected, factor in zip(results(unit), before, (1, 1, 50), strict=True):
        np.testing.assert_allclose(some, factor * expected, rtol=1e-6)


def test_gradients_are_right(rng):
    given = stamps(rng, 4)
    data = L.MemoryData("data", data=[given[n] for n in NAMES], tops=NAMES, shuffle=False)
    layers = lk.with_data(lk.load_net("nets/galaxy_light.py", **SMALL), data)
    net = lk.Net(layers, 4, dtype="float64", seed=int(rng.integers(2**31)))
    lk.check_gradients(moved(net, rng), elements=5)


def test_the_net_learns_light_that_explains_the_stamps(rng):
    layers = lk.load_net("nets/galaxy_light.py", **{**SMALL, "hidden": 32})
    net = lk.Net(layers, 32, seed=int(rng.integers(2**31)))
    solver = lk.Adam(net, 3e-3)
    for _ in range(300):
        solver.step(**stamps(rng, 32))
    test = lk.Net(layers, 32, phase="test", share=net)
    given = stamps(rng, 200)
    z = test.infer("z_mean", **given)
    off = (given["image"] - test.infer("mean", z=z, **given)) ** 2 / given["variance"]
    nothing = given["image"] ** 2 / given["variance"]
    used = given["mask"] > 0
    assert nothing[used].mean() > 10
    assert off[used].mean() < 1.5
