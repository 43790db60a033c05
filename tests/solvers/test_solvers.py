"""Solvers beside optax, rate policies beside closed forms, and training that cannot go on."""

import math
import signal
import threading
from importlib.util import find_spec

import jax
import numpy as np
import optax
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit import rates
from layerkit.errors import NetError, NotFiniteError

ROWS, STEPS = 8, 100
COMPILED = find_spec("layerkit.engines.cpu._cpu") is not None


def regression():
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,)),
        L.Dense("h", "x", units=7, neuron="tanh", l2=0.01),
        L.Dense("y", "h", units=3),
        L.SquareLoss("loss", "y", "t"),
    ]


def make(dtype="float64", **settings):
    return lk.Net(regression(), ROWS, dtype=dtype, **settings)


@jax.jit
@jax.value_and_grad
def objective(flat, x, t):
    """The same net for JAX, which differentiates it by itself; its parameters in one array."""
    w1, b1, w2, b2 = (flat[a:b] for a, b in ((0, 35), (35, 42), (42, 63), (63, 66)))
    error = jax.numpy.tanh(x @ w1.reshape(5, 7) + b1) @ w2.reshape(7, 3) + b2 - t
    return 0.5 * (error**2).sum() / len(x) + 0.005 * (w1**2).sum()


def flat(net):
    """All parameters of the net end to end, as `objective` takes them."""
    return np.concatenate([p.data.reshape(-1) for p in net.params.values()])


def values(net):
    return {name: p.data.copy() for name, p in net.params.items()}


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def batches(rng):
    """Minibatches of a problem that can be learned: t is linear in x, and a little noise."""
    w = rng.standard_normal((5, 3))
    x = rng.standard_normal((STEPS, ROWS, 5))
    return [{"x": a, "t": a @ w + 0.1 * rng.standard_normal((ROWS, 3))} for a in x]


def falling(iteration):
    """A rate policy of one's own: any function of the iteration."""
    return 0.02 / (1 + 0.1 * iteration)


ADAMS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}
COSINE = optax.cosine_decay_schedule(0.05, 80, alpha=0.1)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("make_solver", "make_peer"),
    [
        (lambda net: lk.Adam(net, 0.01), lambda: optax.adam(0.01)),
        (
            lambda net: lk.Adam(net, falling, **ADAMS),
            lambda: optax.adam(falling, b1=0.8, b2=0.95, eps=1e-4),
        ),
        (
            lambda net: lk.Adam(net, rates.Cosine(0.05, 80, final=0.005), clip=0.5),
            lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(COSINE)),
        ),
        (lambda net: lk.SGD(net, 0.02, momentum=0.0), lambda: optax.sgd(0.02)),
        (lambda net: lk.SGD(net, 0.02), lambda: optax.sgd(0.02, momentum=0.9)),
        (
            lambda net: lk.SGD(net, rates.Exponential(0.05, 0.97), momentum=0.5, clip=1.0),
            lambda: optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.sgd(lambda i: 0.05 * 0.97 ** float(i), momentum=0.5),
            ),
        ),
        (lambda net: lk.Nesterov(net, 0.02), lambda: optax.sgd(0.02, momentum=0.9, nesterov=True)),
        (
            lambda net: lk.Nesterov(net, rates.Step(0.05, 0.5, every=30), momentum=0.7),
            lambda: optax.sgd(lambda i: 0.05 * 0.5 ** (int(i) // 30), momentum=0.7, nesterov=True),
        ),
    ],
    ids=[
        "Adam",
        "Adam's settings",
        "Adam clipped",
        "SGD plain",
        "SGD",
        "SGD clipped",
        "Nesterov",
        "Nesterov in steps",
    ],
)
def test_solvers_follow_optax(make_solver, make_peer, batches):
    """Each with gradients of its own making, from the same start, for a hundred steps."""
    nets = [make(kernels=kernels) for kernels in ("auto", "array")]
    solvers, peer = [make_solver(net) for net in nets], make_peer()
    start = params = jax.numpy.asarray(flat(nets[0]))
    state = peer.init(params)
    for i, batch in enumerate(batches):
        losses = [solver.step(**batch) for solver in solvers]
        peer_loss, gradient = objective(params, **batch)
        updates, state = peer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        for net, loss in zip(nets, losses, strict=True):
            told = f"{net.engine.name}, step {i}"
            assert loss == pytest.approx(float(peer_loss), rel=1e-10), told
            np.testing.assert_allclose(flat(net), params, rtol=1e-9, atol=1e-11, err_msg=told)
    assert [solver.iteration for solver in solvers] == [STEPS, STEPS]
    before, after = (objective(p, **batches[-1])[0] for p in (start, params))
    assert after < 0.7 * before, "it learns"


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0], ids=["clipped", "as long", "left alone"])
def test_clipping_against_optax(size, batches):
    net = make()
    before = flat(net)
    _, gradient = objective(before, **batches[0])
    norm = float(jax.numpy.linalg.norm(gradient))
    lk.SGD(net, rate=1.0, momentum=0.0, clip=size * norm).step(**batches[0])
    expected, _ = optax.clip_by_global_norm(size * norm).update(gradient, optax.EmptyState())
    np.testing.assert_allclose(before - flat(net), expected, rtol=1e-9, atol=1e-12)


def test_the_norm_is_of_what_is_trained_only(batches):
    net = make()
    net.forward(**batches[0])
    net.backward()
    net.params["h/weight"].diff.fill(1e6)  # left over from before it was frozen
    net.freeze("h/weight")
    norm = math.sqrt(sum((p.diff**2).sum() for p in net.params.values() if p.trainable))
    before = values(net)
    lk.SGD(net, rate=1.0, momentum=0.0, clip=0.1 * norm).step(**batches[0])
    moved = math.sqrt(sum(((p.data - before[n]) ** 2).sum() for n, p in net.params.items()))
    assert moved == pytest.approx(0.1 * norm, rel=1e-9)


# Rates.


@pytest.mark.parametrize(
    ("policy", "formula"),
    [
        (rates.Fixed(0.3), lambda i: 0.3),
        (rates.Step(0.1, 0.5, every=7), lambda i: 0.1 * 0.5 ** math.floor(i / 7)),
        (rates.Exponential(0.1, 0.9), lambda i: 0.1 * math.exp(i * math.log(0.9))),
        (rates.Inverse(0.1, 0.01, 0.75), lambda i: 0.1 / (1 + 0.01 * i) ** 0.75),
        (
            rates.Cosine(0.1, 40, final=0.02),
            lambda i: 0.02 + 0.08 * math.cos(math.pi * min(i, 40) / 80) ** 2,  # half-angle formula
        ),
        (rates.WarmUp(rates.Fixed(0.1), 5), lambda i: (0.02, 0.04, 0.06, 0.08, 0.1)[min(i, 4)]),
        (
            rates.MultiStep(0.1, 0.5, at=[3, 40, 41]),
            lambda i: 0.1 * 0.5 ** ((i >= 3) + (i >= 40) + (i >= 41)),
        ),
        (rates.Polynomial(0.1, 50), lambda i: 0.1 * max(50 - i, 0) / 50),
        (rates.Polynomial(0.1, 50, power=0.0), lambda i: 0.1 if i < 50 else 0.0),
    ],
    ids=[
        "fixed",
        "step",
        "exponential",
        "inverse",
        "cosine",
        "warm-up",
        "multi-step",
        "linear",
        "power 0",
    ],
)
def test_rates_against_closed_forms(policy, formula):
    for i in range(100):
        assert policy(i) == pytest.approx(formula(i), rel=1e-12)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("policy", "schedule"),
    [
        (rates.Step(0.1, 0.5, 7), optax.exponential_decay(0.1, 7, 0.5, staircase=True)),
        (rates.Exponential(0.1, 0.9), optax.exponential_decay(0.1, 1, 0.9)),
        (rates.Cosine(0.05, 80, final=0.005), COSINE),
        (rates.WarmUp(rates.Exponential(0.01, 0.98), 10), None),
        (
            rates.MultiStep(0.1, 0.5, at=[7, 50]),
            optax.piecewise_constant_schedule(0.1, {7: 0.5, 50: 0.5}),
        ),
        (
            rates.Polynomial(0.1, 60, power=2.5, final=0.01),
            optax.polynomial_schedule(0.1, 0.01, 2.5, 60),
        ),
    ],
    ids=["step", "exponential", "cosine", "warm-up", "multi-step", "polynomial"],
)
def test_rates_against_optax(policy, schedule):
    for i in range(100):
        if schedule:
            expected = schedule(i)
        else:  # a straight line times the decay, then the decay
            expected = min(1, (i + 1) / 10) * optax.exponential_decay(0.01, 1, 0.98)(i)
        assert policy(i) == pytest.approx(float(expected), rel=1e-12)


def test_ends_of_the_policies():
    assert rates.Cosine(0.1, 10)(10) == pytest.approx(0, abs=1e-15)
    assert rates.Cosine(0.1, 10)(1000) == pytest.approx(0, abs=1e-15)
    for nothing in (rates.Cosine(0.1, 0, final=0.01), rates.WarmUp(rates.Fixed(0.1), 0)):
        assert math.isfinite(nothing(0))


def test_the_rate_is_that_of_the_iteration(batches):
    """Counted from 0, one for each step, whatever the solver."""
    seen = []

    def policy(iteration):
        seen.append(iteration)
        return 0.5 if iteration == 1 else 0.0

    net = make()
    solver = lk.SGD(net, policy, momentum=0.0)
    moved = []
    for batch in batches[:3]:
        before = values(net)
        solver.step(**batch)
        moved.append(any((p.data != before[n]).any() for n, p in net.params.items()))
    assert seen == [0, 1, 2]
    assert moved == [False, True, False]


# Freezing.


@pytest.mark.parametrize("solver", [lk.SGD, lk.Nesterov, lk.Adam])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frozen_parameters_do_not_move_by_a_bit(solver, dtype, batches):
    net = make(dtype)
    training = solver(net, 0.01, clip=10.0)
    for batch in batches[:5]:  # so that there is a history that could still move them
        training.step(**batch)
    net.freeze("h/weight", "y/bias")
    history = {name: array.copy() for name, array in training.history.items()}
    before = values(net)
    for batch in batches[5:10]:
        training.step(**batch)
    for name, p in net.params.items():
        span = slice(p.offset, p.offset + p.size)
        frozen = name in ("h/weight", "y/bias")
        assert (p.data == before[name]).all() == frozen
        for key, array in training.history.items():
            assert (array[span] == history[key][span]).all() == frozen
    net.unfreeze("*")
    training.step(**batches[10])
    assert all((p.data != before[name]).any() for name, p in net.params.items())


def test_steps_follow_what_changes_between_them(rng):
    """Loss weights, freezing, rows: each step is one down the gradient as it is now."""

    def layers():
        return [
            L.Input("x", shape=(5,)),
            L.Dense("h", "x", units=7, neuron="relu"),
            L.Dense("mean", "h", units=2),
            L.Dense("log_variance", "h", units=2),
            L.Reparameterize("z", "mean", "log_variance"),
            L.Dense("y", "z", units=5, l2=0.1),
            L.Dense("y_log_variance", "z", units=5),
            L.GaussianReconstruction("reconstruction", "x", "y", "y_log_variance", floor=0.1),
            L.GaussianKL("kl", "mean", "log_variance"),
        ]

    net, other = (lk.Net(layers(), 9, dtype="float64", seed=1) for _ in range(2))
    solver = lk.SGD(net, rate=0.002, momentum=0.0)
    for i in range(12):
        x = rng.standard_normal((int(rng.integers(1, 10)), 5))
        weights = rng.uniform(0, 2, 2)
        frozen = "y/weight" if i % 3 == 0 else "mean" if i % 3 == 1 else "h/bias"
        for n in (net, other):
            n.layers["reconstruction"].weight, n.layers["kl"].weight = weights
            n.unfreeze("*")
            n.freeze(frozen)
        before = flat(net)
        other.arena.data[...] = net.arena.data
        assert solver.step(x=x) == pytest.approx(other.forward(x=x), rel=1e-12)
        other.backward()
        gradient = [p.diff.reshape(-1) * p.trainable for p in other.params.values()]
        np.testing.assert_allclose(
            before - flat(net), 0.002 * np.concatenate(gradient), rtol=1e-8, atol=1e-12
        )


def test_padding_between_parameters_stays_zero(batches):
    net = make()
    solver = lk.Adam(net)
    for batch in batches[:5]:
        solver.step(**batch)
    used = np.zeros(net.arena.data.shape, bool)
    for p in net.params.values():
        assert not used[p.offset : p.offset + p.size].any(), "parameters do not overlap"
        used[p.offset : p.offset + p.size] = True
    assert not net.arena.data[~used].any()


def test_losses_fall_in_float32(batches):
    for solver in (lk.SGD, lk.Nesterov, lk.Adam):
        net = make("float32")
        training = solver(net, 0.02)
        losses = [training.step(**batch) for batch in batches]
        assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10]), solver.__name__
        assert all(p.data.dtype == np.float32 for p in net.params.values())


# Nets that cannot be trained.


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def poison_parameter(net, batch):
    net.params["y/weight"].data[1, 2] = math.inf


def poison_input(net, batch):
    batch["x"][2, 3] = math.nan


def poison_target(net, batch):
    batch["t"][0, 0] = math.inf


def overflow(net, batch):
    net.params["y/bias"].data[0] = 1e200  # finite, but its square is not


@pytest.mark.parametrize(
    ("poison", "culprit"),
    [
        (poison_parameter, "parameter 'y/weight'"),
        (poison_input, "blob 'x'"),
        (poison_target, "blob 't'"),
        (overflow, "blob 'loss'"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of overflows and the like
def test_a_loss_that_is_not_finite(poison, culprit, batches):
    net = make()
    solver = lk.Adam(net)
    for batch in batches[:3]:
        solver.step(**batch)
    poison(net, batches[3])
    before, history = values(net), {k: a.copy() for k, a in solver.history.items()}
    with pytest.raises(NotFiniteError, match=r"at iteration 3") as message:
        solver.step(**batches[3])
    one_line(message, culprit)
    assert solver.iteration == 3
    for name, p in net.params.items():
        np.testing.assert_array_equal(p.data, before[name])
    for key, array in solver.history.items():
        np.testing.assert_array_equal(array, history[key])


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_data_that_are_not_finite_are_named_by_row(bad):
    """A lower rate would not help; behind a tanh an infinity even leaves the loss finite."""
    net, (x, t) = make(), (np.ones((ROWS, 5)), np.ones((ROWS, 3)))
    x[3, 2] = bad
    with pytest.raises(NotFiniteError, match="row 3 of the batch in blob 'x'") as message:
        lk.Adam(net).step(x=x, t=t)
    one_line(message, "iteration 0", "leave such rows out")
    assert "rate" not in str(message.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_first_blob_that_is_not_finite_is_named():
    layers = [
        L.Input("x", shape=(2,)),
        L.Dense("a", "x", units=2),
        L.Exponential("b", "a"),
        L.Dense("c", "b", units=1),
        L.Input("t", shape=(1,)),
        L.SquareLoss("loss", "c", "t"),
    ]
    net = lk.Net(layers, 3)
    net.params["a/bias"].data[0] = 100.0  # exp(100) overflows float32
    with pytest.raises(NotFiniteError, match="blob 'b'") as message:
        lk.SGD(net).step(x=np.ones((3, 2)), t=np.ones((3, 1)))
    one_line(message, "inf", "iteration 0", "rate")


@pytest.mark.parametrize(
    ("make_solver", "words"),
    [
        (lambda: lk.Adam(lk.Net(regression()[:4])).step(), ["no loss layer", "apply"]),
        (lambda: lk.Adam(lk.Net(regression(), phase="test")), ["no gradients", "train"]),
        (lambda: lk.SGD(make(), clip=0), ["clip", "0"]),
        (lambda: lk.SGD(make(), clip=-1.0), ["clip", "-1"]),
        (lambda: lk.SGD(make(), clip=math.nan), ["clip", "nan"]),
    ],
    ids=["no loss", "test net", "clip of zero", "negative clip", "clip of nan"],
)
def test_what_cannot_be_trained(make_solver, words):
    with pytest.raises(NetError) as message:
        make_solver()
    one_line(message, *words)


class Returning(lk.Solver):
    """A solver of a user's own that returns what it should have written."""

    def update(self, w, g, rate):
        return w - rate * g


def test_an_update_that_returns_is_refused(batches):
    with pytest.raises(NetError) as message:
        Returning(make(), 0.1).step(**batches[0])
    one_line(message, "Returning.update", "w -= step")


# Gradients that are not finite, where the loss is.


class Root(lk.Layer):
    """y = sqrt(x), whose derivative at 0 is infinite."""

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        self.xp.sqrt(bottoms[0].data, out=tops[0].data)

    def backward(self, bottoms, tops):
        if bottoms[0].diff is not None:
            self.xp.divide(tops[0].diff, 2 * tops[0].data, out=bottoms[0].diff)


def rooted(layer=Root, **settings):
    """Weights below and above of a layer whose derivative fails; all wide enough to be fused."""
    return [
        L.Input("x", shape=(600,)),
        L.Input("t", shape=(600,)),
        L.Dense("below", "x", units=120, neuron="relu", **settings),
        layer("root", "below"),
        L.Dense("middle", "root", units=5),
        L.Dense("above", "middle", units=600, neuron="tanh"),
        L.SquareLoss("loss", "above", "t"),
    ]


SOLVERS = {
    "Adam": lk.Adam,
    "SGD": lk.SGD,
    "Nesterov": lk.Nesterov,
    "Adam clipped": lambda net: lk.Adam(net, clip=1.0),
}


@pytest.mark.parametrize("make_solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize(
    ("kernels", "fuse", "settings"),
    [
        ("auto", True, {}),
        ("auto", False, {}),
        ("array", True, {}),
        ("auto", True, {"l2": 0.1}),
        ("array", True, {"l1": 0.1}),
    ],
    ids=["fused", "unfused", "array code", "regularised", "array code, regularised"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_that_is_not_finite(make_solver, kernels, fuse, settings, dtype, rng):
    """Not a bit of any parameter or history changes, above the layer that fails neither."""
    net = lk.Net(rooted(**settings), 3, dtype=dtype, kernels=kernels, seed=5)
    solver = make_solver(net)
    solver.fuse = fuse
    t = 0.1 * rng.standard_normal((3, 600))
    net.params["below/bias"].data[...] = 10.0
    for _ in range(3):
        solver.step(x=np.abs(rng.standard_normal((3, 600))) / 600, t=t)
    net.params["below/bias"].data[7] = -1e4  # so that its unit is 0, at which the root fails
    before = net.arena.data.tobytes()
    history = {name: array.tobytes() for name, array in solver.history.items()}
    for _ in range(2):  # it stays so
        with pytest.raises(NotFiniteError) as caught:
            solver.step(x=np.abs(rng.standard_normal((3, 600))) / 600, t=t)
        text = str(caught.value)
        assert text.startswith("a gradient is not finite at iteration 3, where the loss is "), text
        assert "first in the diff of blob 'below'" in text
        assert solver.iteration == 3
        assert net.arena.data.tobytes() == before
        assert {name: array.tobytes() for name, array in solver.history.items()} == history
    net.params["below/bias"].data[7] = 10.0
    assert math.isfinite(solver.step(x=np.full((3, 600), 1e-3), t=t))
    assert solver.iteration == 4
    assert np.isfinite(net.arena.data).all()


class Broken(lk.Layer):
    """Hands its bottom on, and one number that is none back, in the last place."""

    bad = math.nan

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = bottoms[0].data

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = tops[0].diff
        bottoms[0].diff[-1, -1] = self.bad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [1, 2, 70])
@pytest.mark.parametrize("where", ["x", "x, few units", "above"])
def test_one_number_of_a_gradient_that_is_none(bad, rows, where, rng, monkeypatch):
    """In the first layer, in one too small to be fused, and with several pieces of work."""
    monkeypatch.setattr(Broken, "bad", bad)
    units = 20 if where == "x, few units" else 200
    layers = [
        L.Input("x", shape=(600,)),
        L.Input("t", shape=(600,)),
        L.Dense("a", "x", units=units),
        L.Dense("y", "a", units=600),
        L.SquareLoss("loss", "y", "t"),
    ]
    layers.insert(4 if where == "above" else 3, Broken("broken", "y" if where == "above" else "a"))
    after = layers[5 if where == "above" else 4]
    after.bottoms[0] = "broken"
    net = lk.Net(layers, rows)
    solver = lk.Adam(net)
    fused = solver.plan().updated
    assert ("a/weight" in fused) == (units == 200 and COMPILED)
    before = net.arena.data.tobytes()
    with pytest.raises(NotFiniteError, match="a gradient is not finite at iteration 0"):
        solver.step(x=rng.standard_normal((rows, 600)), t=rng.standard_normal((rows, 600)))
    assert net.arena.data.tobytes() == before
    assert not any(array.any() for array in solver.history.values())


def linear(inputs, units):
    return [
        L.Input("x", shape=(inputs,)),
        L.Input("t", shape=(units,)),
        L.Dense("y", "x", units=units, weight=0.0),
        L.SquareLoss("loss", "y", "t"),
    ]


def test_products_that_overflow_though_all_factors_are_finite():
    """dW = x t, 1e25 times 1e15, in float32."""
    net = lk.Net(linear(600, 300), 1)
    solver = lk.SGD(net, rate=1e-30)
    x = np.zeros((1, 600))
    x[0, 17] = 1e25
    with pytest.raises(NotFiniteError, match="first in the diff of parameter 'y/weight'"):
        solver.step(x=x, t=np.full((1, 300), 1e15))
    assert not net.arena.data.any()


@pytest.mark.parametrize("solver", [lk.Adam, lk.SGD])
def test_a_bound_that_is_far_above_the_gradient(solver, rng):
    """One row has a large x, another a large d: the product of these two is nowhere."""
    x, t = np.ones((2, 600)), np.full((2, 300), 1e-24)
    x[0], t[1] = 1e25, 1e15
    nets = [lk.Net(linear(600, 300), 2, kernels=kernels) for kernels in ("auto", "array")]
    for net in nets:
        training = solver(net, 1e-20)
        training.step(x=x, t=t)
        assert training.iteration == 1
    for name, p in nets[1].params.items():
        assert p.data.any()
        np.testing.assert_allclose(nets[0].params[name].data, p.data, rtol=1e-6)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_a_gradient_whose_square_overflows(kernels):
    """Adam's second moment would be infinite for ever, and the weight would never move again."""
    t = np.full((1, 300), 1e-3)
    t[0, 3] = 1e18
    x = np.full((1, 600), 1e3)
    net = lk.Net(linear(600, 300), 1, kernels=kernels)
    solver = lk.Adam(net)
    with pytest.raises(NotFiniteError, match=r"too large at iteration 0: 1e\+21 .*'y/weight'"):
        solver.step(x=x, t=t)
    assert not net.arena.data.any()
    assert not solver.history["v"].any()
    sgd = lk.SGD(net, rate=1e-21, momentum=0.0)
    sgd.step(x=x, t=t)
    assert net.params["y/weight"].data[5, 3] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_clipping_a_gradient_whose_square_overflows(kernels):
    net = lk.Net(linear(4, 4), 1, kernels=kernels)
    net.layers["loss"].weight = 1e10
    t = np.array([[3e15, -4e15, 0, 0]])
    lk.SGD(net, rate=1.0, momentum=0.0, clip=0.5).step(x=np.zeros((1, 4)), t=t)
    np.testing.assert_allclose(net.params["y/bias"].data, [0.3, -0.4, 0, 0], rtol=1e-6)


# Settings that change between steps.


def test_a_rate_that_is_assigned_later(batches):
    """A number becomes a policy, whatever it is written in."""
    nets = [make() for _ in range(4)]
    for net, rate in zip(nets, (0.001, np.float32(0.001), lambda i: 0.001, None), strict=True):
        solver = lk.SGD(net, 0.001 if rate is None else 0.5, momentum=0.0)
        if rate is not None:
            solver.rate = rate
        for batch in batches[:3]:
            solver.step(**batch)
    for net in nets[:3]:
        np.testing.assert_allclose(flat(net), flat(nets[3]), rtol=1e-7)


@pytest.mark.parametrize("bad", [-1, 1.5, "3", None, True, 2**63], ids=repr)
def test_an_iteration_that_is_assigned_later(bad, batches):
    solver = lk.Adam(make())
    with pytest.raises(NetError, match="iteration must be a whole number, at least 0"):
        solver.iteration = bad
    solver.iteration = np.int64(7)
    solver.step(**batches[0])
    assert solver.iteration == 8


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, -0.1, None, "0.1", 1j, "overflow", "root", "argument", True, 1e60],
    ids=repr,
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_policy_that_fails_at_some_iteration(bad, at, batches):
    """At that step nothing changes, neither the data that come next."""

    def policy(iteration):
        if iteration == at:
            failing = {"overflow": lambda: math.exp(1e3), "root": lambda: math.sqrt(-1)}
            return failing["root"](1) if bad == "argument" else failing.get(bad, lambda: bad)()
        return 0.1

    layers = [L.MemoryData("x", data=np.arange(20.0).reshape(4, 5)), *regression()[1:]]
    layers[1] = L.MemoryData("t", data=np.ones((4, 3)))
    net = lk.Net(layers, 3, kernels="array")
    solver = lk.SGD(net, policy)
    losses = [solver.step() for _ in range(at)]
    assert all(map(math.isfinite, losses))
    before, state = net.arena.data.copy(), net.state()
    with pytest.raises(NetError, match=f"^rate: at iteration {at} ") as message:
        solver.steps(3)
    one_line(message, "a rate is a finite number, at least 0")
    assert solver.iteration == at
    assert net.state() == state
    np.testing.assert_array_equal(net.arena.data, before)


def test_epsilon_must_not_vanish(batches):
    """Without a gradient both moments are 0, and 0 / 0 would be the step."""
    net = make("float32")
    solver = lk.Adam(net, epsilon=1e-45)
    with pytest.raises(NetError, match=r"epsilon must be at least 1\.17549e-38 in a net of "):
        solver.step(**batches[0])
    solver.epsilon = 1e-30
    batch = {"x": np.zeros((ROWS, 5)), "t": np.zeros((ROWS, 3))}
    net.params["h/weight"].l2 = 0.0
    for _ in range(3):
        solver.step(**batch)
    assert np.isfinite(flat(net)).all()


def test_betas_of_zero_are_those_of_the_formula(batches):
    """Then w falls by rate * g / (|g| + epsilon)."""
    net = make()
    net.forward(**batches[0])
    net.backward()
    gradient = np.concatenate([p.diff.reshape(-1) for p in net.params.values()])
    before = flat(net)
    lk.Adam(net, 0.01, beta1=0, beta2=0, epsilon=0.1).step(**batches[0])
    np.testing.assert_allclose(
        before - flat(net), 0.01 * gradient / (np.abs(gradient) + 0.1), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "3", None, math.nan])
def test_how_many_steps(count):
    solver = lk.Adam(make())
    with pytest.raises(NetError, match="count must be a whole number, at least 1, got"):
        solver.steps(count)
    with pytest.raises(NetError, match="iterations must be a whole number, at least 1, got"):
        solver.profile(count)


def test_how_many_steps_in_numpys_own(batches):
    assert len(lk.Adam(make()).steps(np.int64(3), **batches[0])) == 3


def test_policies_stay_real_and_finite():
    """A long way out, and at the corners of their settings."""
    policies = [
        rates.Inverse(0.1, 0, 0),
        rates.Inverse(0.1, 1e300, 2.0),
        rates.Exponential(0.1, 0),
        rates.Step(0.1, 0, 1),
        rates.Cosine(0.1, 1, final=0.3),
        rates.WarmUp(0.1, 0),
        rates.Exponential(0.1, 0.9),
        rates.Cosine(0, 0),
    ]
    for policy in policies:
        for i in (0, 1, 7, 10**6, 10**12):
            assert 0 <= policy(i) <= 0.3
            assert isinstance(policy(i), float)


# Denormal numbers, which cost many processors a hundred cycles each.

DECAYING = {"Adam": lk.Adam, "SGD": lk.SGD, "Nesterov": lk.Nesterov}
DENORMAL = {"float32": 1e-39, "float64": 1e-310}


def denormals(array):
    return np.count_nonzero((array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("solver", DECAYING)
def test_an_update_makes_denormal_histories_zero(solver, fuse, kernels, dtype):
    """Without a gradient: x is zero, and so is what follows from it."""
    layers = [
        L.Input("x", shape=(3,)),
        L.Input("t", shape=(40,)),
        L.Dense("y", "x", units=40),
        L.SquareLoss("loss", "y", "t"),
    ]
    net = lk.Net(layers, 2, dtype=dtype, kernels=kernels)
    training = DECAYING[solver](net)
    training.fuse = fuse
    start = net.params["y/weight"].data.copy()
    size = DENORMAL[dtype]
    for flat in training.history.values():
        flat[...] = size
        flat[1::2] *= 1 if flat is training.history.get("v") else -1
    training.step(x=np.zeros((2, 3)), t=np.zeros((2, 40)))
    for name, flat in training.history.items():
        for p in net.params.values():  # the padding between them is nobody's
            assert not flat[p.offset : p.offset + p.size].any(), name
    np.testing.assert_array_equal(net.params["y/weight"].data, start)


@pytest.mark.parametrize("solver", DECAYING)
def test_the_smallest_normal_numbers_and_nan_stay(solver):
    """The update alone, in array code, leaves what is not denormal as the formula says."""
    net = make("float32", kernels="array")
    training = DECAYING[solver](net)
    training.iteration = 1
    tiny = np.finfo(np.float32).tiny
    for size, kept in ((tiny * 1.5, True), (tiny, False), (np.nan, True), (-np.inf, True)):
        history = {name: np.full(1, size, np.float32) for name in training.histories}
        zeros = np.zeros((2, 1), np.float32)
        with np.errstate(invalid="ignore"):
            training.update(*zeros, 0.1, **history)
        first = history[training.histories[0]][0]
        keep = training.beta1 if solver == "Adam" else training.momentum
        assert first == pytest.approx(size * keep if kept else 0.0, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("solver", DECAYING)
def test_no_history_holds_a_denormal_after_training(solver, kernels):
    """Two of three hidden units stop being active after some steps, as in a net of galaxies."""
    layers = [
        L.Input("x", shape=(4,)),
        L.Input("t", shape=(2,)),
        L.Dense("h", "x", units=3, neuron="relu", bias=1.0),
        L.Dense("y", "h", units=2),
        L.SquareLoss("loss", "y", "t"),
    ]
    net = lk.Net(layers, 4, kernels=kernels, seed=1)
    training = DECAYING[solver](net, 1e-3)
    rng = np.random.default_rng(3)
    x, t = rng.random((4, 4)), rng.random((4, 2))
    for i in range(2000):
        training.step(x=x, t=t)
        if i == 20:
            net.params["h/bias"].data[1:] = -100.0
        if i % 100 == 0 or i > 1950:
            assert sum(map(denormals, training.history.values())) == 0
    history = training.history[training.histories[0]]
    p = net.params["h/weight"]
    velocity = history[p.offset : p.offset + p.size].reshape(p.shape)
    assert not velocity[:, 1:].any(), "they have decayed"
    assert velocity[:, 0].any()


def halve(number):
    return np.float32(number) * np.float32(0.5)


class Spoilt(lk.Layer):
    """Passes data through, and looks at the thread's own arithmetic or raises."""

    def __init__(self, name, bottom, *, tops=None):
        super().__init__(name, [bottom], tops)
        self.seen, self.error, self.act = [], {}, {}

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        self.seen.append(halve(1e-39))
        tops[0].data[...] = bottoms[0].data
        self.happens("forward")

    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = tops[0].diff
        self.happens("backward")

    def happens(self, where):
        if where in self.act:
            self.act.pop(where)()
        if where in self.error:
            raise self.error.pop(where)


def spoilt(**settings):
    images = np.random.default_rng(4).random((9, 6)).astype("float32")
    layers = [
        L.MemoryData("x", data=images),
        L.Dense("h", "x", units=5, neuron="relu"),
        Spoilt("s", "h"),
        L.Dense("y", "s", units=6),
        L.SquareLoss("loss", "y", "x"),
    ]
    return lk.Net(layers, 2, seed=2, **settings)


def test_the_callers_arithmetic_is_as_before():
    """Also after errors, within one another, and in several threads."""
    pytest.importorskip(
        "layerkit.engines.cpu._cpu", reason="array code by itself leaves the processor alone"
    )
    net = spoilt()
    solver, layer = lk.Adam(net), net.layers["s"]
    small = halve(1e-39)
    assert small > 0

    def work():
        assert halve(1e-39) == small
        mine = spoilt()
        training = lk.SGD(mine)
        for _ in range(50):
            training.step()
            assert halve(1e-39) == small
        finished.append(set(mine.layers["s"].seen))

    finished = []
    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert finished == [{0.0}] * 3
    for call in (solver.step, net.forward, net.backward, lambda: net.infer("y", s=np.ones((3, 5)))):
        call()
        assert halve(1e-39) == small
    for where in ("forward", "backward"):
        layer.error[where] = MemoryError("spoilt")
        with pytest.raises(NetError, match="not enough memory"):
            solver.step()
        layer.error["forward"] = MemoryError("spoilt")
        with pytest.raises(NetError, match="not enough memory"):
            net.infer("y", h=np.ones((2, 5)))
        assert halve(1e-39) == small
    inner = spoilt()
    layer.act["forward"] = inner.forward  # a net that runs inside a layer of another
    layer.act["backward"] = lambda: layer.seen.append(halve(1e-39))
    solver.step()
    assert set(layer.seen) == {0.0}
    assert halve(1e-39) == small


# Steps that are cut short.


def whole_run(steps, kernels):
    net = spoilt(kernels=kernels)
    lk.Adam(net).steps(steps)
    return flat(net)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_a_forward_pass_that_fails_is_a_step_not_made(error, kernels):
    net = spoilt(kernels=kernels)
    solver = lk.Adam(net)
    solver.steps(3)
    state = net.state()
    net.layers["s"].error["forward"] = error()
    with pytest.raises(NetError if error is MemoryError else error):
        solver.step()
    assert (solver.iteration, net.state()) == (3, state)
    solver.steps(2)
    np.testing.assert_array_equal(flat(net), whole_run(5, kernels))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_backward_pass_that_fails_is_a_step_not_made(error):
    net = spoilt(kernels="array")
    solver = lk.Adam(net)
    solver.steps(3)
    state = net.state()
    net.layers["s"].error["backward"] = error()
    with pytest.raises(NetError if error is MemoryError else error):
        solver.step()
    assert (solver.iteration, net.state()) == (3, state)
    solver.steps(2)
    np.testing.assert_array_equal(flat(net), whole_run(5, "array"))


def test_a_rate_that_cannot_be_had():
    net = spoilt()
    solver = lk.Adam(net, lambda iteration: 0.001 if iteration < 3 else 1 / 0)
    solver.steps(3)
    state = net.state()
    with pytest.raises(NetError, match=r"at iteration 3 .*ZeroDivisionError"):
        solver.step()
    assert (solver.iteration, net.state()) == (3, state)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_ctrl_c_while_parameters_change_waits_for_the_end_of_the_step(kernels):
    net = spoilt(kernels=kernels)
    solver = lk.Adam(net)
    handler = signal.getsignal(signal.SIGINT)
    net.layers["s"].act["backward"] = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        solver.steps(9)
    assert solver.iteration == 1
    assert net.state() == {"seed": 2, "passes": 1, "position/x": 2}
    assert signal.getsignal(signal.SIGINT) is handler
    solver.steps(4)
    np.testing.assert_array_equal(flat(net), whole_run(5, kernels))


def test_ctrl_c_in_the_forward_pass_is_heard_at_once():
    net = spoilt()
    net.layers["s"].act["forward"] = lambda: signal.raise_signal(signal.SIGINT)
    solver = lk.Adam(net)
    with pytest.raises(KeyboardInterrupt):
        solver.step()
    assert (solver.iteration, net.state()["passes"], net.state()["position/x"]) == (0, 0, 0)
    solver.steps(5)
    np.testing.assert_array_equal(flat(net), whole_run(5, "auto"))


def test_a_second_ctrl_c_does_not_wait():
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it has waited")

    net = spoilt()
    net.layers["s"].act["backward"] = twice
    with pytest.raises(KeyboardInterrupt):
        lk.Adam(net).step()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_settings_that_are_changed_are_followed_by_kernels(rng):
    x = rng.standard_normal((2, 6))
    layers = [L.Input("x", shape=(6,)), L.Dense("y", "x", units=4, neuron="leaky_relu")]
    nets = [lk.Net(layers, 2, dtype="float64", kernels=kernels) for kernels in ("auto", "array")]
    for slope in (0.01, 0.3, np.float32(0.5), 1):
        for net in nets:
            net.layers["y"].neuron.slope = slope
            net.forward(x=x)
        np.testing.assert_allclose(nets[0].blobs["y"].data, nets[1].blobs["y"].data, rtol=1e-12)


def test_a_rate_beyond_the_floats_of_the_net_is_told_where_they_end():
    layers = [L.Input("x", shape=(2,)), L.Dense("y", "x", units=2), L.Input("t", shape=(2,)),
              L.SquareLoss("loss", "y", "t")]  # fmt: skip
    solver = lk.SGD(lk.Net(layers, batch_size=1, seed=0), rate=1e300)
    with pytest.raises(NetError, match=r"gave 1e\+300; .* at most 3.4e\+38, as the net's floats"):
        solver.step(x=np.ones((1, 2)), t=np.ones((1, 2)))
