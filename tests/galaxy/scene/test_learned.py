"""The learned light: what it draws against integrals, and what it learns against its truth."""

import numpy as np
import pytest
from scipy import integrate
from scipy.special import j1

import layerkit as lk
from layerkit.errors import DataError
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.inference.fitting import Pixels, fit
from layerkit.galaxy.scene.inference.learning import learn, source_in, standardise
from layerkit.galaxy.scene.model.learned import BOXED, Learned, learned_light
from layerkit.galaxy.scene.model.light import Spergel

WIDTH = 3.0
SETTINGS = {"latent": 2, "hidden": 6, "gaussians": 7}


def light_of(net):
    copy = lk.Net(
        lk.load_net("galaxy_profile", **SETTINGS),
        SETTINGS["gaussians"],
        dtype="float64",
        gradients="all",
    )
    for name, p in copy.params.items():
        p.data[...] = net.params[name].data
    return Learned(copy)


@pytest.fixture
def net(rng):
    """A net whose parameters are not small, so that the latents matter."""
    net = lk.Net(lk.load_net("galaxy_profile", **SETTINGS), 4, dtype="float64")
    for p in net.params.values():
        p.data += 0.7 * rng.normal(size=p.shape)
    return net


def stamps(rng, n, side=31):
    """Pictures of cores in wide halos, sheared, under a Gaussian PSF, in closed form."""
    out = []
    y, x = np.mgrid[:side, :side] - side // 2
    smear = (WIDTH / 2.3548) ** 2
    for _ in range(n):
        image = np.zeros((side, side))
        core = rng.uniform(0.3, 0.7)
        stretch = np.exp(rng.normal(0, 0.3))
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shape = turn @ np.diag([stretch, 1 / stretch]) @ turn.T
        for share, size in ((core, 0.4), (1 - core, 4.0)):
            covariance = size**2 * shape + smear * np.eye(2)
            inverse = np.linalg.inv(covariance)
            square = inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
            scale = 2 * np.pi * np.sqrt(np.linalg.det(covariance))
            image += 3000 * share * np.exp(-0.5 * square) / scale
        image += rng.normal(size=image.shape)
        psf = gaussian(WIDTH, 8)[None]
        out.append(Pixels(image[None], np.ones((1, side, side)), psf, WIDTH))
    return out


def test_derivatives_are_those_of_finite_differences(net, rng):
    light = light_of(net)
    z, u, v = rng.normal(size=(1, 2)), rng.normal(size=(1, 5, 4)), rng.normal(size=(1, 5, 4))
    value, by_u, by_v, by_z = light.transform(np, z, u, v)
    assert np.ptp(value) > 0.05
    step = 1e-6

    def slope(dz, du, dv):
        ends = [light.transform(np, z + s * dz, u + s * du, v + s * dv)[0] for s in (step, -step)]
        return (ends[0] - ends[1]) / (2 * step)

    assert by_u == pytest.approx(slope(0, 1, 0), abs=1e-8)
    assert by_v == pytest.approx(slope(0, 0, 1), abs=1e-8)
    for k in range(2):
        assert np.abs(by_z[k]).max() > 1e-3
        assert by_z[k] == pytest.approx(slope(np.eye(2)[k], 0, 0), abs=1e-8)


def test_half_of_the_light_is_within_the_unit_radius(net, rng):
    # Light inside a circle of radius r is r times the integral of transform(k) J1(k r) over k.
    light = light_of(net)
    for _ in range(3):
        z = rng.normal(size=(1, 2))

        def integrand(k, r, z=z):
            value = light.transform(np, z, np.array([[k]]), np.zeros((1, 1)))[0].item()
            return r * value * j1(k * r)

        inside = integrate.quad(integrand, 0, 60, args=(1,), limit=400)[0]
        assert inside == pytest.approx(0.5, abs=0.02)
        inside = integrate.quad(integrand, 0, 60, args=(1.7,), limit=400)[0]
        assert light.within(z, np.array([1.7])).item() == pytest.approx(inside, abs=0.02)


def test_moving_and_scaling_z_changes_no_light(net, rng):
    light = light_of(net)
    given = stamps(rng, 8)
    for stamp in given:
        stamp.light = light
    fits = [fit(stamp, [source_in(stamp)], 8) for stamp in given]
    old = rng.normal(size=(3, 2))
    before = [light.weights(z)[0] for z in old]
    new = standardise(net, fits)(old)
    assert np.abs(new - old).max() > 0.1
    after = light_of(net)
    for z, expected in zip(new, before, strict=True):
        assert after.weights(z)[0] == pytest.approx(expected, rel=1e-10)


def test_learns_what_a_spergel_profile_cannot_be(rng):
    seen, held_out = stamps(rng, 16), stamps(rng, 4)
    net = learn(seen, **SETTINGS, sweeps=2, steps=120, draws=2, seed=int(rng.integers(2**31)))
    light, bounds = light_of(net), {}
    for name, own in (("learned", light), ("spergel", Spergel())):
        for stamp in held_out:
            stamp.light = own
        fits = [fit(stamp, [source_in(stamp)]) for stamp in held_out]
        bounds[name] = np.mean([found.bound for found in fits])
        if name == "learned":
            pairs = zip(held_out, fits, strict=True)
            squares = np.mean([((s.values - f.image) ** 2).mean() for s, f in pairs])
            assert squares == pytest.approx(1, abs=0.1)
    assert bounds["learned"] > bounds["spergel"] + 5


def test_the_boxed_light_is_small_and_falls_outwards():
    assert BOXED.stat().st_size < 100_000
    light = learned_light()
    k = np.linspace(0, 20, 50)[None]
    for z in np.vstack([np.zeros(3), 2 * np.eye(3), -2 * np.eye(3)]):
        w, _ = light.weights(z)
        assert w.min() > 0
        assert w.sum() == pytest.approx(1)
        value = light.transform(np, z[None], k, 0 * k)[0][0]
        assert value[0] == pytest.approx(1)
        assert (np.diff(value) < 0).all()


def test_stamps_that_nothing_can_be_learned_from_are_told(rng):
    good = stamps(rng, 2)
    twice = Pixels(
        np.repeat(good[0].values, 2, 0), np.repeat(good[0].weights, 2, 0), good[0].psfs, WIDTH
    )
    for bad, message in (
        ([], "two stamps of one band or more, got 0"),
        (good[:1], "or more, got 1"),
        ([good[0], twice], "got 2, the one at 1 something else"),
        ([good[0], None, good[1]], "got 3, the one at 1 something else"),
    ):
        with pytest.raises(DataError, match=message):
            learn(bad)
    for setting in ({"draws": 0}, {"steps": 0}, {"latent": 2.0}, {"sweeps": -1}, {"seed": "0"}):
        with pytest.raises(DataError, match=f"learn: {next(iter(setting))} must be a whole number"):
            learn(good, **setting)
