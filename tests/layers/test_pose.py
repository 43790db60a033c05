"""ImagePose and SpatialTransform on drawn galaxies, and the net nets/galaxy_pose.py."""

import numpy as np
import pytest
from scipy.stats import norm

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.layers.pictures.pose import normal_cdf, normal_quantile

SIDE = 41
POSE = {"side": SIDE, "size_spread": 0.3, "shift_spread": 2.0}


def drawn(angle, size, x, y, ratio=0.5, lopsided=0.0):
    """Elliptical Gaussians (n, SIDE, SIDE) of root mean square extents `size` (over both axes)."""
    angle, size, x, y = (np.asarray(a, float).reshape(-1, 1, 1) for a in (angle, size, x, y))
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    major = size * np.sqrt(2 / (1 + ratio**2))
    light = np.exp(-0.5 * ((along / major) ** 2 + (across / (ratio * major)) ** 2))
    return light * (1 + lopsided * np.tanh(along / major))


def random_poses(rng, n, turns):
    """u, and what it means: angle, size (over that of a canonical object), x, y."""
    u = np.clip(rng.standard_normal((n, 4)), -2, 2)
    angle = 2 * np.pi * turns * (norm.cdf(u[:, 0]) - 0.5)
    return u, (angle, np.exp(0.3 * u[:, 1]), 2 * u[:, 2], 2 * u[:, 3])


def measure(images, **settings):
    layers = [
        L.Input("x", shape=(SIDE, SIDE)),
        L.ImagePose("u", "x", **{"size": 3.5, **POSE, **settings}),
    ]
    net = lk.Net(layers, 64, dtype="float64", phase="test")
    return net.infer("u", x=images)


def transform(pictures, u, **settings):
    layers = [
        L.Input("x", shape=(SIDE, SIDE)),
        L.Input("u", shape=u.shape[1:]),
        L.SpatialTransform("y", "x", "u", **{**POSE, **settings}),
    ]
    return lk.Net(layers, 64, dtype="float64", phase="test").infer("y", x=pictures, u=u)


def test_the_normal_distribution(rng):
    u = np.r_[rng.uniform(-7, 7, 50), 0.0, -8.0, 8.0]
    np.testing.assert_allclose(normal_cdf(np, u), norm.cdf(u), rtol=0, atol=3e-15)
    p = norm.cdf(rng.uniform(-2.99, 2.99, 50))
    np.testing.assert_allclose(normal_quantile(np, p), norm.ppf(p), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(normal_quantile(np, np.array([0.0, 1e-9, 1.0])), [-3, -3, 3])


@pytest.mark.parametrize(("turns", "lopsided"), [(0.5, 0.0), (1.0, -0.3)])
def test_a_drawn_galaxy_is_measured(turns, lopsided, rng):
    """Sky, noise and a neighbour do not matter much; the window shrinks all sizes alike."""
    n = 40
    _, (angle, size, x, y) = random_poses(rng, n, turns)
    images = drawn(angle, 3.5 * size, x, y, lopsided=lopsided)  # the fainter end has the tail
    found = measure(images, turns=turns)
    turned = 2 * np.pi * turns * (norm.cdf(found[:, 0]) - 0.5) - angle
    period = 2 * np.pi * turns
    turned = (turned + period / 2) % period - period / 2
    assert np.abs(turned).max() < 0.02
    if not lopsided:
        np.testing.assert_allclose(2 * found[:, 2:], np.stack([x, y], 1), atol=0.4)
    ratios = np.exp(0.3 * found[:, 1]) / size
    assert ratios.std() < 0.01 * ratios.mean()
    assert 0.7 < ratios.mean() < 1
    noisy = images + rng.normal(scale=0.01, size=images.shape) + rng.normal()
    noisy += drawn(np.zeros(n), 1.0, *np.where(rng.random((2, n)) < 0.5, -17, 17))
    again = measure(noisy, turns=turns)
    np.testing.assert_allclose(again[:, 1:], found[:, 1:], atol=0.5)
    turned = 2 * np.pi * turns * (norm.cdf(again[:, 0]) - norm.cdf(found[:, 0])) + period / 2
    assert np.median(np.abs(turned % period - period / 2)) < 0.02


@pytest.mark.parametrize("value", [0.0, -3.0, 1.0])
def test_a_picture_without_a_galaxy_has_a_pose(value):
    images = np.full((2, SIDE, SIDE), value)
    np.testing.assert_allclose(measure(images), 0, atol=1e-12)
    images[1, 3, 20] += 1e-7  # next to nothing
    found = measure(images)
    assert np.isfinite(found).all()
    assert np.abs(found[1, 1:]).max() < 1e-2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_place_of_a_single_pixel_or_a_round_object_does_not_turn_it(dtype, rng):
    places = rng.integers(8, 33, (200, 2))
    images = np.zeros((400, SIDE, SIDE))
    images[np.arange(200), places[:, 0], places[:, 1]] = rng.uniform(0.1, 1, 200)
    x, y = places.T[::-1] - (SIDE - 1) / 2
    images[200:] = drawn(np.zeros(200), 2.0, x, y, ratio=1.0)
    for phase in ("test", "train"):  # array code, and kernels where there are any
        layers = [
            L.Input("x", shape=(SIDE, SIDE)),
            L.ImagePose("u", "x", size=3.5, turns=1.0, **POSE),
        ]
        net = lk.Net(layers, 400, dtype=dtype, phase=phase)
        net.forward(x=images)
        angles = net.blobs["u"].data[:, 0]
        np.testing.assert_allclose(angles[:200], 0, atol=1e-6)
        central = np.abs(places - 20).max(axis=1) < 8  # those that the frame does not cut
        np.testing.assert_allclose(angles[200:][central], 0, atol=1e-6)


def test_pictures_of_noise_have_poses(rng):
    for images in (rng.normal(-5, 1, (64, SIDE, SIDE)), rng.random((64, SIDE, SIDE)) < 0.01):
        found = measure(images.astype(float))
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 3


@pytest.mark.parametrize("turns", [0.5, 1.0])
def test_a_transformed_picture_has_the_pose_it_was_given(turns, rng):
    u, (angle, size, x, y) = random_poses(rng, 30, turns)
    canonical = drawn(np.zeros(30), 3.5, 0, 0, lopsided=0.4 * (turns == 1))
    seen = transform(canonical, u, turns=turns)
    direct = drawn(angle, 3.5 * size, x, y, lopsided=0.4 * (turns == 1))
    assert np.abs(seen - direct).max() < 0.06  # bilinear interpolation smooths
    back = transform(seen, u, turns=turns, inverse=True)
    assert np.sqrt(np.mean((back - canonical) ** 2)) < 0.01
    again = transform(canonical, u, turns=turns, inverse=True)
    assert np.sqrt(np.mean((again - canonical) ** 2)) > 0.03


@pytest.mark.parametrize("numbers", [1, 2, 3, 4])
def test_numbers_that_are_left_out_are_zero(numbers, rng):
    u, (angle, size, x, y) = random_poses(rng, 5, 1.0)
    images = drawn(angle, 3.5 * size, x, y, lopsided=0.3)
    np.testing.assert_array_equal(measure(images, latents=numbers), measure(images)[:, :numbers])
    full = np.where(np.arange(4) < numbers, u, 0)
    for inverse in (False, True):
        np.testing.assert_array_equal(
            transform(images, u[:, :numbers], inverse=inverse),
            transform(images, full, inverse=inverse),
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_do_what_the_array_code_does(dtype, rng):
    pytest.importorskip("layerkit.engines.cpu._cpu", reason="the compiled engine was not built")
    u, (angle, size, x, y) = random_poses(rng, 7, 1.0)
    images = drawn(angle, 3.5 * size, x, y, lopsided=0.3) + 0.01 * rng.random((7, SIDE, SIDE))
    layers = [
        L.Input("x", shape=(SIDE, SIDE)),
        L.Input("u", shape=(4,)),
        L.ImagePose("measured", "x", size=3.5, **POSE),
        L.SpatialTransform("y", "x", "u", **POSE),
    ]
    weight = rng.standard_normal(images.shape)
    nets = [
        lk.Net(layers, 7, dtype=dtype, gradients="all", kernels=kernels)
        for kernels in ("auto", "array")
    ]

    def run(net, u):
        net.forward(x=images, u=u)
        net.backward(y=weight)
        return net.blobs["u"].diff.copy()

    for net in nets:
        run(net, u)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    # Rounding may put a place on the other side of a pixel's centre, where the slope jumps.
    exact = lk.Net(layers, 7, dtype="float64", gradients="all", kernels="array")
    near = tolerance / 20
    jumps = sum(np.abs(run(exact, u + near * e) - run(exact, u - near * e)) for e in np.eye(4))
    for name in ("measured", "y"):
        some, others = (net.blobs[name].data for net in nets)
        np.testing.assert_allclose(some, others, rtol=0, atol=tolerance)
    for name, more in (("x", 0), ("u", jumps)):
        some, others = (net.blobs[name].diff for net in nets)
        assert (np.abs(some - others) <= tolerance * np.abs(others).max() + more).all(), name


def test_not_a_number_is_passed_on(rng):
    images, u = rng.random((3, SIDE, SIDE)), rng.standard_normal((3, 4))
    images[1, 20, 20], u[2, 0] = np.nan, np.nan
    assert np.isnan(measure(images)).any(axis=1).tolist() == [False, True, False]
    for kernels in ("auto", "array"):
        layers = [
            L.Input("x", shape=(SIDE, SIDE)),
            L.Input("u", shape=(4,)),
            L.SpatialTransform("y", "x", "u", **POSE),
        ]
        net = lk.Net(layers, 3, gradients="all", kernels=kernels)
        net.forward(x=images, u=u)
        net.backward()
        y = net.blobs["y"].data
        assert np.isnan(y).any(axis=(1, 2)).tolist() == [False, True, True]


# The net.


@pytest.fixture
def net(rng):
    layers = lk.load_net(
        "nets/galaxy_pose.py", side=SIDE, hidden=9, latent=5, size=3.5, size_spread=0.3
    )
    net = lk.Net(layers, batch_size=16, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    for p in net.params.values():
        p.data += 0.1 * rng.standard_normal(p.shape)
    return net


def galaxies(rng, n):
    _, (angle, size, _, _) = random_poses(rng, n, 1.0)
    return drawn(angle, 3.5 * size, np.zeros(n), np.zeros(n), lopsided=0.5)


def test_the_net_is_a_galaxy_model(net, rng):
    model = galaxy.GalaxyModel(net)
    images = galaxies(rng, 20)
    assert (model.latent, model.pixels) == (5, SIDE * SIDE)
    mean, sd = model.encode(images)
    assert mean.shape == sd.shape == (20, 5)
    np.testing.assert_allclose(model.decode(mean)[0], model.reconstruct(images)[0].reshape(20, -1))
    assert model.sample(3).shape == (3, SIDE * SIDE)
    assert model.traverse(np.linspace(-2, 2, 3)).shape == (5, 3, SIDE * SIDE)
    bound, kl = model.bound(images)
    log_variance = 2 * np.log(sd)
    np.testing.assert_allclose(
        kl, 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    )
    assert np.isfinite(bound).all()


def test_standardising_moves_the_shape_and_leaves_the_pose(net, rng):
    model = galaxy.GalaxyModel(net)
    images = galaxies(rng, 40)
    before, old = model.reconstruct(images), model.encode(images)
    kl = model.bound(images)[1].mean()
    assert model.standardise(images)
    for some, others in zip(model.reconstruct(images), before, strict=True):
        np.testing.assert_allclose(some, others, rtol=1e-8, atol=1e-10)
    mean, sd = model.encode(images)
    np.testing.assert_array_equal(mean[:, :2], old[0][:, :2])
    np.testing.assert_array_equal(sd[:, :2], old[1][:, :2])
    np.testing.assert_allclose(mean[:, 2:].mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose((mean.var(axis=0) + (sd**2).mean(axis=0))[2:], 1)
    assert model.bound(images)[1].mean() < kl


def test_a_turned_galaxy_is_described_alike(rng):
    """Quarter turns are exact: the shape stays, the pose and the picture turn."""
    layers = lk.load_net(
        "nets/galaxy_pose.py", side=SIDE, hidden=9, latent=5, size=3.5, size_spread=0.3
    )
    net = lk.Net(layers, batch_size=16, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    model = galaxy.GalaxyModel(net)
    images = galaxies(rng, 12)
    first = model.encode(images)[0]
    reconstructed = model.reconstruct(images)[0]
    for quarters in (1, 2, 3):
        turned = np.rot90(images, -quarters, axes=(1, 2))  # x axis towards y axis
        mean = model.encode(turned)[0]
        plain = (np.abs(first[:, 0]) < 2.99) & (np.abs(mean[:, 0]) < 2.99)  # angles are not cut
        assert plain.sum() >= 6
        np.testing.assert_allclose(mean[plain, 1:], first[plain, 1:], rtol=1e-6, atol=1e-8)
        more = (norm.cdf(mean[:, 0]) - norm.cdf(first[:, 0])) % 1
        np.testing.assert_allclose(more[plain], quarters / 4, atol=1e-6)
        np.testing.assert_allclose(
            model.reconstruct(turned)[0][plain],
            np.rot90(reconstructed, -quarters, axes=(1, 2))[plain],
            atol=1e-6,
        )


def test_noise_that_turns_has_no_edges(rng):
    """A small galaxy's frame ends within the picture: there, its share of log f_Sigma is 0."""
    layers = lk.load_net("nets/galaxy_pose.py", side=SIDE, hidden=9, latent=5, noise=3, size=3.5,
        size_spread=0.3)  # fmt: skip
    net = lk.Net(layers, batch_size=16, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    for p in net.params.values():
        p.data += 0.1 * rng.standard_normal(p.shape)
    z = rng.standard_normal((9, 5))
    z[:, 1] = -2.0  # size
    whole, unturned = net.infer(["x_log_variance", "picture_log_variance"], z=z)
    turned = (whole - unturned).reshape(9, SIDE, SIDE)
    middle = (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE] - middle
    beyond = np.hypot(x, y) > np.exp(0.3 * -2.0) * middle + 1  # its shift is 0
    assert beyond.any()
    assert np.abs(turned[:, ~beyond]).max() > 0.1
    np.testing.assert_allclose(turned[:, beyond], 0, atol=1e-12)


def test_the_net_learns(rng):
    layers = lk.load_net(
        "nets/galaxy_pose.py", side=SIDE, hidden=16, latent=3, size=3.5, size_spread=0.3
    )
    net = lk.Net(layers, batch_size=32, seed=int(rng.integers(1e9)))
    solver = lk.Adam(net, 3e-3)
    losses = [solver.step(x=galaxies(rng, 32)) for _ in range(60)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 500
    for p in net.params.values():
        assert np.isfinite(p.data).all()
        assert np.abs(p.data).max() > 0
