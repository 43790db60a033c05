"""Initialisers: moments, fans, orthonormality, and that the seed decides."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

import layerkit as lk
from layerkit import initializers as I
from layerkit import layers as L
from layerkit.errors import NetError

RANDOM = [I.Normal(sd=0.3, mean=1.0), I.Uniform(), I.Xavier(), I.He(), I.Orthogonal()]


def weights(init, inputs, units, seed):
    """The float64 weight of a Dense layer with this initialiser."""
    layers = [L.Input("x", shape=(inputs,)), L.Dense("y", "x", units=units, weight=init)]
    return lk.Net(layers, batch_size=1, dtype="float64", seed=seed).params["y/weight"].data


@pytest.fixture
def seed(rng):
    return int(rng.integers(2**63))


@pytest.mark.parametrize(
    ("init", "value"),
    [(I.Constant(), 0), (I.Constant(-2.5), -2.5), (0.7, 0.7), ("zeros", 0), (3, 3)],
)
def test_constant(init, value, seed):
    np.testing.assert_array_equal(weights(init, 4, 3, seed), np.full((4, 3), value))


@pytest.mark.parametrize(
    ("init", "mean", "variance"),
    [
        (I.Normal(), 0, 0.01**2),
        (I.Normal(sd=0.3, mean=1.5), 1.5, 0.3**2),
        ("normal", 0, 0.01**2),
        (I.Xavier(), 0, 2 / (300 + 200)),
        (I.Xavier(gain=1.7), 0, 1.7**2 * 2 / (300 + 200)),
        ("xavier", 0, 2 / (300 + 200)),
        (I.He(), 0, 2 / 300),
        (I.He(gain=0.5), 0, 0.5**2 * 2 / 300),
        ("he", 0, 2 / 300),
    ],
)
def test_moments_and_shape_of_the_normal_ones(init, mean, variance, seed):
    w = weights(init, 300, 200, seed)
    assert abs(w.mean() - mean) < 6 * math.sqrt(variance / w.size)
    assert abs(w.var() / variance - 1) < 6 * math.sqrt(2 / w.size)
    # A normal distribution, not only one of this variance: the p-value is uniform on (0, 1).
    assert stats.kstest((w.ravel() - mean) / math.sqrt(variance), "norm").pvalue > 1e-6
    # Independent: no correlation between neighbours either way.
    unit = (w - mean) / math.sqrt(variance)
    for pairs in (unit[1:] * unit[:-1], unit[:, 1:] * unit[:, :-1]):
        assert abs(pairs.mean()) < 6 / math.sqrt(pairs.size)


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [((100, 300), 100, 300), ((10, 20, 150), 200, 150), ((500,), 500, 500)],
)
def test_fans_of_other_shapes(shape, fan_in, fan_out, rng):
    """All axes but the last lead in; a vector leads in and out."""
    for init, variance in ((I.He(), 2 / fan_in), (I.Xavier(), 2 / (fan_in + fan_out))):
        w = init.draw(shape, rng.standard_normal)
        assert w.shape == shape
        assert abs(w.var() / variance - 1) < 6 * math.sqrt(2 / w.size)


@pytest.mark.parametrize("gain", [1.0, 1.4])
@pytest.mark.parametrize(
    "shape", [(40, 25), (25, 40), (30, 30), (5, 6, 20), (2, 3, 20), (7, 1), (1, 7)]
)
def test_orthogonal(shape, gain, rng):
    w = I.Orthogonal(gain).draw(shape, rng.standard_normal)
    assert w.shape == shape
    matrix = w.reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-12)


def test_orthogonal_vector_has_length_one(rng):
    assert np.linalg.norm(I.Orthogonal().draw((9,), rng.standard_normal)) == pytest.approx(1)


def test_orthogonal_is_uniform(rng):
    """Each coordinate of a uniform rotation of 3 axes is uniform on (-1, 1) (Archimedes)."""
    draws = np.array([I.Orthogonal().draw((3, 3), rng.standard_normal) for _ in range(2000)])
    for i in range(3):
        for j in range(3):
            assert stats.kstest(draws[:, i, j], "uniform", (-1, 2)).pvalue > 1e-6
    mirrored = np.mean(np.linalg.det(draws) < 0)
    assert abs(mirrored - 0.5) < 6 * math.sqrt(0.25 / len(draws))


@pytest.mark.parametrize("init", RANDOM, ids=repr)
def test_the_seed_decides(init, seed):
    first = weights(init, 6, 5, seed)
    np.testing.assert_array_equal(weights(init, 6, 5, seed), first)
    assert not np.array_equal(weights(init, 6, 5, seed + 1), first)


@pytest.mark.parametrize("init", RANDOM, ids=repr)
def test_each_parameter_has_numbers_of_its_own(init, seed):
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("a", "x", units=6, weight=init),
        L.Dense("b", "x", units=6, weight=init, bias=I.Normal(1.0)),
    ]
    net = lk.Net(layers, seed=seed)
    a, b, bias = (net.params[p].data for p in ("a/weight", "b/weight", "b/bias"))
    assert not np.isclose(a, b).any()
    assert not np.isclose(b[0], bias).any()
    # They do not depend on which other layers there are, nor on the dtype.
    alone = lk.Net([layers[0], layers[2]], seed=seed, dtype="float64")
    np.testing.assert_array_equal(alone.params["b/weight"].data.astype("float32"), b)


def grouped(layer, init, shape, channels, groups=4):
    """The float64 weights of each group as a matrix, (inputs, outputs)."""
    made = layer("y", "x", channels=channels, kernel=3, groups=groups, weight=init)
    net = lk.Net([L.Input("x", shape=shape), made], 1, dtype="float64", seed=7)
    w = net.params["y/weight"].data
    parts = np.split(w, groups, 0 if layer is L.Deconvolution else -1)
    return [part.reshape(-1, part.shape[-1]) for part in parts]


@pytest.mark.parametrize("layer", [L.Convolution, L.Deconvolution])
@pytest.mark.parametrize(
    ("shape", "channels"), [((64, 4, 4), 32), ((16, 4, 4), 256), ((48, 9), 240)]
)
def test_groups_have_fans_of_their_own(layer, shape, channels):
    """A layer with groups is as many layers side by side, with channels of their own each."""
    inputs, outputs = 3 ** (len(shape) - 1) * shape[0] // 4, channels // 4
    for init, variance in (("he", 2 / inputs), ("xavier", 2 / (inputs + outputs))):
        w = np.array(grouped(layer, init, shape, channels))
        assert w.shape == (4, inputs, outputs)
        assert abs(w.var() / variance - 1) < 6 * math.sqrt(2 / w.size)
        assert np.unique(w).size == w.size
    found = grouped(layer, I.Orthogonal(1.3), shape, channels)
    assert np.unique(found).size == np.size(found)
    for w in found:
        product = w.T @ w if inputs >= outputs else w @ w.T
        np.testing.assert_allclose(product, 1.3**2 * np.eye(len(product)), atol=1e-12)


@pytest.mark.parametrize("neuron", ["relu", "tanh"])
def test_defaults_of_a_deconvolution_with_groups(neuron):
    """One in stride^2 of the weights of a group meet a number of the top."""
    net = lk.Net(
        [
            L.Input("x", shape=(64, 5, 5)),
            L.Deconvolution(
                "y", "x", channels=16, kernel=4, stride=(2, 1), groups=4, neuron=neuron
            ),
        ],
        1,
        dtype="float64",
    )
    w = net.params["y/weight"].data
    inputs, outputs = 4 * 4 * 16, 4
    variance = 2 * 2 / (inputs if neuron == "relu" else inputs + outputs)
    assert abs(w.var() / variance - 1) < 6 * math.sqrt(2 / w.size)


def test_initialisers_of_ones_own_draw_all_groups_at_once(rng):
    values = rng.standard_normal((4, 3, 3, 3))

    class Given(I.Initializer):
        def draw(self, shape, normal):
            return values.reshape(shape)

    layers = [
        L.Input("x", shape=(4, 5, 5)),
        L.Deconvolution("y", "x", channels=6, kernel=3, groups=2, weight=Given()),
    ]
    np.testing.assert_array_equal(lk.Net(layers, dtype="float64").params["y/weight"].data, values)


def test_unknown_names():
    with pytest.raises(NetError, match=r"\(zeros, normal, .*got 'glorot'"):
        I.get("glorot")


@pytest.mark.parametrize("init", [[1.0, 2.0], None, np.zeros(2), 1j], ids=repr)
def test_what_is_no_initialiser(init):
    with pytest.raises(NetError, match=r"a name .*xavier.* or a finite number, got "):
        I.get(init)
    if init is not None:  # for which a layer has no bias
        with pytest.raises(NetError, match=r"layer 'y' .Dense.: bias must be an initialiser"):
            L.Dense("y", "x", units=1, bias=init)


@pytest.mark.parametrize(
    ("init", "low", "high"), [("uniform", -0.05, 0.05), (I.Uniform(0.2, 3.0), 0.2, 3.0)]
)
def test_uniform_numbers(init, low, high, seed):
    w = weights(init, 300, 200, seed)
    assert low < w.min() < w.max() < high
    assert stats.kstest(w.ravel(), "uniform", (low, high - low)).pvalue > 1e-6
    unit = (w - w.mean()) / w.std()
    for pairs in (unit[1:] * unit[:-1], unit[:, 1:] * unit[:, :-1]):
        assert abs(pairs.mean()) < 6 / math.sqrt(pairs.size)
    assert not np.array_equal(w, weights(init, 300, 200, seed + 1 if seed < 2**62 else seed - 1))
    np.testing.assert_array_equal(weights(I.Uniform(1.5, 1.5), 3, 2, seed), 1.5)


@pytest.mark.parametrize(("factor", "groups"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 4)])
def test_bilinear_weights_enlarge_pictures(factor, groups, rng):
    """As scipy interpolates between pixels, where four of them are near; each channel by itself."""
    kernel, pad = 2 * factor - factor % 2, math.ceil((factor - 1) / 2)
    layers = [
        L.Input("x", shape=(4, 5, 6)),
        L.Deconvolution(
            "y",
            "x",
            channels=4,
            kernel=kernel,
            stride=factor,
            pad=pad,
            groups=groups,
            weight="bilinear",
        ),
    ]
    net, x = lk.Net(layers, 2, dtype="float64"), rng.standard_normal((2, 4, 5, 6))
    y = net.infer("y", x=x)
    assert y.shape == (2, 4, 5 * factor, 6 * factor)
    place = [(np.arange(n * factor) + 0.5) / factor - 0.5 for n in (5, 6)]
    inside = np.ix_(*((p >= 0) & (p <= n - 1) for p, n in zip(place, (5, 6), strict=True)))
    grid = np.array(np.meshgrid(*place, indexing="ij"))
    for picture, found in zip(x.reshape(-1, 5, 6), y.reshape(-1, *y.shape[2:]), strict=True):
        expected = ndimage.map_coordinates(picture, grid, order=1)
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-12)


def test_bilinear_weights_are_those_of_caffe():
    """Its filler, in the words of its documentation, of windows that are no squares."""
    normal, shape = None, (2, 4, 5, 1)
    expected = np.empty(shape)
    for place in np.ndindex(shape):
        factors = []
        for i, size in zip(place[1:3], shape[1:3], strict=True):
            f = -(-size // 2)
            factors.append(1 - abs(i / f - (2 * f - 1 - f % 2) / (2 * f)))
        expected[place] = factors[0] * factors[1]
    np.testing.assert_allclose(I.Bilinear().draw(shape, normal), expected, rtol=1e-14)


@pytest.mark.parametrize("channels", [2, 4])
def test_bilinear_weights_of_other_shapes_are_refused(channels):
    layers = [
        L.Input("x", shape=(3, 5, 5)),
        L.Deconvolution("y", "x", channels=channels, kernel=4, weight="bilinear"),
    ]
    with pytest.raises(NetError, match=r"'y/weight': .*Bilinear .*\(3, 4, 4, \d\)"):
        lk.Net(layers)
    with pytest.raises(NetError, match=r"'y/weight': .*Bilinear"):
        weights("bilinear", 4, 3, 0)
