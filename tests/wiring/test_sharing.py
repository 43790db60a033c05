"""Parameters that several layers of one net use: shares= and TiedDense, on every engine."""

import copy

import h5py
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.engines import cpu
from layerkit.errors import NetError

jax = pytest.importorskip("jax", reason="jax, a dependency of the tests only, is not installed")
compiled = pytest.importorskip("quick_jax").compiled
jnp = jax.numpy

ROWS, INPUTS, UNITS, STEPS = 6, 5, 7, 4
BIAS = lk.initializers.Normal(0.3)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def siamese(order=slice(None), **settings):
    """Three branches through one pair of layers, and the distance of each from the next."""
    branches = []
    for i in "123":
        shares = [{}, {}] if i == "1" else [{"shares": "h1"}, {"shares": "f1"}]
        branches += [
            L.Dense(f"h{i}", f"x{i}", units=UNITS, neuron="tanh", bias=BIAS, **shares[0]),
            L.Dense(f"f{i}", f"h{i}", units=3, bias=BIAS, **shares[1], **settings),
        ]
    losses = [L.SquareLoss("near", "f1", "f2"), L.SquareLoss("far", "f2", "f3", weight=0.5)]
    inputs = [L.Input(f"x{i}", shape=(INPUTS,)) for i in "123"]
    return [*inputs, *branches, *losses][order]


def siamese_objective(params, x1, x2, x3):
    def f(x):
        h = jnp.tanh(x @ params["h1/weight"] + params["h1/bias"])
        return h @ params["f1/weight"] + params["f1/bias"]

    near, far = f(x1) - f(x2), f(x2) - f(x3)
    return 0.5 * (near**2).sum(1).mean() + 0.25 * (far**2).sum(1).mean()


def recurrent(steps=STEPS, units=UNITS):
    """h_t = tanh(W x_t + U h_(t-1)), written out step by step; a linear layer reads the last h."""
    layers = [L.Input("x", shape=(steps, INPUTS)), L.Input("t", shape=(2,))]
    layers.append(L.Slice("cut", "x", tops=[f"x{i}" for i in range(steps)]))
    for i in range(steps):
        same = {"shares": "in0"} if i else {}
        layers.append(L.Dense(f"in{i}", f"x{i}", units=units, bias=BIAS, **same))
        if i:
            same = {"shares": "back1"} if i > 1 else {}
            layers += [
                L.Dense(f"back{i}", f"h{i - 1}", units=units, bias=BIAS, **same),
                L.Add(f"sum{i}", f"in{i}", f"back{i}"),
            ]
        layers.append(L.Tanh(f"h{i}", f"sum{i}" if i else "in0"))
    last = f"h{steps - 1}"
    return [*layers, L.Dense("y", last, units=2), L.SquareLoss("loss", "y", "t")]


def recurrent_objective(params, x, t):
    def step(h, x):
        back = h @ params["back1/weight"] + params["back1/bias"]
        return jnp.tanh(x @ params["in0/weight"] + params["in0/bias"] + back), None

    h = jnp.tanh(x[:, 0] @ params["in0/weight"] + params["in0/bias"])
    h, _ = jax.lax.scan(step, h, jnp.swapaxes(x[:, 1:], 0, 1))
    return 0.5 * ((h @ params["y/weight"] + params["y/bias"] - t) ** 2).sum(1).mean()


def tied(units=UNITS, **settings):
    """Two layers down and the same two up, and once more down the first."""
    return [
        L.Input("x", shape=(INPUTS,)),
        L.Dense("e1", "x", units=units, neuron="tanh", bias=BIAS, **settings),
        L.Dense("e2", "e1", units=3, bias=BIAS),
        L.TiedDense("d2", "e2", to="e2", neuron="tanh", bias=BIAS),
        L.TiedDense("d1", "d2", to="e1", neuron="sigmoid", bias=BIAS),
        L.Dense("again", "d1", units=units, neuron="tanh", shares="e1"),
        L.SquareLoss("loss", "d1", "x"),
        L.SquareLoss("cycle", "again", "e1", weight=0.3),
    ]


def tied_objective(params, x):
    def dense(name, x):
        return x @ params[f"{name}/weight"] + params[f"{name}/bias"]

    h = jnp.tanh(dense("e1", x))
    back = jnp.tanh(dense("e2", h) @ params["e2/weight"].T + params["d2/bias"])
    y = jax.nn.sigmoid(back @ params["e1/weight"].T + params["d1/bias"])
    again = jnp.tanh(dense("e1", y))
    return 0.5 * ((y - x) ** 2).sum(1).mean() + 0.15 * ((again - h) ** 2).sum(1).mean()


def inputs_of(layers, rng, rows=ROWS):
    shapes = {x.name: x.shape for x in layers if isinstance(x, L.Input)}
    return {name: rng.standard_normal((rows, *shape)) for name, shape in shapes.items()}


NETS = {
    "siamese": (siamese, siamese_objective),
    "recurrent": (recurrent, recurrent_objective),
    "tied": (tied, tied_objective),
}
JAX = {kind: compiled(jax.value_and_grad(objective)) for kind, (_, objective) in NETS.items()}
each_net = pytest.mark.parametrize("kind", NETS)
ENGINES = ["array", "auto"]


@each_net
@pytest.mark.parametrize("kernels", ENGINES)
def test_gradients_equal_those_of_jax(kind, kernels, rng):
    layers = NETS[kind][0]()
    net = lk.Net(layers, ROWS, dtype="float64", kernels=kernels, seed=3)
    inputs = inputs_of(layers, rng)
    expected, diffs = JAX[kind]({name: p.data for name, p in net.params.items()}, **inputs)
    assert set(diffs) == set(net.params)
    for _ in range(3):  # the first pass checks the contract, the second records, the third replays
        for p in net.params.values():
            p.diff.fill(np.nan)
        value = net.forward(**inputs)
        net.backward()
        assert value == pytest.approx(float(expected), rel=1e-12)
        for name, p in net.params.items():
            np.testing.assert_allclose(p.diff, diffs[name], rtol=1e-10, atol=1e-13, err_msg=name)


@each_net
def test_gradients_agree_with_differences(kind, rng):
    layers = NETS[kind][0]()
    report = lk.check_gradients(layers, elements=30, **inputs_of(layers, rng, 3))
    assert set(lk.Net(layers).params) < set(report.errors)


SOLVERS = {
    "Adam": lk.Adam,
    "clipped": lambda net: lk.Adam(net, clip=0.05),
    "SGD": lambda net: lk.SGD(net, 1e-3),
}


WIDE = {"wide recurrent": lambda: recurrent(3, 300), "wide tied": lambda: tied(15_000)}


@pytest.mark.parametrize("kind", [*NETS, *WIDE])
@pytest.mark.parametrize("solver", SOLVERS)
def test_training_is_alike_with_kernels_and_without(kind, solver, rng):
    """Also of weights so many that Dense would change them by itself, were they its alone."""
    layers = WIDE[kind]() if kind in WIDE else NETS[kind][0]()
    inputs, curves, ends = inputs_of(layers, rng), [], []
    for kernels in ENGINES:
        net = lk.Net(layers, ROWS, dtype="float64", kernels=kernels, seed=3)
        curves.append(SOLVERS[solver](net).steps(12, **inputs))
        ends.append(net.arena.data.copy())
    assert curves[0][-1] < curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-11)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9, atol=1e-12)


@each_net
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("rows", [ROWS, 20])
def test_training_is_alike_on_a_gpu(cupy_on_host, kind, clip, rows, rng):
    """Recorded steps, of few examples (in chains of small layers) and of more."""
    layers = NETS[kind][0]()
    inputs, curves, ends = inputs_of(layers, rng, rows), [], []
    for backend in ("numpy", "cupy"):
        net = lk.Net(layers, rows, backend, dtype="float64", kernels="auto", seed=3)
        solver = lk.Adam(net, 0.01, clip=clip)
        curves.append([*solver.steps(5, **inputs), *solver.steps(2, **inputs)])
        ends.append(net.backend.to_host(net.arena.data))
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-10)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rows", [3, 18])
def test_sharing_layers_that_read_one_blob(cupy_on_host, rng, rows):
    """On a GPU such layers are run together, but not those whose gradients are added up."""
    layers = [
        L.Input("x", shape=(INPUTS,)),
        L.Input("t", shape=(4,)),
        *(L.Dense(n, "x", units=4, neuron="relu", bias=BIAS) for n in ("a", "b", "c")),
        *(L.Dense(n, "x", units=4, neuron="relu", bias=BIAS, shares="b") for n in ("d", "e")),
        L.Multiply("product", "b", "d"),
        L.Add("y", "a", "product", "c", "e"),
        L.SquareLoss("loss", "y", "t"),
    ]
    inputs, ends = inputs_of(layers, rng, rows), []
    for backend in ("numpy", "cupy"):
        net = lk.Net(layers, rows, backend, dtype="float64", seed=3)
        lk.Adam(net, 0.01).steps(5, **inputs)
        ends.append(net.backend.to_host(net.arena.data))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-8, atol=1e-12)


# A shared parameter is one.


def test_a_shared_parameter_is_there_once(tmp_path):
    net = lk.Net(siamese(), ROWS)
    assert [*net.params] == ["h1/weight", "h1/bias", "f1/weight", "f1/bias"]
    one, other = net.layers["f1"].parameters, net.layers["f3"].parameters
    assert other["weight"].data is one["weight"].data is net.params["f1/weight"].data
    assert other["weight"].name == "f1/weight"
    sizes = INPUTS * UNITS + UNITS + UNITS * 3 + 3
    assert f"{sizes} parameters" in str(net)
    assert "those of h1" in str(net)
    assert net.arena.data.size < sizes + 4 * 16
    lk.save(tmp_path / "net.h5", net)
    with h5py.File(tmp_path / "net.h5") as file:
        assert {*file["params"]} == {"h1", "f1"}


def test_regularisation_counts_once(rng):
    plain, layers = lk.Net(siamese(), ROWS, dtype="float64"), siamese(l2=0.3, l1=0.1)
    net = lk.Net(layers, ROWS, dtype="float64")
    inputs = inputs_of(layers, rng)
    w = net.params["f1/weight"]
    expected = plain.forward(**inputs) + 0.15 * (w.data**2).sum() + 0.1 * np.abs(w.data).sum()
    assert net.forward(**inputs) == pytest.approx(expected, rel=1e-12)
    for x in (plain, net):
        x.backward()
    decay = 0.3 * w.data + 0.1 * np.sign(w.data)
    np.testing.assert_allclose(w.diff, plain.params["f1/weight"].diff + decay, rtol=1e-10)
    lk.check_gradients(layers, **inputs)


@pytest.mark.parametrize("kernels", ENGINES)
def test_freezing_is_for_all_users(kernels, rng):
    layers = tied()
    net = lk.Net(layers, ROWS, dtype="float64", kernels=kernels)
    solver, inputs = lk.Adam(net), inputs_of(layers, rng)
    net.freeze("e1/weight")
    before = {name: p.data.copy() for name, p in net.params.items()}
    solver.steps(3, **inputs)
    assert not net.layers["d1"].w.trainable
    for name, p in net.params.items():
        assert np.array_equal(p.data, before[name]) == (name == "e1/weight")
    net.unfreeze("e1")
    solver.steps(3, **inputs)
    assert not np.array_equal(net.params["e1/weight"].data, before["e1/weight"])
    lk.check_gradients(net, **inputs)


@pytest.mark.parametrize("kernels", ENGINES)
def test_users_that_lead_to_no_loss_add_nothing(kernels, rng):
    """A user without a loss is the layer that owns the parameter, or one that shares it."""
    inputs = {"a": rng.standard_normal((ROWS, INPUTS)), "b": rng.standard_normal((ROWS, INPUTS))}
    ends = []
    for owner, user, used in (("y", "z", "y"), ("z", "y", "y"), ("y", None, "y")):
        layers = [L.Input("a", shape=(INPUTS,)), L.Input("b", shape=(INPUTS,))]
        layers.append(L.Dense(owner, "a" if owner == "y" else "b", units=INPUTS, weight=0.1))
        if user:
            bottom = "b" if owner == "y" else "a"
            layers.append(L.Dense(user, bottom, units=INPUTS, weight=0.1, shares=owner))
        layers.append(L.SquareLoss("loss", used, "b"))
        net = lk.Net(layers, ROWS, dtype="float64", kernels=kernels)
        lk.Adam(net, 0.1).steps(5, **inputs)
        ends.append(net.params[f"{owner}/weight"].data)
    np.testing.assert_array_equal(ends[0], ends[2])
    np.testing.assert_array_equal(ends[1], ends[2])


def test_the_owner_may_stand_anywhere_in_the_list(rng):
    layers = siamese()
    inputs, ends = inputs_of(layers, rng), []
    for order in (layers, layers[::-1]):
        net = lk.Net(order, ROWS, dtype="float64")
        lk.Adam(net).steps(5, **inputs)
        ends.append([net.params[name].data for name in ("h1/weight", "f1/bias")])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_lender_may_share_itself():
    layers = [
        L.Input("x", shape=(4,)),
        L.Dense("a", "x", units=4, shares="b"),
        L.Dense("b", "a", units=4, shares="c"),
        L.Dense("c", "b", units=4),
        L.TiedDense("d", "c", to="a"),
        L.TiedDense("e", "d", to="b", shares="d"),
    ]
    net = lk.Net(layers, 2, gradients="all")
    assert [*net.params] == ["c/weight", "c/bias", "d/bias"]
    lk.check_gradients(layers, x=np.random.default_rng(0).standard_normal((2, 4)))


class Scaled(lk.Layer):
    """A layer of a user's own, which knows nothing of sharing."""

    def setup(self, shapes):
        self.scale = self.parameter("scale", shapes[0], 1.5)
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = self.scale.data * bottoms[0].data

    def backward(self, bottoms, tops):
        self.scale.diff[...] = (tops[0].diff * bottoms[0].data).sum(0)
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = tops[0].diff * self.scale.data


def test_layers_of_ones_own_share_too(rng):
    layers = [L.Input("x", shape=(3,)), Scaled("a", "x"), Scaled("b", "a", shares="a")]
    x = rng.standard_normal((2, 3))
    net = lk.Net(layers, 2, gradients="all", dtype="float64")
    net.forward(x=x)
    np.testing.assert_allclose(net.blobs["b"].data, 1.5**2 * x)
    net.backward(b=np.ones((2, 3)))
    np.testing.assert_allclose(net.params["a/scale"].diff, (2 * 1.5 * x).sum(0))


@each_net
@pytest.mark.parametrize("kernels", ENGINES)
def test_a_resumed_run_continues_bit_for_bit(kind, kernels, tmp_path, rng):
    layers = NETS[kind][0]()
    inputs = inputs_of(layers, rng)

    def make(seed):
        net = lk.Net(layers, ROWS, kernels=kernels, seed=seed)
        return net, lk.Adam(net)

    net, solver = make(1)
    solver.steps(4, **inputs)
    lk.save(tmp_path / "run.h5", net, solver)
    expected = solver.steps(4, **inputs)
    other, its = make(2)
    lk.load(tmp_path / "run.h5", other, its)
    np.testing.assert_array_equal(its.steps(4, **inputs), expected)
    np.testing.assert_array_equal(other.arena.data, net.arena.data)


def test_nets_that_share_with_a_net(rng):
    layers = siamese()
    net, inputs = lk.Net(layers, ROWS), inputs_of(layers, rng)
    test = lk.Net(layers, ROWS, phase="test", share=net)
    lk.Adam(net).steps(3, **inputs)
    assert test.forward(**inputs) == net.forward(**inputs)
    part = lk.Net(siamese(slice(0, 5)), ROWS, phase="test", share=net)
    np.testing.assert_array_equal(
        part.infer("f1", x1=inputs["x1"]), net.infer("f1", x1=inputs["x1"])
    )
    rebuilt = net.rebuild(dtype="float64")
    assert rebuilt.forward(**inputs) == pytest.approx(net.forward(**inputs), rel=1e-5)


def test_biases_are_centred_through_the_transpose(rng):
    layers = [
        L.Input("x", shape=(5,)),
        L.Dense("e", "x", units=3),
        L.TiedDense("d", "e", to="e", neuron="relu", bias=BIAS),
    ]
    net, x = lk.Net(layers, 4), rng.standard_normal((40, 5))
    lk.centre_biases(net, x=x)
    level = (x @ net.params["e/weight"].data) @ net.params["e/weight"].data.T
    np.testing.assert_allclose(net.params["d/bias"].data, -level.mean(0), atol=1e-5)


@pytest.mark.skipif(cpu.extension() is None, reason="the compiled engine was not built")
@pytest.mark.parametrize("instructions", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (3, 130), (130, 3), (700, 33), (33, 700)])
@pytest.mark.parametrize("rows", [1, 2, 65, 300])
def test_kernels_of_transposed_weights(instructions, dtype, inputs, units, rows, rng):
    kernels = cpu.extension()
    before = kernels.name()
    if not kernels.choose(instructions):
        pytest.skip("this processor does not have these instructions")
    try:
        layers = [
            L.Input("x", shape=(inputs,)),
            L.Dense("e", "x", units=units, weight="normal"),
            L.TiedDense("d", "e", to="e", neuron="relu", bias=BIAS),
        ]
        x, dy = rng.standard_normal((rows, inputs)), rng.standard_normal((rows, inputs))
        found = []
        for engine in ENGINES:
            net = lk.Net(layers, rows, dtype=dtype, kernels=engine, gradients="all")
            net.forward(x=x)
            net.backward(d=dy)
            arrays = {"y": net.blobs["d"].data, "dx": net.blobs["x"].diff}
            found.append({**arrays, **{name: p.diff for name, p in net.params.items()}})
    finally:
        kernels.choose(before)
    for name, expected in found[0].items():
        size = max(1.0, float(np.abs(expected).max()))
        tolerance = 2e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found[1][name] / size, expected / size, atol=tolerance)


# Parameters that cannot be shared.


def dense(name="y", bottom="x", units=3, **settings):
    return L.Dense(name, bottom, units=units, **settings)


class Both(lk.Layer):
    """A layer that takes another's Parameter instead of declaring one."""

    def __init__(self, name, bottom, parameter):
        super().__init__(name, [bottom])
        self.w = parameter

    def setup(self, shapes):
        return shapes


class Bare(L.ReLU):
    """A layer of a user's own that has no parameters."""


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([dense(shares="z")], ["'y' (Dense)", "no layer 'z'"]),
        ([dense(shares="x")], ["'y' (Dense)", "layer 'x' (Input) has no parameters"]),
        (
            [dense("a"), Bare("y", "x", shares="a")],
            ["'y' (Bare)", "has no parameters", "leave shares='a' out"],
        ),
        ([dense("a", units=2), dense(shares="a")], ["'weight'", "(4, 3)", "'a'", "(4, 2)"]),
        (
            [dense("a"), L.Convolution("y", "p", channels=3, kernel=1, shares="a")],
            ["'weight'", "(1, 1, 1, 3)", "(4, 3)"],
        ),
        ([dense("a", shares="y"), dense(shares="a")], ["in a circle", "'a' -> 'y' -> 'a'"]),
        ([dense(shares="y")], ["in a circle", "'y' -> 'y'"]),
        ([L.TiedDense("y", "x", to="y")], ["in a circle", "'y' -> 'y'"]),
        (
            [L.TiedDense("t", "x", to="y"), dense(bottom="t", units=4)],
            ["in a circle", "'t' -> 'y' -> 't'"],
        ),
        ([dense("a"), dense(shares="a", l2=0.1)], ["l2=0.1", "'a/weight'", "l2=0"]),
        ([dense("a"), Scaled("y", "x", shares="a")], ["'scale'", "'a'", "'weight', 'bias'"]),
        (
            [dense("a"), Both("y", "x", lk.Parameter("a/weight", (4, 3), None, 0, 0))],
            ["'a/weight'", "has not declared", "shares="],
        ),
    ],
)
def test_what_cannot_be_shared_is_named(layers, words):
    with pytest.raises(NetError) as caught:
        lk.Net([L.Input("x", shape=(4,)), L.Input("p", shape=(1, 4, 4)), *layers])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", 3, ["a"], "a\0b"])
def test_names_of_lenders_are_checked(value):
    with pytest.raises(NetError, match=r"layer 'y' \(Dense\): shares must be "):
        dense(shares=value)
    layer = dense()
    with pytest.raises(NetError, match="shares must be "):
        layer.shares = value
    net = lk.Net([L.Input("x", shape=(4,)), layer])
    with pytest.raises(NetError, match="shares cannot be changed any more"):
        net.layers["y"].shares = "a"


def branches(momentum=0.9):
    return [
        L.Input("p", shape=(3,)),
        L.Input("q", shape=(3,)),
        L.BatchNorm("a", "p", momentum=momentum),
        L.BatchNorm("b", "q", momentum=momentum, shares="a"),
        L.BatchNorm("c", "q", momentum=momentum, shares="b"),
        L.SquareLoss("loss", "a", "b"),
    ]


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_running_statistics_are_shared_with_the_parameters(kernels, rng, tmp_path):
    net = lk.Net(branches(), 8, dtype="float64", kernels=kernels)
    assert list(net.statistics) == ["a/mean", "a/variance"]
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(4):
        p, q = rng.standard_normal((2, 8, 3)) * 3 + 1
        net.forward(p=p, q=q)
        for x in (p, q, q):  # one after the other, in the order in which the layers run
            mean = 0.9 * mean + 0.1 * x.mean(axis=0)
            variance = 0.9 * variance + 0.1 * x.var(axis=0, ddof=1)
    np.testing.assert_allclose(net.statistics["a/mean"].data, mean, rtol=1e-12)
    np.testing.assert_allclose(net.statistics["a/variance"].data, variance, rtol=1e-12)
    lk.save(tmp_path / "s.h5", net)
    other = lk.Net(branches(), 8, dtype="float64", phase="test", kernels=kernels)
    lk.load(tmp_path / "s.h5", other)
    shared = lk.Net(branches(), 8, dtype="float64", phase="test", kernels=kernels, share=net)
    for test in (other, shared, copy.deepcopy(other)):
        test.forward(p=p, q=q)
        for top, x in zip("abc", (p, q, q), strict=True):
            expected = (x - mean) / np.sqrt(variance + 1e-5)
            np.testing.assert_allclose(test.blobs[top].data, expected, rtol=1e-9, atol=1e-12)


def test_freezing_what_is_borrowed_says_who_owns_it():
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("owner", "x", units=3),
        L.Dense("user", "owner", units=3, shares="owner"),
    ]
    net = lk.Net(layers, 2)
    for pattern in ("user", "user/*", "user/weight"):
        with pytest.raises(NetError) as message:
            net.freeze(pattern)
        for word in (pattern, "'user/weight'", "'owner/weight'", "other layers"):
            assert word in str(message.value)
    with pytest.raises(NetError, match=r"no parameter matches 'nobody'; there are 'owner/weight'"):
        net.freeze("nobody")
    net.freeze("owner")
    assert not net.params["owner/weight"].trainable
