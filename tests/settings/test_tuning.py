"""Settings of single parameters: rate=, decay= and max_norm= of any layer, on every engine."""

import functools
import math

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError, NotFiniteError

jax = pytest.importorskip("jax", reason="jax, a dependency of the tests only, is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
compiled = pytest.importorskip("quick_jax").compiled
jnp = jax.numpy

ROWS = 6


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["array", "auto", "cupy"])
def engine(request):
    """Settings of a net for each engine; a GPU is the stand-in of cuda_host."""
    if request.param == "cupy":
        request.getfixturevalue("cupy_on_host")
        return {"backend": "cupy"}
    return {"kernels": request.param}


@pytest.fixture
def wide(engine):
    """Units of a layer that changes its weights by itself or, on a GPU, takes several blocks."""
    return 600 if "backend" in engine else 15_000


def regression(h=None, y=None, units=7):
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,)),
        L.Dense("h", "x", units=units, neuron="tanh", **(h or {})),
        L.Dense("y", "h", units=3, **(y or {})),
        L.SquareLoss("loss", "y", "t"),
    ]


def make(layers, dtype="float64", **settings):
    return lk.Net(layers, ROWS, dtype=dtype, seed=3, **settings)


def values(net):
    return {name: net.backend.to_host(p.data) for name, p in net.params.items()}


@pytest.fixture
def batches(rng):
    return [
        {"x": rng.standard_normal((ROWS, 5)), "t": rng.standard_normal((ROWS, 3))} for _ in range(8)
    ]


@compiled
@jax.grad
def gradient(params, x, t):
    """The gradient of what `regression` minimises, by JAX."""
    h = jnp.tanh(x @ params["h/weight"] + params["h/bias"])
    return 0.5 * ((h @ params["y/weight"] + params["y/bias"] - t) ** 2).sum() / len(x)


RATES = {"h/weight": 2.0, "h/bias": 2.0, "y/weight": 1.0, "y/bias": 0.25}
DECAYS = {"h/weight": 0.5, "h/bias": 0.0, "y/weight": 1.0, "y/bias": 3.0}
TUNED = (
    {"rate": 2, "decay": {"weight": 0.5, "bias": 0.0}},
    {"rate": {"bias": 0.25}, "decay": {"bias": 3}},
)


@functools.cache
def peers():
    """The solvers of optax with each parameter's rate and decay."""

    def each(make):
        rules = {name: make(RATES[name], DECAYS[name]) for name in RATES}
        return optax.multi_transform(rules, {name: name for name in RATES})

    found = {
        "SGD": (lambda net: lk.SGD(net, 0.05), each(lambda r, d: optax.sgd(0.05 * r, 0.9))),
        "Adam": (lambda net: lk.Adam(net, 0.01), each(lambda r, d: optax.adam(0.01 * r))),
        "AdamW": (
            lambda net: lk.AdamW(net, 0.01, weight_decay=0.2),
            each(lambda r, d: optax.adamw(0.01 * r, weight_decay=0.2 * d)),
        ),
        "clipped": (
            lambda net: lk.Nesterov(net, 0.02, clip=0.4),
            optax.chain(
                optax.clip_by_global_norm(0.4),
                each(lambda r, d: optax.sgd(0.02 * r, 0.9, nesterov=True)),
            ),
        ),
    }
    return {name: (ours, peer.init, compiled(peer.update)) for name, (ours, peer) in found.items()}


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "clipped"])
@pytest.mark.parametrize("recorded", [True, False], ids=["steps", "gradients and apply"])
def test_rates_and_decays_of_parameters_follow_optax(engine, kind, recorded, batches):
    make_solver, init, update = peers()[kind]
    net = make(regression(*TUNED), **engine)
    solver = make_solver(net)
    params = {name: jnp.asarray(v) for name, v in values(net).items()}
    state = init(params)
    for batch in batches:
        if recorded:
            solver.step(**batch)
        else:
            solver.gradients(**batch)
            solver.apply()
        updates, state = update(gradient(params, **batch), state, params)
        params = optax.apply_updates(params, updates)
        for name, value in values(net).items():
            np.testing.assert_allclose(value, params[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_rates_may_change_between_steps(engine, wide, batches):
    """Also of a layer that changed its weights by itself before."""
    net = make(regression(units=wide), **engine)
    solver, moved = lk.SGD(net, 0.001, momentum=0.0), []
    for rate in (1.0, 0.0, 3.0):
        net.params["h/weight"].rate = rate
        before = values(net)
        net.forward(**batches[0])
        net.backward()
        expected = 0.001 * rate * net.backend.to_host(net.params["h/weight"].diff)
        solver.step(**batches[0])
        moved.append(before["h/weight"] - values(net)["h/weight"])
        np.testing.assert_allclose(moved[-1], expected, rtol=1e-9, atol=1e-13)
        assert not np.array_equal(before["y/weight"], values(net)["y/weight"])


def test_decays_multiply_regularisation(engine, batches):
    layers = [regression({"l2": 0.3, "l1": 0.1, **decay}) for decay in ({}, {"decay": 0.5})]
    nets = [make(some, **engine) for some in (*layers, regression({"l2": 0.15, "l1": 0.05}))]
    solvers = [lk.Adam(net, 0.01) for net in nets]
    losses = [solver.steps(4, **batches[0]) for solver in solvers]
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-12)
    assert losses[0][0] > losses[1][0]
    assert nets[1].regularisation == pytest.approx(nets[2].regularisation, rel=1e-12)
    lk.check_gradients(layers[1], **batches[0])
    nets[1].params["h/weight"].decay = 0.0
    assert nets[1].forward(**batches[0]) == pytest.approx(sum(nets[1].losses.values()), rel=1e-12)
    assert nets[1].regularisation == 0


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_are_bounded_after_each_update(engine, wide, many, dtype, batches):
    """Against the projection written out: columns that are longer are scaled down to the bound."""
    units = wide if many else 7
    net, free = (make(regression(units=units), dtype, **engine) for _ in range(2))
    most = float(np.median(np.sqrt((values(net)["h/weight"] ** 2).sum(0))))
    net.params["h/weight"].max_norm = most
    solvers = lk.SGD(net, 0.05, momentum=0.0), lk.SGD(free, 0.05, momentum=0.0)
    tolerance = {"rtol": 1e-10 if dtype == "float64" else 1e-5, "atol": 1e-7}
    for i, batch in enumerate(batches[:4]):
        for name, p in free.params.items():
            p.data[...] = net.params[name].data
        for solver in solvers:
            solver.step(**batch)
        w = values(free)["h/weight"].astype("float64")
        norms = np.sqrt((w**2).sum(0))
        assert i or (norms > most).mean() > 0.3
        expected = np.where(norms > most, w * most / norms, w)
        np.testing.assert_allclose(values(net)["h/weight"], expected, **tolerance)
        for name in ("h/bias", "y/weight"):
            np.testing.assert_allclose(values(net)[name], values(free)[name], **tolerance)
    assert (norms < most).any()


def test_norms_are_those_of_channels_of_the_top(rng):
    for layer in (
        L.Convolution("y", "x", channels=3, kernel=3, max_norm=0.2),
        L.Deconvolution("y", "x", channels=3, kernel=3, max_norm={"weight": 0.2}),
    ):
        net = lk.Net([L.Input("x", shape=(2, 6, 6)), layer], 2, dtype="float64")
        solver = lk.SGD(net, 1e-3)
        net.forward(x=rng.standard_normal((2, 2, 6, 6)))
        net.backward(y=np.ones(net.blobs["y"].data.shape))
        solver.apply()
        norms = np.sqrt((net.params["y/weight"].data ** 2).sum((0, 1, 2)))
        np.testing.assert_allclose(norms, 0.2, rtol=1e-3)


@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 9)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layer", [L.Convolution, L.Deconvolution])
def test_norms_are_those_of_one_output(engine, layer, groups, shape, rng):
    """The weights that a channel of the top depends on, found by their derivatives."""
    made = layer("y", "x", channels=6, kernel=3, groups=groups, max_norm=0.3, weight=1.0)
    net = lk.Net([L.Input("x", shape=shape), made], 2, dtype="float64", **engine)
    p = net.params["y/weight"]
    x = rng.random((2, *shape)) + 0.5
    net.forward(x=x)
    net.backward(y=np.ones(net.blobs["y"].data.shape))
    lk.SGD(net, 1e-9).apply()
    for channel in range(6):
        dy = np.zeros(net.blobs["y"].data.shape)
        dy[:, channel] = 1
        net.forward(x=x)
        net.backward(y=dy)
        own = net.backend.to_host(p.diff) != 0
        w = net.backend.to_host(p.data)[own]
        assert w.size == p.size // 6
        np.testing.assert_allclose(np.sqrt((w**2).sum()), 0.3, rtol=1e-6)


def test_norms_of_gains_are_not_bounded(engine, rng):
    """Each number of the top has a gain and a bias, however many axes they have."""
    for shape in ((4,), (2, 3)):
        layers = [
            L.Input("x", shape=shape),
            L.Dense("h", "x", units=math.prod(shape), max_norm=0.1),
            L.Reshape("s", "h", shape=shape),
            L.LayerNorm("y", "s"),
        ]
        net = lk.Net(layers, 2, dtype="float64", **engine)
        for p in net.params.values():
            p.max_norm = 0.1
        net.forward(x=rng.standard_normal((2, *shape)))
        net.backward(y=np.ones((2, *shape)))
        lk.SGD(net, 1e-9).apply()
        np.testing.assert_allclose(values(net)["y/gain"], 1, rtol=1e-6)
        norms = np.sqrt((values(net)["h/weight"] ** 2).sum(0))
        np.testing.assert_allclose(norms, 0.1, rtol=1e-6)
        for wrong in (0.1, {"gain": 0.1}):
            with pytest.raises(NetError, match=r"layer 'y' .*max_norm"):
                lk.Net([layers[0], L.LayerNorm("y", "x", max_norm=wrong)])


def test_what_is_frozen_or_not_updated_is_not_bounded(engine, batches):
    net = make(regression({"max_norm": 0.1}), **engine)
    solver = lk.SGD(net, 1e-3)
    before = values(net)
    with pytest.raises(NotFiniteError):
        solver.step(x=np.full((ROWS, 5), np.inf), t=batches[0]["t"])
    np.testing.assert_array_equal(values(net)["h/weight"], before["h/weight"])
    net.freeze("h/weight")
    solver.step(**batches[0])
    np.testing.assert_array_equal(values(net)["h/weight"], before["h/weight"])
    net.unfreeze("h")
    solver.step(**batches[0])
    norms = np.sqrt((values(net)["h/weight"] ** 2).sum(0))
    np.testing.assert_allclose(norms, 0.1, rtol=1e-12)


def test_averages_are_of_what_is_bounded(engine, batches):
    net = make(regression({"max_norm": 0.1}), **engine)
    solver = lk.SGD(net, 1e-3, ema=0.5)
    start = values(net)["h/weight"]
    solver.step(**batches[0])
    first = 0.5 * start + 0.5 * values(net)["h/weight"]
    with solver.averaged():
        np.testing.assert_allclose(values(net)["h/weight"], first, rtol=1e-10)


def test_rebuilt_nets_have_the_settings_of_parameters():
    net = make(regression({"rate": 2.0}))
    net.params["y/weight"].max_norm, net.params["y/bias"].decay = 3, 0
    rebuilt = net.rebuild(dtype="float32")
    assert [p.rate for p in rebuilt.params.values()] == [2, 2, 1, 1]
    assert rebuilt.params["y/weight"].max_norm == 3
    assert rebuilt.params["y/bias"].decay == 0


def test_settings_of_descriptions_are_copied():
    layers = regression({"rate": {"bias": 3.0}})
    net, other = make(layers), make(layers)
    assert net.params["h/bias"].rate == other.params["h/bias"].rate == 3
    net.params["h/bias"].rate = 5.0
    assert make(net.descriptions).params["h/bias"].rate == 3


class Own(lk.Layer):
    """A layer of a user's own without a constructor, and its heir whose `rate` is another thing."""

    def setup(self, shapes):
        self.w = self.parameter("w", shapes[0], 1.0)
        return shapes


class Bare(L.ReLU):
    """A layer of a user's own that has no parameters."""


class WithRate(Own):
    def __init__(self, name, bottom, *, rate):
        super().__init__(name, [bottom])
        self.rate = rate


def test_layers_of_ones_own():
    x = L.Input("x", shape=(2, 3))
    net = lk.Net([x, Own("y", "x", rate=0.5, max_norm={"w": 2})])
    assert (net.params["y/w"].rate, net.params["y/w"].max_norm) == (0.5, 2)
    net = lk.Net([x, WithRate("y", "x", rate="fast")])
    assert (net.params["y/w"].rate, net.layers["y"].rate) == (1, "fast")
    with pytest.raises(NetError, match="unexpected keyword argument 'colour'"):
        Own("y", "x", colour=3)


def test_shared_parameters_have_the_settings_of_their_owner():
    layers = [
        L.Input("x", shape=(4,)),
        L.Dense("a", "x", units=4, rate=2.0, max_norm=1.0),
        L.Dense("b", "a", units=4, rate=2.0, max_norm=1.0, shares="a"),
        L.TiedDense("c", "b", to="a", rate=3.0),
    ]
    net = lk.Net(layers, 2)
    assert net.layers["b"].w.rate == net.layers["c"].w.rate == net.params["a/weight"].rate == 2
    assert net.params["c/bias"].rate == 3
    net.layers["c"].w.rate = 5.0
    assert net.params["a/weight"].rate == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: L.ReLU("y", "x", rate=2.0), ["unexpected keyword argument", "'rate'"]),
        (lambda x: Bare("y", "x", rate=2.0), ["no parameters of its own", "rate=2"]),
        (lambda x: L.Dense("y", "x", units=3, rate={"wait": 2}), ["'wait'", "'weight', 'bias'"]),
        (lambda x: L.Dense("y", "x", units=3, max_norm={"bias": 2}), ["max_norm", "'bias'"]),
        (lambda x: L.TiedDense("y", "e", to="e", max_norm=2), ["max_norm", "none"]),
        (lambda x: L.TiedDense("y", "e", to="e", rate={"weight": 2}), ["'weight'", "'bias'"]),
        (lambda x: L.Dense("y", "x", units=3, shares="e", rate=2), ["rate=2", "'e/weight'"]),
    ],
)
def test_settings_without_a_parameter_are_named(make, words):
    layers = [L.Input("x", shape=(4,)), L.Dense("e", "x", units=3)]
    with pytest.raises(NetError, match=r"layer 'y'") as caught:
        lk.Net([*layers, make(None)])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


BAD = [-1, "2", True, float("nan"), float("inf"), [2.0], {}, {3: 1.0}, {"bias": -1}, {"bias": "a"}]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("setting", ["rate", "decay", "max_norm"])
def test_values_that_are_none(setting, value):
    for make in (lambda **s: L.Dense("y", "x", units=3, **s), lambda **s: Own("y", "x", **s)):
        with pytest.raises(NetError, match=rf"layer 'y' \(\w+\): {setting} must be .*, got "):
            make(**{setting: value})
    if not isinstance(value, dict):
        p = lk.Net(regression()).params["h/weight"]
        with pytest.raises(NetError, match=f"{setting} must be "):
            setattr(p, setting, value)
