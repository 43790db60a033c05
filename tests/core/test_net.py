"""The net: wiring, sums of diffs, what needs a gradient, sharing, freezing, and what goes wrong."""

import gc
import re
import weakref
import zlib

import numpy as np
import pytest
from scipy import stats

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import LayerkitError, NetError

ROWS = 6


def regression():
    """x (5) -> h (7) -> y (3), against t."""
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,)),
        L.Dense("h", "x", units=7, neuron="tanh"),
        L.Dense("y", "h", units=3),
        L.SquareLoss("loss", "y", "t"),
    ]


def galaxy_net():
    """Fan-out of x, g, and both parts of z; two losses; noise."""
    return [
        L.Input("x", shape=(9,)),
        L.Dense("g", "x", units=8, neuron="relu"),
        L.Dense("z_mean", "g", units=2),
        L.Dense("z_log_variance", "g", units=2),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dropout("kept", "z", ratio=0.2),
        L.Dense("f", "kept", units=8, neuron="tanh"),
        L.Dense("x_mean", "f", units=9),
        L.Dense("x_log_variance", "f", units=9),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]


@pytest.fixture
def xt(rng):
    return {"x": rng.standard_normal((ROWS, 5)), "t": rng.standard_normal((ROWS, 3))}


def double(layers, batch_size=ROWS, **settings):
    return lk.Net(layers, batch_size, dtype="float64", **settings)


def run(net, **inputs):
    loss = net.forward(**inputs)
    net.backward()
    return loss


def diffs(net):
    """Copies of the diffs of all parameters."""
    return {name: p.diff.copy() for name, p in net.params.items()}


def assert_same(some, others):
    assert some.keys() == others.keys()
    for name in some:
        np.testing.assert_array_equal(some[name], others[name], name)


def assert_close(some, others, rtol=1e-12):
    assert some.keys() == others.keys()
    for name in some:
        np.testing.assert_allclose(some[name], others[name], rtol, atol=1e-13, err_msg=name)


# Wiring.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_can_come_in_any_order(rng, dtype):
    x = rng.random((ROWS, 9))
    layers = galaxy_net()
    net = lk.Net(layers, ROWS, dtype=dtype)
    loss = run(net, x=x)
    for order in (list(reversed(layers)), [layers[i] for i in rng.permutation(len(layers))]):
        other = lk.Net(order, ROWS, dtype=dtype)
        assert run(other, x=x) == loss
        assert_same(diffs(other), diffs(net))
        assert other.losses == net.losses


def test_layers_that_could_run_at_any_time_keep_their_order():
    layers = regression()
    assert list(lk.Net(layers).layers) == ["x", "t", "h", "y", "loss"]
    first, second, *rest = layers
    assert list(lk.Net([second, first, *rest]).layers) == ["t", "x", "h", "y", "loss"]


def test_a_list_of_layers_makes_several_nets(xt):
    layers = regression()
    first, second = double(layers, seed=1), double(layers, seed=2, batch_size=20)
    loss = first.forward(**xt)
    second.forward(**{name: -a for name, a in xt.items()})
    first.layers["loss"].weight = 3.0
    assert second.layers["loss"].weight == layers[-1].weight == 1.0
    assert first.forward(**xt) == pytest.approx(3 * loss, rel=1e-14)


def test_a_net_against_its_algebra(xt):
    net = double(regression())
    loss = run(net, **xt)
    w1, b1, w2, b2 = (net.params[n].data for n in ("h/weight", "h/bias", "y/weight", "y/bias"))
    h = np.tanh(xt["x"] @ w1 + b1)
    error = h @ w2 + b2 - xt["t"]
    assert loss == pytest.approx(0.5 * (error**2).sum() / ROWS, rel=1e-13)
    dh = (error @ w2.T) * (1 - h**2) / ROWS
    assert_close(
        diffs(net),
        {
            "h/weight": xt["x"].T @ dh,
            "h/bias": dh.sum(axis=0),
            "y/weight": h.T @ error / ROWS,
            "y/bias": error.sum(axis=0) / ROWS,
        },
    )


@pytest.mark.parametrize("readers", [1, 2, 3, 5])
def test_diffs_of_all_readers_are_summed(readers, rng):
    """h is read by `readers` losses, with a weight and a target of their own each."""
    weights, targets = rng.uniform(0.5, 2, readers), rng.standard_normal((readers, ROWS, 4))
    layers = [L.Input("x", shape=(3,)), L.Dense("h", "x", units=4)]
    for i, weight in enumerate(weights):
        layers.append(L.Input(f"t{i}", shape=(4,)))
        layers.append(L.SquareLoss(f"loss{i}", "h", f"t{i}", weight=weight))
    net = double(layers)
    x = rng.standard_normal((ROWS, 3))
    for _ in range(2):  # and nothing is left over from one pass to the next
        run(net, x=x, **{f"t{i}": t for i, t in enumerate(targets)})
    h = net.blobs["h"].data
    expected = sum(w * (h - t) for w, t in zip(weights, targets, strict=True)) / ROWS
    np.testing.assert_allclose(net.blobs["h"].diff, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.params["h/weight"].diff, x.T @ expected, rtol=1e-12, atol=1e-14)


def test_the_order_of_the_list_does_not_change_a_sum_of_diffs(rng):
    """In float32, where 1e8 + 1 - 1e8 depends on what is added first."""
    ends = [L.Multiply(f"m{i}", "h", "h") if i % 3 else L.Add(f"m{i}", "h") for i in range(7)]
    x = rng.standard_normal((ROWS, 4))
    found = []
    for _ in range(6):
        layers = [L.Input("x", shape=(4,)), L.Dense("h", "x", units=4), *ends]
        net = lk.Net([layers[i] for i in rng.permutation(len(layers))], ROWS, seed=3)
        net.forward(x=x)
        net.backward(
            **{f"m{i}": (-1) ** i * 10.0 ** (i % 4) * np.ones((ROWS, 4)) / 3 for i in range(7)}
        )
        found.append(net.blobs["h"].diff.copy())
    for diff in found[1:]:
        np.testing.assert_array_equal(diff, found[0])


def test_one_blob_can_be_a_bottom_twice(rng):
    x, t = rng.standard_normal((2, ROWS, 3))

    def diff_of_h(*layers):
        net = double(
            [
                L.Input("x", shape=(3,)),
                L.Input("t", shape=(3,)),
                L.Dense("h", "x", units=3),
                *layers,
            ]
        )
        run(net, x=x, t=t)
        return net.blobs["h"].data, net.blobs["h"].diff

    h, diff = diff_of_h(L.Multiply("y", "h", "h"), L.SquareLoss("loss", "y", "t"))
    np.testing.assert_allclose(diff, 2 * h * (h * h - t) / ROWS, rtol=1e-12)
    h, diff = diff_of_h(L.Add("y", "h", "h", "h"), L.SquareLoss("loss", "y", "t"))
    np.testing.assert_allclose(diff, 3 * (3 * h - t) / ROWS, rtol=1e-12)
    h, diff = diff_of_h(L.SquareLoss("loss", "h", "h"))
    np.testing.assert_array_equal(diff, 0)


def test_the_table():
    net = lk.Net(
        [
            *regression(),
            L.Slice("parts", "h", tops=["left", "right"], sizes=[3, 4]),
            L.Reshape("square", "right", shape=(2, 2)),
        ],
        batch_size=32,
    )
    lines = str(net).splitlines()
    assert re.split(" {2,}", lines[0]) == [
        "layer",
        "type",
        "bottoms -> tops",
        "shapes",
        "parameters",
    ]
    assert set(lines[1]) == {"-", " "}
    table = {cells[0]: cells[1:] for cells in (re.split(" {2,}", line) for line in lines[2:-1])}
    assert table == {
        "x": ["Input", "-> x", "(5)"],
        "t": ["Input", "-> t", "(3)"],
        "h": ["Dense", "x -> h", "(7)", "42"],
        "y": ["Dense", "h -> y", "(3)", "24"],
        "loss": ["SquareLoss", "y, t -> loss", "()"],
        "parts": ["Slice", "h -> left, right", "(3), (4)"],
        "square": ["Reshape", "right -> square", "(2, 2)"],
    }
    for part in ("66 parameters", "float32", "numpy", "32"):
        assert part in lines[-1]
    columns = {line.index(table[line.split()[0]][0]) for line in lines[2:-1]}
    assert len(columns) == 1, "the types stand below each other"


# Who needs a gradient.


def with_diff(net):
    return {name for name, blob in net.blobs.items() if blob.diff is not None}


def test_blobs_that_need_no_gradient_get_none():
    layers = [
        *regression(),
        L.Dense("aside", "h", units=2),
        L.Tanh("further", "aside"),
        L.Input("label", shape=()),
        L.SoftmaxLoss("class_loss", "y", "label"),
        L.Accuracy("accuracy", "y", "label"),
    ]
    net = lk.Net(layers)
    assert with_diff(net) == {"h", "y", "loss", "class_loss"}
    net.freeze("h")
    assert with_diff(net) == {"y", "loss", "class_loss"}
    net.freeze("y")
    assert with_diff(net) == set()
    net.unfreeze("h/bias")
    assert with_diff(net) == {"h", "y", "loss", "class_loss"}
    assert with_diff(lk.Net(layers, phase="test")) == set()
    assert with_diff(lk.Net(layers, gradients="all")) == set(net.blobs) - {"accuracy"}
    net = lk.Net(layers, phase="test", gradients="parameters")
    assert with_diff(net) == {"h", "y", "loss", "class_loss"}


def test_what_is_learned_behind_a_label_has_no_gradient():
    """A label is not differentiable: nothing upstream of it can be trained through it."""
    net = lk.Net(
        [
            L.Input("x", shape=(3,)),
            L.Dense("label", "x", units=1),
            L.Input("y", shape=(4,)),
            L.SoftmaxLoss("loss", "y", "label"),
        ]
    )
    assert with_diff(net) == set()


def test_gradients_of_everything(xt, rng):
    """With gradients="all" inputs and targets get theirs, and what changes no loss gets zero."""
    net = double(
        [*regression(), L.Dense("aside", "h", units=2), L.Input("unread", shape=(2,))],
        gradients="all",
    )
    run(net, **xt, unread=np.ones((ROWS, 2)))
    h, y, t = (net.blobs[name].data for name in "hyt")
    w1, w2 = net.params["h/weight"].data, net.params["y/weight"].data
    error = (y - t) / ROWS
    np.testing.assert_allclose(net.blobs["t"].diff, -error, rtol=1e-13)
    expected = ((error @ w2.T) * (1 - h**2)) @ w1.T
    np.testing.assert_allclose(net.blobs["x"].diff, expected, rtol=1e-12, atol=1e-14)
    for name in ("aside", "unread"):
        np.testing.assert_array_equal(net.blobs[name].diff, 0)
    np.testing.assert_array_equal(net.params["aside/weight"].diff, 0)
    lk.check_gradients(net, **xt, unread=np.ones((ROWS, 2)))


def test_a_label_has_a_diff_of_zero_where_it_must_have_one(rng):
    net = double(
        [
            L.Input("x", shape=(3,)),
            L.Dense("y", "x", units=4),
            L.Input("label", shape=()),
            L.SoftmaxLoss("loss", "y", "label"),
        ],
        gradients="all",
    )
    net.blobs["label"].diff.fill(np.nan)
    run(net, x=rng.standard_normal((ROWS, 3)), label=rng.integers(0, 4, ROWS))
    np.testing.assert_array_equal(net.blobs["label"].diff, 0)
    assert net.blobs["x"].diff.all()


def test_a_net_without_gradients_has_no_backward_pass(xt):
    net = double(regression(), gradients="none")
    net.forward(**xt)
    with pytest.raises(NetError, match="no gradients"):
        net.backward()
    assert all(p.diff is None for p in net.params.values())


def test_what_reaches_no_loss_has_no_gradient_but_its_regularisation(xt):
    """However often backward runs: a diff that nobody overwrites must not grow."""
    net = double([*regression(), L.Dense("aside", "h", units=2, l2=0.1)])
    for _ in range(3):
        run(net, **xt)
    aside = net.params["aside/weight"]
    np.testing.assert_allclose(aside.diff, 0.1 * aside.data, rtol=1e-14)
    np.testing.assert_array_equal(net.params["aside/bias"].diff, 0)


# The objective.


def test_loss_weights_can_change_while_training(rng):
    x = rng.random((ROWS, 9))
    net = double(galaxy_net())

    def gradient(reconstruction, kl):
        net.layers["reconstruction"].weight, net.layers["kl"].weight = reconstruction, kl
        net.set_state({"seed": 0, "passes": 0})  # the same noise
        loss = run(net, x=x)
        expected = reconstruction * net.losses["reconstruction"] + kl * net.losses["kl"]
        assert loss == pytest.approx(expected, rel=1e-13)
        return diffs(net)

    only_reconstruction, only_kl = gradient(1, 0), gradient(0, 1)
    assert not only_kl["f/weight"].any()
    for weights in rng.uniform(0, 3, (3, 2)):
        expected = {
            name: weights[0] * only_reconstruction[name] + weights[1] * only_kl[name]
            for name in only_kl
        }
        assert_close(gradient(*weights), expected, rtol=1e-10)


def test_losses_are_means_over_examples(xt):
    net = double(regression())
    net.forward(**xt)
    error = net.blobs["y"].data - xt["t"]
    np.testing.assert_allclose(net.blobs["loss"].data, 0.5 * (error**2).sum(axis=1), rtol=1e-13)
    assert net.losses == {"loss": pytest.approx(net.blobs["loss"].data.mean(), rel=1e-14)}


def test_metrics_are_reported_but_not_minimised(rng):
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("y", "x", units=4),
        L.Input("label", shape=()),
        L.SoftmaxLoss("loss", "y", "label"),
    ]
    x, label = rng.standard_normal((ROWS, 3)), rng.integers(0, 4, ROWS)
    net, without = double([*layers, L.Accuracy("right", "y", "label")]), double(layers)
    assert run(net, x=x, label=label) == run(without, x=x, label=label)
    assert_same(diffs(net), diffs(without))
    right = (net.blobs["y"].data.argmax(axis=1) == label).mean()
    assert net.metrics == {"right": pytest.approx(right)}
    assert net.losses.keys() == {"loss"}


def test_regularisation_is_in_the_objective_and_the_gradient(xt):
    plain = double(regression())
    l1, l2 = 0.03, 0.2
    layers = regression()
    layers[2] = L.Dense("h", "x", units=7, neuron="tanh", l1=l1)
    layers[3] = L.Dense("y", "h", units=3, l1=l1, l2=l2)
    net = double(layers)
    for n in (plain, net):
        n.params["h/bias"].data[...] = 1.0  # biases are not regularised
    loss, expected = run(plain, **xt), diffs(plain)
    for _ in range(2):
        regularised = run(net, **xt)
    w1, w2 = net.params["h/weight"].data, net.params["y/weight"].data
    penalty = l1 * np.abs(w1).sum() + l1 * np.abs(w2).sum() + l2 / 2 * (w2**2).sum()
    assert net.regularisation == pytest.approx(penalty, rel=1e-13)
    assert regularised == pytest.approx(loss + penalty, rel=1e-13)
    assert net.losses == plain.losses
    expected["h/weight"] += l1 * np.sign(w1)
    expected["y/weight"] += l1 * np.sign(w2) + l2 * w2
    assert_close(diffs(net), expected)
    assert plain.regularisation == 0


def test_backward_can_be_given_diffs(xt, rng):
    """The gradient of the loss and of sum(seed * y) are added; without a loss the seed is all."""
    seeds = {"y": rng.standard_normal((ROWS, 3)), "h": rng.standard_normal((ROWS, 7))}
    net, headless = double(regression()), double(regression()[2:4] + regression()[:1])
    loss = run(net, **xt)
    from_loss = diffs(net)
    headless.forward(x=xt["x"])
    headless.backward(**seeds)
    net.backward(**seeds)
    assert_close(diffs(net), {n: from_loss[n] + d for n, d in diffs(headless).items()})
    assert headless.forward(x=xt["x"]) == 0
    # Against differences of the function itself.
    w = net.params["h/weight"]
    direction, step = rng.standard_normal(w.shape), 1e-5
    analytic = (w.diff * direction).sum()

    def value():
        return net.forward(**xt) + sum((s * net.blobs[n].data).sum() for n, s in seeds.items())

    w.data += step * direction
    above = value()
    w.data -= 2 * step * direction
    assert analytic == pytest.approx((above - value()) / (2 * step), rel=1e-6, abs=1e-7)
    w.data += step * direction
    np.testing.assert_allclose(net.forward(**xt), loss, rtol=1e-12)


def test_seeding_a_blob_with_several_readers(rng):
    x, seed = rng.standard_normal((ROWS, 3)), rng.standard_normal((ROWS, 4))
    net = double(
        [
            L.Input("x", shape=(3,)),
            L.Dense("h", "x", units=4),
            L.Tanh("a", "h"),
            L.Sigmoid("b", "h"),
        ]
    )
    net.forward(x=x)
    net.backward(h=seed)
    np.testing.assert_allclose(net.params["h/weight"].diff, x.T @ seed, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_blobs_of_a_net_can_be_given_to_it(kernels, rng):
    """The pass reads them before it overwrites them, as if the caller had given copies."""
    net = double(
        [
            L.Input("x", shape=(4,)),
            L.Input("y", shape=(4,)),
            L.Dense("a", "x", units=4),
            L.Dense("b", "y", units=4),
        ],
        gradients="all",
        kernels=kernels,
    )
    x, y, seed = rng.standard_normal((3, ROWS, 4))
    net.forward(x=x, y=y)
    net.backward(a=seed, b=2 * seed)
    expected = diffs(net)
    net.forward(x=x, y=y)
    net.blobs["a"].diff[...], net.blobs["b"].diff[...] = 2 * seed, seed
    net.backward(a=net.blobs["b"].diff, b=net.blobs["a"].diff)
    assert_same(diffs(net), expected)
    net.forward(x=net.blobs["y"].data, y=net.blobs["x"].data)
    np.testing.assert_array_equal(net.blobs["x"].data, y)
    np.testing.assert_array_equal(net.blobs["y"].data, x)
    net.forward(x=net.blobs["y"].data[::-1], y=net.blobs["y"].data)
    np.testing.assert_array_equal(net.blobs["x"].data, x[::-1])


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_numpy_may_be_told_to_raise(kernels, xt):
    """Tiny numbers whose products underflow are no errors, whatever NumPy's settings say."""
    net = lk.Net(regression(), ROWS, kernels=kernels)
    tiny = {name: 1e-30 * array for name, array in xt.items()}
    with np.errstate(all="raise"):
        solver = lk.Adam(net)
        for _ in range(3):
            solver.step(**tiny)
        net.forward(**tiny)
        net.backward(y=np.full((ROWS, 3), 1e-38))
        net.infer("y", x=tiny["x"])


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        ({"x": np.ones((ROWS, 5))}, ["'x'", "no diff"]),
        ({"nothing": np.ones(3)}, ["'nothing'"]),
        ({"y": np.ones((ROWS, 4))}, ["'y'", "(6, 3)", "(6, 4)"]),
        ({"y": np.ones(3)}, ["'y'", "(6, 3)", "(3,)"]),
    ],
)
def test_diffs_that_cannot_be_given(xt, diff, words):
    net = double(regression())
    net.forward(**xt)
    with pytest.raises(NetError) as message:
        net.backward(**diff)
    one_line(message, *words)


# Batches.


def test_partial_batches(rng):
    """Whatever came before, n rows give what a net made for n rows gives."""
    net = double(galaxy_net(), batch_size=10)
    for rows in (10, 3, 1, *rng.integers(1, 11, 6)):
        x = rng.random((rows, 9))
        net.set_state({"seed": 0, "passes": 0})
        exact = double(galaxy_net(), batch_size=int(rows))
        assert run(net, x=x) == pytest.approx(run(exact, x=x), rel=1e-13)
        assert_close(diffs(net), diffs(exact), rtol=1e-11)
        for name, blob in net.blobs.items():
            assert len(blob.data) == rows
            np.testing.assert_allclose(blob.data, exact.blobs[name].data, rtol=1e-12, atol=1e-14)
            if blob.diff is not None:
                assert blob.diff.shape == blob.data.shape


def test_a_pass_without_inputs_is_a_full_batch(rng):
    net = lk.Net([L.MemoryData("x", data=rng.random((10, 3))), L.Dense("y", "x", units=2)], 4)
    net.infer("y", x=rng.random((3, 3)))
    net.forward()
    assert net.blobs["y"].data.shape == (4, 2)


def test_data_layers_give_as_many_rows_as_the_inputs(rng):
    data, t = rng.random((10, 5)), rng.random((4, 3))
    net = double([L.MemoryData("x", data=data, shuffle=False), *regression()[1:]])
    loss = net.forward(t=t)
    assert net.layers["x"].position == 4
    assert loss == double(regression()).forward(x=data[:4], t=t)


def test_rows_may_have_any_shape_with_the_right_number_of_elements(rng):
    x, t = rng.random((ROWS, 5, 1)), rng.random((ROWS, 1, 3))
    net = double(regression())
    assert net.forward(x=x, t=t) == net.forward(x=x[:, :, 0].tolist(), t=t[:, 0])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": (ROWS, 4), "t": (ROWS, 3)}, ["'x'", "(n, 5)", "(6, 4)"]),
        ({"x": (ROWS + 1, 5), "t": (ROWS + 1, 3)}, ["'x'", "1 to 6", "(7, 5)"]),
        ({"x": (0, 5), "t": (0, 3)}, ["'x'", "(0, 5)"]),
        ({"x": (), "t": (ROWS, 3)}, ["'x'", "()"]),
        ({"x": (5,), "t": (1, 3)}, ["'x'", "(5,)"]),
        ({"x": (ROWS, 5), "t": (2, 3)}, ["'t'", "2 rows", "6"]),
        ({"x": (ROWS, 5)}, ["'t'", "missing", "t="]),
        ({}, ["'x'", "missing"]),
        ({"x": (ROWS, 5), "t": (ROWS, 3), "y": (ROWS, 3)}, ["'y'", "'x', 't'"]),
    ],
    ids=[
        "width",
        "too many rows",
        "no rows",
        "a number",
        "no rows axis",
        "other rows",
        "one missing",
        "all missing",
        "not an input",
    ],
)
def test_inputs_that_do_not_fit(inputs, words, xt):
    net = double(regression())
    with pytest.raises(NetError) as message:
        net.forward(**{name: np.zeros(shape) for name, shape in inputs.items()})
    one_line(message, *words)
    assert net.forward(**xt) == double(regression()).forward(**xt), "the net still works"


class Handed:
    """An array of another library that knows no NumPy."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **settings):
        if self.device:
            raise BufferError("it is on a GPU")
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


class Marked:
    """An array with a mask or a unit beside its numbers, as astropy's CCDData has."""

    def __init__(self, array, **attributes):
        self.array = array
        vars(self).update(attributes)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Unit:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


SOME = np.arange(18).reshape(2, 9) == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda x: np.ma.array(x, mask=SOME), "masked values"),
        (lambda x: Marked(x, mask=SOME), "masked values"),
        (lambda x: Marked(x, mask=SOME.astype("int16"), unit=Unit("")), "masked values"),
        (lambda x: [Marked(x[0], mask=SOME[0]), x[1]], "masked values"),
        (lambda x: Marked(x, unit=Unit("adu")), "unit 'adu'"),
        (lambda x: Marked(x, units=Unit("percent")), "unit 'percent'"),
        (lambda x: [x[0], Marked(x[1], unit=Unit("%"))], "unit '%'"),
    ],
)
def test_masks_and_units_are_not_lost_in_silence(given, words, rng):
    net = lk.Net(galaxy_net())
    x = given(rng.random((2, 9)))
    calls = [
        lambda: net.forward(x=x),
        lambda: net.infer("z", x=x),
        lambda: net.evaluate({"x": x}),
        lambda: lk.layers.MemoryData("x", data=x),
        lambda: lk.check_gradients(net, x=x),
        lambda: lk.find_inactive(net, x=x),
    ]
    for call in calls:
        with pytest.raises(lk.errors.LayerkitError) as message:
            call()
        one_line(message, words)


@pytest.mark.parametrize(
    "beside",
    [
        {"mask": np.zeros((2, 9), bool)},
        {"mask": None, "unit": None},
        {"unit": Unit("")},
        {"units": Unit("dimensionless")},
        {"units": "counts", "mask": lambda where: where},  # a remark, and a method
    ],
)
def test_objects_without_masked_values_or_units_are_arrays(beside, rng):
    net, x = lk.Net(galaxy_net()), rng.random((2, 9))
    np.testing.assert_array_equal(
        net.infer("z", False, x=Marked(x, **beside)), net.infer("z", False, x=x)
    )


def test_quantities_and_images_of_astropy(rng):
    units = pytest.importorskip("astropy.units")
    nddata = pytest.importorskip("astropy.nddata")
    masked = pytest.importorskip("astropy.utils.masked")
    net, x = lk.Net(galaxy_net()), rng.random((2, 9))
    expected = net.infer("z", False, x=x)
    for given in (x * units.one, nddata.CCDData(x, unit=""), masked.Masked(x, mask=~SOME & SOME)):
        np.testing.assert_array_equal(net.infer("z", False, x=given), expected)
    for given, words in (
        (x * units.percent, "unit '%'"),
        (x * units.Jy, "unit 'Jy'"),
        ([x[0] * units.m, x[1]], "unit 'm'"),
        (nddata.CCDData(x, unit="adu"), "unit 'adu'"),
        (nddata.CCDData(x, unit="", mask=SOME), "masked values"),
        (nddata.NDData(x, mask=SOME), "masked values"),
        (masked.Masked(x, mask=SOME), "masked values"),
        (masked.Masked(x, mask=SOME) * units.one, "masked values"),
    ):
        with pytest.raises(NetError) as message:
            net.infer("z", False, x=given)
        one_line(message, "'x'", words)


def test_things_in_hdf5_files_that_are_no_arrays_to_be_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_group("group")
        file["empty"] = h5py.Empty("f4")
        file["texts"] = ["a", "b"]
        file["type"] = np.dtype("f4")
        file.create_dataset("x", data=np.ones((3, 9)), chunks=(1, 9), compression="gzip")
        place = file["x"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 9] = bytes(9)
    path.write_bytes(content)
    net = lk.Net(galaxy_net(), 2)

    def refused(x):
        for call in (
            lambda: net.forward(x=x),
            lambda: net.infer("z", x=x),
            lambda: net.evaluate({"x": x}),
            lambda: lk.find_inactive(net, x=x),
            lambda: lk.centre_biases(net, x=x),
        ):
            with pytest.raises(NetError) as message:
                call()
            one_line(message, "'x'")

    with h5py.File(path) as file:
        things = [file, *(file[name] for name in file)]
        for thing in things:  # the last is damaged
            refused(thing)
    for thing in things:
        refused(thing)


def test_arrays_are_handed_over_by_dlpack(xt):
    net = double(regression())
    expected = net.forward(**xt)
    given = {name: Handed(array) for name, array in xt.items()}
    assert net.forward(**given) == expected
    np.testing.assert_array_equal(net.infer("y", x=given["x"]), net.blobs["y"].data)
    assert net.evaluate(given)["loss"] == pytest.approx(expected, rel=1e-12)
    data = lk.layers.MemoryData("x", data=Handed(xt["x"]))
    np.testing.assert_array_equal(data.arrays[0], xt["x"])
    for array in (net.blobs["y"].data, net.params["h/weight"].data):  # and out, without a copy
        assert np.shares_memory(np.from_dlpack(Handed(array)), array)
    with pytest.raises(NetError, match=r"blob 'x': expected an array of numbers.*on a GPU"):
        net.forward(x=Handed(xt["x"], (2, 0)), t=xt["t"])


def test_arrays_on_a_gpu_are_handed_over_by_dlpack(xt, cupy_on_host, monkeypatch):
    taken = []

    def from_dlpack(given):
        taken.append(given)
        return cupy_on_host.asarray(given.array)

    monkeypatch.setattr(cupy_on_host, "from_dlpack", from_dlpack, raising=False)
    net = double(regression(), backend="cupy")
    expected = net.forward(**xt)
    given = {name: Handed(array, (2, 0)) for name, array in xt.items()}
    assert net.forward(**given) == expected
    assert len(taken) == 2
    net.infer("y", x=given["x"])
    assert len(taken) == 3


# Sharing.


def test_a_test_net_shares_the_parameters_of_the_training_net(rng):
    x = rng.random((ROWS, 9))
    layers = galaxy_net()
    net = double(layers, seed=1)
    test = double(layers, batch_size=20, phase="test", seed=2, share=net)
    for name, p in net.params.items():
        assert np.shares_memory(p.data, test.params[name].data)
    before = test.infer("x_mean", sample=False, x=x)
    solver = lk.SGD(net, rate=0.1)
    solver.step(x=x)
    after = test.infer("x_mean", sample=False, x=x)
    assert np.abs(after - before).max() > 1e-8
    fresh = double(layers, phase="test")
    for name, p in net.params.items():
        fresh.params[name].data[...] = p.data
    np.testing.assert_allclose(fresh.infer("x_mean", sample=False, x=x), after, rtol=1e-12)
    test.params["g/bias"].data += 1  # and the other way round
    assert (net.params["g/bias"].data == test.params["g/bias"].data).all()


def test_nets_can_share_a_part(xt, rng):
    """A net of fewer layers trains its share, and leaves the rest alone."""
    whole = double([*regression(), L.Dense("more", "h", units=2, l2=1.0)])
    run(whole, **xt)
    part = double(
        [x(), regression()[2], L.Input("u", shape=(7,)), L.SquareLoss("loss", "h", "u")],
        share=whole,
    )
    solver = lk.SGD(part, rate=0.1, momentum=0.0)
    before = {name: p.data.copy() for name, p in whole.params.items()}
    part.freeze("h/bias")
    solver.step(x=xt["x"], u=rng.random((ROWS, 7)))
    changed = {name for name, p in whole.params.items() if (p.data != before[name]).any()}
    assert changed == {"h/weight"}
    assert whole.params["h/bias"].trainable


def test_training_a_shared_part_equals_training_it_alone(xt):
    """Wherever its parameters, and so the solver's history of them, lie in the other's arena."""
    whole = double([L.Dense("before", "x", units=20), *regression()], seed=3)
    part, alone = double(regression(), share=whole), double(regression(), seed=3)
    solvers = lk.Adam(part), lk.Adam(alone)
    for _ in range(5):
        assert len({solver.step(**xt) for solver in solvers}) == 1
    for name, p in alone.params.items():
        np.testing.assert_array_equal(whole.params[name].data, p.data)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("names", ["h", ["h/*"], ("h/weight", "h/bias")])
def test_a_net_can_borrow_some_parameters_and_train_its_own(names, kernels, xt, tmp_path):
    """It trains as one whose parameters of these names are frozen, wherever they come from."""
    other = double([L.Dense("before", "x", units=20), *regression()], seed=3)
    net = double(regression(), share=other, share_only=names, seed=5, kernels=kernels)
    alone = double(regression(), seed=5, kernels=kernels)
    for name in ("h/weight", "h/bias"):
        alone.params[name].data[...] = other.params[name].data
    alone.freeze("h")
    before = {name: p.data.copy() for name, p in other.params.items()}
    other.forward(**xt)
    other.backward()
    diffs_before = diffs(other)
    solvers = lk.Adam(net, 0.1), lk.Adam(alone, 0.1)
    for _ in range(5):
        assert len({solver.step(**xt) for solver in solvers}) == 1
    for name, p in net.params.items():
        np.testing.assert_array_equal(alone.params[name].data, p.data)
        assert np.shares_memory(p.data, other.params[name].data) == name.startswith("h/")
    for name, p in other.params.items():
        np.testing.assert_array_equal(p.data, before[name])
        np.testing.assert_array_equal(p.diff, diffs_before[name])
    # Trained there, and seen here.
    lk.SGD(other, 0.1).step(**xt)
    assert (net.params["h/weight"].data == other.params["h/weight"].data).all()
    assert (net.params["h/weight"].data != before["h/weight"]).any()
    lk.save(tmp_path / "net.h5", net, solvers[0])
    lk.load(tmp_path / "net.h5", net, solvers[0])
    twice = double(regression(), share=net)
    np.testing.assert_array_equal(twice.params["h/weight"].data, net.params["h/weight"].data)
    loss = net.forward(**xt)
    assert lk.Adam(twice, 0.1).step(**xt) == loss
    for borrower in (net, twice):
        assert not borrower.params["h/weight"].trainable
        for unfreeze in (
            lambda net=borrower: net.unfreeze("h/weight"),
            lambda net=borrower: setattr(net.params["h/weight"], "trainable", True),
        ):
            with pytest.raises(NetError, match="'h/weight' belongs to another net"):
                unfreeze()
    own = net.rebuild()
    assert not np.shares_memory(own.params["h/weight"].data, other.params["h/weight"].data)
    own.unfreeze("h/weight")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": None}, ["give share="]),
        ({"share_only": "z"}, ["no parameter matches 'z'"]),
        ({"share_only": 3}, ["a name or pattern", "3"]),
        ({"share_only": ["h", 3]}, ["a pattern is a string", "3"]),
        ({"layers": [*regression()[:2], L.Dense("h", "x", units=8)]}, ["h/weight", "(5, 8)"]),
        ({"dtype": "float32"}, ["float64", "float32"]),
    ],
)
def test_what_cannot_be_borrowed(settings, words):
    settings = {"share": double(regression(), phase="test"), "share_only": "h", **settings}
    with pytest.raises(NetError) as message:
        lk.Net(**{"layers": regression(), "dtype": "float64", **settings})
    one_line(message, *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"layers": [*regression()[:2], L.Dense("h", "x", units=8)]},
            ["h/weight", "(5, 8)", "(5, 7)"],
        ),
        ({"layers": [*regression(), L.Dense("new", "h", units=2)]}, ["new/weight", "not in"]),
        ({"dtype": "float32"}, ["float64", "float32"]),
        ({"share": "test"}, ["no gradients", "training net"]),
    ],
    ids=["shape", "parameter", "dtype", "gradients"],
)
def test_nets_that_cannot_share(settings, words):
    settings = {"share": "train", **settings}
    settings["share"] = double(regression(), phase=settings["share"])
    with pytest.raises(NetError) as message:
        lk.Net(**{"layers": regression(), "dtype": "float64", **settings})
    one_line(message, *words)


def test_rebuilding_keeps_values_weights_freezing_and_state(rng):
    x = rng.random((ROWS, 9)).astype("float32")
    net = lk.Net(galaxy_net(), ROWS, seed=3)
    lk.Adam(net).step(x=x)
    net.freeze("f")
    net.layers["kl"].weight = 0.3
    double_net = net.rebuild(dtype="float64")
    assert double_net.state() == net.state()
    assert not double_net.params["f/bias"].trainable
    assert double_net.forward(x=x) == pytest.approx(net.forward(x=x), rel=1e-5)
    double_net.params["g/weight"].data += 1
    assert (net.params["g/weight"].data != double_net.params["g/weight"].data).all()
    assert net.rebuild(seed=9).run.seed == 9


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"seed": 0},
        {"seed": 2**63, "passes": 0},
        {"seed": 0, "passes": -1},
        {"seed": 0, "passes": 2**64 - 1},
        {"seed": 0.5, "passes": 0},
    ],
    ids=repr,
)
def test_what_is_no_state(state, rng):
    net = lk.Net(galaxy_net(), ROWS, seed=3)
    net.forward(x=rng.random((ROWS, 9)))
    before = net.state()
    with pytest.raises(NetError) as message:
        net.set_state(state)
    one_line(message, "state")
    assert net.state() == before
    net.set_state({"seed": -(2**63), "passes": 2**62})
    net.infer("x_mean", x=rng.random((2, 9)))
    assert np.isfinite(net.forward(x=rng.random((ROWS, 9))))


# Freezing.


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["h"], {"h/weight", "h/bias"}),
        (["h/weight"], {"h/weight"}),
        (["*/bias"], {"h/bias", "y/bias"}),
        (["[xy]"], {"y/weight", "y/bias"}),
        (["h/bias", "y"], {"h/bias", "y/weight", "y/bias"}),
        (["*"], {"h/weight", "h/bias", "y/weight", "y/bias"}),
    ],
)
def test_freezing_by_pattern(patterns, frozen, xt):
    net, free = double(regression()), double(regression())
    net.freeze(*patterns)
    assert {name for name, p in net.params.items() if not p.trainable} == frozen
    run(net, **xt)
    run(free, **xt)
    for name in set(net.params) - frozen:
        np.testing.assert_array_equal(net.params[name].diff, free.params[name].diff)
    net.unfreeze("*")
    run(net, **xt)
    assert_same(diffs(net), diffs(free))


def test_a_layer_named_like_a_path_is_frozen_by_its_name():
    net = lk.Net([L.Input("x", shape=(2,)), L.Dense("block/fc", "x", units=2)])
    net.freeze("block/fc")
    assert not any(p.trainable for p in net.params.values())


def test_a_layer_named_like_a_pattern_is_frozen_by_its_name():
    """As a pattern, "a[1]" would be a1 and not itself."""
    names = ["a[1]", "a1", "a*"]
    net = lk.Net([L.Input("x", shape=(2,)), *(L.Dense(name, "x", units=2) for name in names)])
    net.freeze("a[1]", "a*/bias")
    frozen = {name for name, p in net.params.items() if not p.trainable}
    assert frozen == {"a[1]/weight", "a[1]/bias", "a*/bias"}
    net.unfreeze("a?")
    net.freeze("*/weight")
    assert all(not p.trainable for name, p in net.params.items() if name.endswith("weight"))


def test_freezing_between_passes_of_fewer_rows(xt):
    net, free = double(regression()), double(regression())
    few = {name: a[:2] for name, a in xt.items()}
    for n in (net, free):
        run(n, **few)
    net.freeze("h")
    net.unfreeze("h")
    for n in (net, free):
        n.backward()
    assert_same(diffs(net), diffs(free))


def test_a_pattern_that_matches_nothing():
    net = lk.Net(regression())
    with pytest.raises(NetError, match="'g1'") as message:
        net.freeze("h", "g1")
    one_line(message, "h/weight")
    assert all(p.trainable for p in net.params.values()), "all or nothing"


# Inference.


def test_infer_runs_what_lies_between(rng):
    net = double(galaxy_net(), phase="test", batch_size=4)
    x, z = rng.random((11, 9)), rng.standard_normal((11, 2))

    def layer(name, values):
        return values @ net.params[f"{name}/weight"].data + net.params[f"{name}/bias"].data

    g = np.maximum(layer("g", x), 0)
    f = np.tanh(layer("f", z))
    mean, log_variance = net.infer(["z_mean", "z_log_variance"], x=x)
    np.testing.assert_allclose(mean, layer("z_mean", g), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(log_variance, layer("z_log_variance", g), rtol=1e-12, atol=1e-14)
    decoded = net.infer("x_mean", z=z)  # x is not needed
    np.testing.assert_allclose(decoded, layer("x_mean", f), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        net.infer("x_log_variance", f=f[:1]), layer("x_log_variance", f[:1]), rtol=1e-12, atol=1e-14
    )
    kl = net.infer("kl", z_mean=mean, z_log_variance=log_variance)
    np.testing.assert_allclose(
        kl,
        0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1),
        rtol=1e-10,
        atol=1e-14,  # the terms cancel where there is nearly no divergence
    )
    np.testing.assert_array_equal(net.infer("x", x=x), x)
    assert decoded.dtype == np.float64


@pytest.mark.parametrize("rows", [1, 4, 5, 8, 11])
def test_infer_takes_any_number_of_rows_in_batches(rows, rng):
    layers = galaxy_net()
    net, large = (double(layers, batch_size=n, phase="test") for n in (4, 20))
    x = rng.random((rows, 9))
    out, expected = (n.infer("x_mean", sample=False, x=x) for n in (net, large))
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
    assert out.shape == (rows, 9)


def test_infer_samples_unless_told_not_to(rng):
    net = double([x for x in galaxy_net() if x.name != "kept"][:5], phase="test")
    x = rng.random((ROWS, 9))
    mean, log_variance, z = net.infer(["z_mean", "z_log_variance", "z"], sample=False, x=x)
    np.testing.assert_array_equal(z, mean)
    net.forward(x=x)
    assert (net.blobs["z"].data != mean).all(), "the next pass samples again"
    draws = np.stack([net.infer("z", x=x) for _ in range(2000)])
    sd = np.exp(0.5 * log_variance)
    assert np.abs((draws.mean(axis=0) - mean) / (sd / np.sqrt(2000))).max() < 6
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=6 / np.sqrt(2 * 2000))


def test_infer_gives_copies(rng):
    net = double(galaxy_net(), phase="test")
    x = rng.random((ROWS, 9))
    first = net.infer("g", x=x)
    kept = first.copy()
    net.infer("g", x=x + 1)
    np.testing.assert_array_equal(first, kept)


def labelled(rng):
    data = [rng.random((10, 5)), rng.integers(0, 3, 10)]
    return [
        L.MemoryData("data", data=data, tops=["x", "label"]),
        L.Dense("y", "x", units=3),
        L.SoftmaxLoss("loss", "y", "label"),
    ]


def test_infer_leaves_the_data_layers_alone(rng):
    net = lk.Net(labelled(rng), batch_size=4)
    x = rng.random((3, 5)).astype("float32")
    net.infer("y", x=x)
    assert net.layers["data"].position == 0
    with pytest.raises(NetError, match="'label' is needed") as message:
        net.infer("loss", x=x)  # the data layer would overwrite x
    one_line(message, "label=")
    assert net.infer("loss", x=x, label=np.zeros(3)).shape == (3,)


@pytest.mark.parametrize(
    ("outputs", "given", "words"),
    [
        ("z_maen", {"x": (2, 9)}, ["'z_maen'", "'z_mean'"]),
        ("z", {"y": (2, 9)}, ["'y'"]),
        ("x_mean", {"z_mean": (2, 2)}, ["'x' is needed", "x="]),
        ("z", {}, ["infer", "x="]),
        ("z", {"z_mean": (2, 2), "z_log_variance": (3, 2)}, ["rows", "2", "3"]),
        ("z", {"x": (0, 9)}, ["rows", "0"]),
        ("z", {"x": (2, 8)}, ["'x'", "(n, 9)", "(2, 8)"]),
        ("z", {"x": 3.0}, ["'x'", "(n, 9)", "3.0"]),
        ("z", {"x": np.array(2.0)}, ["'x'", "(n, 9)", "(2.)"]),
        ("z", {"x": [[1.0] * 9, [1.0] * 8]}, ["'x'", "all rows of one shape"]),
        ("z", {"x": [["1"] * 9]}, ["'x'", "array of numbers", "<U1"]),
    ],
    ids=[
        "output",
        "given",
        "needed",
        "nothing",
        "rows",
        "no rows",
        "width",
        "number",
        "no axes",
        "ragged",
        "words",
    ],
)
def test_inferences_that_cannot_be_made(outputs, given, words, rng):
    net = lk.Net(galaxy_net(), phase="test")
    with pytest.raises(NetError) as message:
        net.infer(
            outputs,
            **{
                name: np.zeros(value) if isinstance(value, tuple) else value
                for name, value in given.items()
            },
        )
    one_line(message, *words)
    assert net.run.sample


ITSELF: list = []
ITSELF += [ITSELF, ITSELF]


@pytest.mark.parametrize("x", [[[1.0] * 9, [1.0]], [["a"] * 9], None, [[1j] * 9], ITSELF], ids=repr)
def test_inputs_that_are_no_array_of_numbers(x):
    net = lk.Net(galaxy_net())
    with pytest.raises(NetError, match="'x'") as message:
        net.forward(x=x)
    one_line(message, "array of numbers")
    net.forward(x=np.zeros((2, 9)))
    with pytest.raises(NetError, match="'z'") as message:
        net.backward(z=[[1.0], [1.0, 2.0]])
    one_line(message, "array of numbers")


@pytest.mark.parametrize(
    ("layers", "settings", "words"),
    [
        (L.Input("x", shape=(2,)), {}, ["list of layers", "Input('x'"]),
        (None, {}, ["list of layers", "None"]),
        ([L.Input("x", shape=(2,))], {"seed": None}, ["seed", "whole number", "None"]),
        ([L.Input("x", shape=(2,))], {"seed": 1.5}, ["seed", "1.5"]),
        ([L.Input("x", shape=(2,))], {"batch_size": "64"}, ["batch_size", "'64'"]),
        ([L.Input("x", shape=(2,))], {"batch_size": 0}, ["batch_size", "at least 1", "got 0"]),
    ],
)
def test_what_no_net_can_be_made_of(layers, settings, words):
    with pytest.raises(NetError) as message:
        lk.Net(layers, **settings)
    one_line(message, *words)


def test_infer_never_overwrites_what_is_given():
    net = lk.Net(
        [L.Input("x", shape=(4,)), L.Slice("s", "x", tops=["a", "b"]), L.Add("y", "a", "b")]
    )
    with pytest.raises(NetError, match="'s'") as message:
        net.infer("y", a=np.zeros((1, 2)), x=np.zeros((1, 4)))
    one_line(message, "b=")
    total = net.infer("y", a=np.ones((1, 2)), b=np.full((1, 2), 2.0))
    np.testing.assert_array_equal(total, 3)


# Randomness.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_one_net(rng, dtype):
    x = rng.random((ROWS, 9))
    seed = int(rng.integers(1, 2**31))
    nets = [lk.Net(galaxy_net(), ROWS, dtype=dtype, seed=s) for s in (seed, seed, seed + 1)]
    solvers = [lk.Adam(net, clip=1.0) for net in nets]
    losses = [[solver.step(x=x) for _ in range(5)] for solver in solvers]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)
    for name, p in nets[0].params.items():
        if name.endswith("weight"):
            assert (p.data != nets[2].params[name].data).any()


def test_each_pass_draws_anew(rng):
    net = double(galaxy_net())
    x = rng.random((ROWS, 9))
    losses = [net.forward(x=x) for _ in range(5)]
    assert len(set(losses)) == 5
    net.set_state({"seed": 0, "passes": 2})
    assert net.forward(x=x) == losses[2]


def test_layers_of_one_shape_draw_numbers_of_their_own():
    net = lk.Net([L.Input("x", shape=(4,)), L.Dense("a", "x", units=4), L.Dense("b", "x", units=4)])
    assert (net.params["a/weight"].data != net.params["b/weight"].data).all()


# Errors, each in one line that names the layer.


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def x():
    return L.Input("x", shape=(5,))


def forgetful():
    class Forgetful(lk.Layer):
        def setup(self, shapes):
            return []

    return Forgetful("f", ["x"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: [x(), L.ReLU("a", "x", tops="y"), L.Tanh("b", "x", tops="y")],
            ["'y'", "'a'", "'b'", "tops"],
        ),
        (lambda: [x(), L.Slice("s", "x", tops=["a", "a"])], ["'a'", "'s'"]),
        (lambda: [x(), L.ReLU("a", "x"), L.Tanh("a", "x", tops="y")], ["'a'", "two layers"]),
        (
            lambda: [x(), L.Dense("hidden", "x", units=2), L.ReLU("r", "hiden")],
            ["'r' (ReLU)", "'hiden'", "did you mean 'hidden'"],
        ),
        (lambda: [x(), L.ReLU("r", "nothing_like_it")], ["'r'", "'nothing_like_it'", "'x'"]),
        (
            lambda: [
                x(),
                L.Add("a", "x", "c"),
                L.ReLU("b", "a"),
                L.ReLU("c", "b"),
                L.ReLU("after", "c"),
            ],
            ["circle", "'a' -> 'b' -> 'c' -> 'a'"],
        ),
        (lambda: [L.ReLU("a", "a")], ["circle", "'a' -> 'a'"]),
        (
            lambda: [x(), L.Input("t", shape=(4,)), L.SquareLoss("loss", "x", "t")],
            ["'loss' (SquareLoss)", "(5,)", "(4,)", "x, t"],
        ),
        (
            lambda: [x(), L.Dense("y", "x", unit=3)],
            ["'y' (Dense)", "'unit'", "(name, bottom, units"],
        ),
        (lambda: [x(), L.ReLU("y", "x", slope=3)], ["'y' (ReLU)", "slope"]),
        (lambda: [x(), L.Dense("y", "x")], ["'y' (Dense)", "units"]),
        (lambda: [x(), L.Dense("y", "x", units=0)], ["'y' (Dense)", "units", "0"]),
        (lambda: [x(), L.Dense("y", "x", units=2, neuron="rely")], ["'rely'", "relu"]),
        (
            lambda: [x(), L.Dense("y", "x", units=2, weight="hee")],
            ["'y' (Dense)", "weight", "'hee'"],
        ),
        (lambda: [x(), L.Dense("y", ["x"], units=2)], ["'y' (Dense)", "['x']", "non-empty text"]),
        (lambda: [x(), L.Dense("", "x", units=2)], ["Dense", "non-empty"]),
        (lambda: [x(), L.Slice("s", "x", tops=["a", "b"])], ["'s' (Slice)", "5"]),
        (lambda: [x(), forgetful()], ["'f' (Forgetful)", "0 tops"]),
        (lambda: [], ["empty"]),
        (lambda: [x(), "y"], ["'y'", "not a Layer"]),
        (lambda: [x(), L.Dense], ["Dense", "not a Layer"]),
    ],
    ids=[
        "duplicate top",
        "duplicate top of one layer",
        "duplicate name",
        "misspelt bottom",
        "missing bottom",
        "cycle",
        "self",
        "shape mismatch",
        "unknown setting",
        "unknown setting of a neuron",
        "missing setting",
        "bad setting",
        "unknown neuron",
        "unknown initialiser",
        "bottom in a list",
        "no name",
        "uneven slice",
        "setup",
        "no layers",
        "not a layer",
        "a class",
    ],
)
def test_layers_that_cannot_be_wired(make, words):
    with pytest.raises(NetError) as message:
        lk.Net(make())
    one_line(message, *words)
    assert isinstance(message.value, LayerkitError)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"phase": "training"}, ["phase", "'training'", "'train', 'test'"]),
        ({"gradients": "some"}, ["gradients", "'some'", "'parameters', 'all', 'none'"]),
        ({"dtype": "float16"}, ["dtype", "'float16'", "'float32' or 'float64'"]),
        ({"dtype": "float99"}, ["dtype", "'float99'", "'float32' or 'float64'"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
    ],
)
def test_settings_of_a_net_that_cannot_be(settings, words):
    with pytest.raises(NetError) as message:
        lk.Net(regression(), **settings)
    one_line(message, *words)


def test_dtypes_can_be_given_as_types():
    assert lk.Net(regression(), dtype=np.float64).dtype == lk.Net(regression(), dtype=float).dtype


@pytest.mark.parametrize("dtype", [">f4", "<f8", np.dtype(">f8"), "single", np.longdouble, "f"])
def test_a_dtype_is_that_of_the_processor(dtype, xt):
    """Bytes in another order would be read by kernels as other numbers."""
    if np.dtype(dtype).itemsize > 8:
        with pytest.raises(NetError, match="dtype"):
            lk.Net(regression(), dtype=dtype)
        return
    net, plain = (
        lk.Net(regression(), ROWS, dtype=dtype),
        lk.Net(regression(), ROWS, dtype=np.dtype(dtype).name),
    )
    assert net.dtype.isnative
    losses = [lk.Adam(n).step(**xt) for n in (net, plain)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(net.arena.data, plain.arena.data)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dtype": None}, ["dtype", "None"]),
        ({"dtype": 5}, ["dtype", "5"]),
        ({"dtype": "f4,f4"}, ["dtype"]),
        ({"dtype": {"names": 1}}, ["dtype"]),
        ({"batch_size": True}, ["batch_size", "True"]),
        ({"batch_size": 4.0}, ["batch_size", "4.0"]),
        ({"batch_size": 2**50}, ["batch_size", "2147483647"]),
        ({"seed": False}, ["seed", "False"]),
        ({"seed": "1"}, ["seed"]),
        ({"seed": np.ones((30, 30))}, ["seed"]),
        ({"share": 5}, ["share", "another net", "5"]),
        ({"tf32": "no"}, ["tf32", "'no'"]),
        ({"phase": None}, ["phase"]),
        ({"phase": ["train"]}, ["phase"]),
        ({"kernels": True}, ["kernels"]),
        ({"gradients": 1}, ["gradients"]),
        ({"backend": "tpu"}, ["tpu"]),
        ({"backend": 3}, ["3"]),
        ({"layers": "x"}, ["list of layers"]),
        ({"layers": 3}, ["list of layers"]),
        ({"layers": {"x": 1}}, ["'x'", "not a Layer"]),
    ],
)
def test_settings_of_other_kinds(settings, words):
    with pytest.raises(LayerkitError) as message:
        lk.Net(**{"layers": regression(), **settings})
    one_line(message, *words)


def test_batch_sizes_and_seeds_may_be_numpys(xt):
    net = lk.Net(regression(), np.uint8(ROWS), dtype="float64", seed=np.int64(3))
    assert net.forward(**xt) == double(regression(), seed=3).forward(**xt)
    assert type(net.run.batch_size) is type(net.run.seed) is int
    assert lk.Net(iter(regression()), 4).run.batch_size == 4


# Names of inputs.


@pytest.mark.parametrize(
    "name",
    ["self", "outputs", "count", "net", "given", "inputs", "args", "settings", "method", "plan"],
)
def test_inputs_may_be_called_like_arguments(name, rng):
    """In every call that takes inputs by name."""
    layers = [
        L.Input(name, shape=(3,)),
        L.Dense("y", name, units=3),
        L.SquareLoss("loss", "y", name),
    ]
    net, plain = (
        lk.Net(layers, ROWS, gradients="all"),
        lk.Net(
            [L.Input("x", shape=(3,)), L.Dense("y", "x", units=3), L.SquareLoss("loss", "y", "x")],
            ROWS,
        ),
    )
    x = rng.standard_normal((ROWS, 3)).astype("float32")
    given = {name: x}
    assert net.forward(**given) == plain.forward(x=x)
    net.backward(**given)  # of an objective with derivative x
    np.testing.assert_array_equal(net.infer("y", **given), plain.infer("y", x=x))
    solvers = [lk.SGD(n, 0.01) for n in (net, plain)]
    assert solvers[0].step(**given) == solvers[1].step(x=x)
    np.testing.assert_array_equal(solvers[0].steps(2, **given), solvers[1].steps(2, x=x))
    solvers[0].profile(1, **given)
    assert f"input {name}" in lk.check_gradients(net, **given).errors
    assert f"input {name}" in lk.check_gradients(L.Tanh("y", name), **given).errors


@pytest.mark.parametrize(
    "name", ["sample", "iterations", "tolerance", "directions", "elements", "seed"]
)
def test_names_that_calls_use_otherwise_are_refused(name):
    for make in (lambda: L.Input(name, shape=(3,)), lambda: L.Input("x", shape=(3,), tops=name)):
        with pytest.raises(NetError) as message:
            make()
        one_line(message, "(Input)", f"{name}=", "another name")
    L.Input(name, shape=(3,), tops="x")


def test_a_blob_called_sample_cannot_be_given_to_infer(rng):
    net = lk.Net([L.Input("x", shape=(3,)), L.Add("sample", "x"), L.Add("y", "sample")])
    with pytest.raises(NetError) as message:
        net.infer("y", sample=rng.random((40, 3)))
    one_line(message, "sample=", "True or False")
    assert net.infer("sample", x=np.ones((2, 3))).shape == (2, 3)


def test_an_input_goes_by_the_name_of_its_blob_everywhere(rng):
    layers = [
        L.Input("layer", shape=(3,), tops="x"),
        L.Dense("y", "x", units=3),
        L.SquareLoss("loss", "y", "x"),
    ]
    net = lk.Net(layers, ROWS, dtype="float64", gradients="all")
    x = rng.standard_normal((ROWS, 3))
    expected = x @ net.params["y/weight"].data + net.params["y/bias"].data
    assert net.forward(x=x) == pytest.approx(0.5 * ((expected - x) ** 2).sum() / ROWS)
    net.backward(x=np.zeros_like(x))
    np.testing.assert_allclose(net.infer("y", x=x), expected, rtol=1e-13)
    assert lk.SGD(net, 1e-9).step(x=x) == net.losses["loss"]
    assert "input x" in lk.check_gradients(net, x=x).errors
    assert "input x" in lk.check_gradients(layers, x=x).errors
    lk.Net(lk.with_data(layers, L.MemoryData("x", data=x)), ROWS).forward()
    for call in (net.forward, lk.SGD(net, 0.1).step):
        with pytest.raises(NetError) as message:
            call(layer=x)
        one_line(message, "'layer'", "'x'")


# Nets made from one list have nothing in common.


def settings_of(layer):
    """All lists, dictionaries, sets and arrays that can be reached from a layer's attributes."""
    found, waiting = [], [value for name, value in vars(layer).items() if name != "run"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | dict | set | np.ndarray):
            found.append(value)
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, lk.Layer):
            waiting += vars(value).values()
    return found


class Mutable(lk.Layer):
    """Has settings of every kind, and changes them while it runs."""

    def __init__(self, name, bottom, *, steps, table, names, options, inner):
        super().__init__(name, [bottom])
        self.steps, self.table, self.names, self.options = steps, table, names, options
        self.inner = inner
        self.seen = []

    def setup(self, shapes):
        self.steps.append(len(self.steps))
        return shapes

    def forward(self, bottoms, tops):
        self.seen.append(1)
        self.table += 1
        self.names.add(len(self.names))
        self.options["calls"][0] += 1
        self.inner.slope += 1
        total = len(self.seen) + self.table[0] + len(self.names) + self.options["calls"][0]
        tops[0].data[...] = total + len(self.steps) + self.inner.slope


def test_settings_do_not_leak_between_nets(rng):
    steps, table, names, options = [0], np.zeros(3), {0}, {"calls": [0]}
    inner = L.LeakyReLU("i", "x", slope=1.0)
    layers = [
        L.Input("x", shape=(1,)),
        Mutable("y", "x", steps=steps, table=table, names=names, options=options, inner=inner),
    ]
    x = np.zeros((2, 1))
    expected = [n + n + (1 + n) + n + 2 + (1 + n) for n in (1, 2, 3)]
    for net in (lk.Net(layers, 2), lk.Net(layers, 2), lk.Net(layers, 2).rebuild()):
        for total in expected:
            net.forward(x=x)
            assert net.blobs["y"].data.tolist() == [[total], [total]]
    assert (steps, table.tolist(), names, options) == ([0], [0, 0, 0], {0}, {"calls": [0]})
    assert inner.slope == 1
    # Nor does a change of the list, once a net is made of it, show in what is rebuilt from it.
    net = lk.Net(layers, 2)
    steps.append(5)
    layers[1].options["calls"][0] = 9
    rebuilt = net.rebuild()
    rebuilt.forward(x=x)
    assert rebuilt.blobs["y"].data[0, 0] == expected[0]


def test_no_layer_shares_settings_with_its_copies(rng):
    layers = [
        *galaxy_net(),
        L.Slice("parts", "x", tops=["a", "b", "c"], sizes=[2, 3, 4]),
        L.Dense("leaky", "a", units=3, neuron="leaky_relu"),
        L.Concat("both", "a", "b"),
        L.MemoryData("data", data=[rng.random((5, 2)), np.arange(5)], tops=["d", "e"]),
    ]
    one, other = lk.Net(layers, 4), lk.Net(layers, 4)
    for layer in layers:
        for net in (one, other):
            mine = {id(v) for v in settings_of(net.layers[layer.name])}
            theirs = [v for v in settings_of(layer) if id(v) in mine]
            assert all(any(v is a for a in layer.arrays) for v in theirs if layer.is_source)
            assert layer.is_source or not theirs
    one.layers["leaky"].neuron.slope = 9.0
    assert other.layers["leaky"].neuron.slope == layers[-3].neuron.slope != 9


def test_layers_of_a_net_make_no_other_net():
    """Their kernels and parameters are those of the first."""
    net = lk.Net(regression())
    with pytest.raises(NetError) as message:
        lk.Net(list(net.layers.values()))
    one_line(message, "'x' (Input)", "net.descriptions")
    assert lk.Net(net.descriptions).layers.keys() == net.layers.keys()


class Logged(L.Input):
    """An Input of a user's own, which can have attributes of any name."""


def test_what_cannot_be_copied_is_shared(tmp_path):
    with open(tmp_path / "log", "w") as file:
        layer = Logged("x", shape=(2,))
        layer.file = file
        assert lk.Net([layer]).layers["x"].file is file


# Plausible calls that cannot be right.


class Odd(lk.initializers.Initializer):
    """An initialiser of a user's own that draws what it is told to."""

    def __init__(self, values):
        self.values = values

    def draw(self, shape, normal):
        return self.values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones(7), ["(5, 7)", "(7,)"]),
        (1.0, ["(5, 7)", "()"]),
        (np.ones((7, 5)), ["(7, 5)"]),
        (np.ma.masked_equal(np.ones((5, 7)), 1), ["masked"]),
        (np.ones((5, 7), complex), ["complex"]),
        (None, ["object"]),
        (np.full((5, 7), 1e39), ["1e+39", "float32"]),
    ],
    ids=["a row", "a number", "transposed", "masked", "complex", "nothing", "large"],
)
def test_initial_values_of_another_shape_or_kind(values, words):
    layers = regression()
    layers[2] = L.Dense("h", "x", units=7, weight=Odd(values))
    with pytest.raises(NetError) as message:
        lk.Net(layers)
    one_line(message, "'h/weight'", *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: net.freeze(5), ["pattern", "5"]),
        (lambda net: net.freeze(["h"]), ["['h']"]),
        (lambda net: net.unfreeze(None), ["pattern", "None"]),
        (lambda net: net.infer(5, x=np.ones((2, 5))), ["infer", "5"]),
        (lambda net: net.infer(None, x=np.ones((2, 5))), ["infer", "None"]),
        (lambda net: net.infer(["h", 3], x=np.ones((2, 5))), ["infer", "3"]),
        (lambda net: net.infer("h", sample="no", x=np.ones((2, 5))), ["sample=", "'no'"]),
        (lambda net: net.set_state({}), ["'seed'", "None"]),
        (lambda net: net.set_state({"seed": 1, "passes": 1.5}), ["'passes'", "1.5"]),
        (lambda net: net.set_state({"seed": 1, "passes": -1}), ["'passes'", "-1"]),
        (lambda net: net.set_state({"seed": "1", "passes": 1}), ["'seed'"]),
        (lambda net: lk.Adam(net).steps(1.0), ["count", "1.0"]),
        (lambda net: lk.Adam(net).steps("2"), ["count", "'2'"]),
        (lambda net: lk.Adam(net).steps(True), ["count", "True"]),
        (lambda net: lk.check_gradients(5), ["5"]),
        (lambda net: lk.check_gradients([net]), ["list"]),
        (lambda net: lk.check_gradients(L.Tanh, x=np.ones((2, 3))), ["Tanh"]),
        (lambda net: lk.check_gradients(net, tolerance=np.nan), ["tolerance", "nan"]),
        (lambda net: lk.check_gradients(net, tolerance=np.inf), ["tolerance", "inf"]),
        (lambda net: lk.check_gradients(net, tolerance=0), ["tolerance", "0"]),
        (lambda net: lk.check_gradients(net, tolerance="1"), ["tolerance", "'1'"]),
        (lambda net: lk.check_gradients(net, directions=-1), ["directions", "-1"]),
        (lambda net: lk.check_gradients(net, elements=1.5), ["elements", "1.5"]),
        (lambda net: lk.check_gradients(net, seed=-2), ["seed", "-2"]),
        (lambda net: lk.check_gradients(net, elements=0, directions=0), ["both 0"]),
    ],
    ids=range(25),
)
def test_arguments_of_another_kind(call, words):
    net = lk.Net(regression(), 2)
    state = net.state()
    with pytest.raises(NetError) as message:
        call(net)
    one_line(message, *words)
    assert net.state() == state


PICTURES = np.random.default_rng(5).normal(size=(4, 6, 5, 3))


def convolution():
    """Convolve pictures with the channels first."""
    return [L.Input("x", shape=(3, 6, 5)), L.Convolution("c", "x", channels=2, kernel=3)]


def test_axes_in_another_order_are_refused():
    """Pictures with the channels last have as many numbers, but in another order."""
    net = lk.Net(convolution(), 4, phase="test")
    right = PICTURES.transpose(0, 3, 1, 2)
    values = net.infer("c", x=right)
    for flat in (right.reshape(4, -1), right.reshape(4, 3, 30), right[:, None]):
        np.testing.assert_array_equal(net.infer("c", x=flat), values)
    for call in (
        lambda: net.infer("c", x=PICTURES),
        lambda: net.forward(x=PICTURES),
        lambda: net.infer("c", x=right.transpose(0, 1, 3, 2)),
        lambda: lk.Net(lk.with_data(convolution(), L.MemoryData("x", data=PICTURES)), 4),
    ):
        with pytest.raises(NetError) as message:
            call()
        one_line(message, "'x'", "another order")


def test_infer_says_what_it_was_given():
    """The shape as given, not that of a batch of it; an example alone needs the batch axis."""
    net = lk.Net(regression(), 2)
    for given, words in (
        (np.ones(5), ["(n, 5)", "(5,)", "array[None]"]),
        (np.ones((9, 4)), ["(9, 4)"]),
        (np.ones((0, 5)), ["at least 1", "0"]),
    ):
        with pytest.raises(NetError) as message:
            net.infer("h", x=given)
        one_line(message, *words)


ALIKE = "plumless", "buckeroo"  # two words with the same CRC-32
assert zlib.crc32(ALIKE[0].encode()) == zlib.crc32(ALIKE[1].encode())


class Jitter(lk.Layer):
    """A layer of a user's own that draws noise."""

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])
        self.stream = 7  # of no meaning to the net

    def setup(self, shapes):
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = bottoms[0].data + self.normal(bottoms[0].data.shape)


@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize(
    "kind",
    [
        lambda name: L.Reparameterize(name, "x", "x"),
        lambda name: L.Dropout(name, "x"),
        lambda name: Jitter(name, "x"),
        lambda name: L.MemoryData(name, data=np.ones((5, 3)), tops=f"top of {name}"),
    ],
)
def test_layers_that_would_draw_equal_noise_are_refused(kind, kernels):
    def layers(*names):
        return [L.Input("x", shape=(3,)), *map(kind, names)]

    x = np.ones((2, 3))
    with pytest.raises(NetError, match="'plumless' and 'buckeroo' would draw the same random num"):
        lk.Net(layers(*ALIKE), 2, kernels=kernels).forward(x=x)
    for names in (ALIKE[:1], ALIKE[1:], ("plumless", "other")):  # alone each is as good as any
        lk.Net(layers(*names), 2, kernels=kernels).forward(x=x)


def test_parameters_that_would_be_drawn_equal_are_refused():
    def layers(**settings):
        return [L.Input("x", shape=(3,)), *(L.Dense(n, "x", units=3, **settings) for n in ALIKE)]

    with pytest.raises(NetError, match="'plumless/weight' and 'buckeroo/weight' would draw"):
        lk.Net(layers())
    lk.Net(layers(weight=0.5))  # nothing is drawn
    net = lk.Net([L.Input("x", shape=(3,)), *(L.ReLU(n, "x") for n in ALIKE)])
    net.forward(x=np.ones((2, 3)))


def test_a_rebuilt_net_has_the_settings_that_its_layers_were_given(rng):
    layers = [
        L.Input("x", shape=(6,)),
        L.Dense("h", "x", units=5, neuron="leaky_relu"),
        L.ELU("e", "h"),
        L.Dense("m", "e", units=6),
        L.Dense("v", "e", units=6),
        L.Dropout("d", "e", ratio=0.9),
        L.Dense("s", "d", units=6),
        L.StudentReconstruction("loss", "x", "m", "v", "s"),
    ]
    net = lk.Net(layers, 4, dtype="float64")
    net.layers["h"].neuron.slope = 0.3
    net.layers["e"].alpha, net.layers["d"].ratio = 2.5, 0.0
    net.layers["loss"].degrees, net.layers["loss"].floor = 3.5, 0.7
    net.layers["loss"].weight = 0.4
    net.params["m/weight"].l2 = 0.6
    net.params["h/bias"].trainable = False
    again, x = net.rebuild(), rng.standard_normal((4, 6))
    assert again.forward(x=x) == net.forward(x=x)
    assert not again.params["h/bias"].trainable


def test_a_weight_that_float32_cannot_hold_is_not_rebuilt():
    net = lk.Net([L.Input("x", shape=(1,)), L.Dense("y", "x", units=2)], 1, dtype="float64")
    w = net.params["y/weight"].data
    for wrong in (1e39, 1e-50):
        w[...] = wrong
        with (
            pytest.raises(lk.errors.NetError, match="parameter 'y/weight'"),
            np.errstate(all="raise"),
        ):
            net.rebuild(dtype="float32")
    w[...] = 1, 1e-50  # where the other does not matter
    with np.errstate(all="raise"):
        assert net.rebuild(dtype="float32").params["y/weight"].data.tolist() == [[1, 0]]


DECIDED = [
    (L.MemoryData("x", data=np.zeros((3, 2))), "repeat", 2),
    (L.MemoryData("x", data=np.zeros((3, 2))), "arrays", (np.ones((3, 2)),)),
    (L.MemoryData("x", data=np.zeros((3, 2))), "count", 2),
    (L.ImagePose("y", "x", side=3, size=1.0), "side", 4),
    (L.ImagePose("y", "x", side=3, size=1.0), "latents", 2),
    (L.SpatialTransform("y", "x", "p", side=3), "side", 4),
    (L.Accuracy("y", "x", "p"), "top", 2),
]


@pytest.mark.parametrize(("layer", "name", "value"), DECIDED, ids=lambda v: str(v)[:30])
def test_settings_that_only_the_making_of_a_net_looks_at(layer, name, value):
    inputs = [L.Input("x", shape=(9,)), L.Input("p", shape=() if name == "top" else (4,))]
    net = lk.Net([layer, *(i for i in inputs if i.name in layer.bottoms)], 2)
    with pytest.raises(lk.errors.LayerkitError, match=name):
        setattr(net.layers[layer.name], name, value)


def test_images_that_are_not_square_cannot_be_turned_later_either():
    net = lk.Net([L.MemoryData("x", data=np.zeros((3, 2, 4)))], 2)
    net.layers["x"].augment = "dihedral"
    with pytest.raises(lk.errors.NetError, match="square images"):
        net.forward()
    net = lk.Net([L.MemoryData("x", data=np.arange(12.0).reshape(3, 2, 2), shuffle=False)], 3)
    net.layers["x"].augment = "dihedral"
    net.forward()
    assert sorted(net.blobs["x"].data[1].ravel()) == [4, 5, 6, 7]


def test_the_likelihood_follows_its_degrees_of_freedom(rng):
    net = lk.Net(
        [
            *(L.Input(n, shape=(3,)) for n in "xmv"),
            L.StudentReconstruction("loss", "x", "m", "v", degrees=6.0, floor=0.0),
        ],
        2,
        dtype="float64",
    )
    x, m, v = rng.standard_normal((3, 2, 3))
    for degrees in (6.0, 3.0, 50.0):
        net.layers["loss"].degrees = degrees
        scale = np.sqrt(np.exp(v) * (degrees - 2) / degrees)
        expected = -stats.t.logpdf(x, degrees, m, scale).sum(axis=1).mean()
        assert net.forward(x=x, m=m, v=v) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("names", "borrows"), [("bn", True), ("h", False), (["bn/gain"], False)])
def test_a_layer_that_borrows_all_its_parameters_borrows_its_running_statistics(
    rng, names, borrows
):
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("h", "x", units=4),
        L.BatchNorm("bn", "h"),
        L.Dense("y", "bn", units=2),
    ]
    net = lk.Net([*layers, L.Input("t", shape=(2,)), L.SquareLoss("loss", "y", "t")], 8)
    lk.SGD(net, 0.1).step(x=rng.standard_normal((8, 3)), t=rng.standard_normal((8, 2)))
    part = lk.Net(layers, 8, phase="test", share=net, share_only=names)
    for name, its in net.statistics.items():
        assert np.shares_memory(part.statistics[name].data, its.data) == borrows


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_a_net_that_noise_feeds_infers_as_many_rows_as_are_asked_for(kernels):
    layers = [L.Normal("z", shape=(3,)), L.Dense("x", "z", units=2)]
    net = lk.Net(layers, 8, dtype="float64", kernels=kernels)
    z, x = net.infer(["z", "x"], count=19)
    assert z.shape == (19, 3)
    assert len(np.unique(z)) == z.size, "batches draw their own noise"
    w, b = net.params["x/weight"].data, net.params["x/bias"].data
    np.testing.assert_allclose(x, z @ w + b, rtol=1e-12)
    assert net.infer("x", count=np.int64(1)).shape == (1, 2)
    np.testing.assert_array_equal(net.infer("z", sample=False, count=3), np.zeros((3, 3)))
    for count in (0, -1, 2.5, True, "3"):
        with pytest.raises(NetError, match="infer: count must be a whole number, at least 1"):
            net.infer("x", count=count)
    with pytest.raises(NetError, match="count="):
        net.infer("x")
    with pytest.raises(NetError, match=r"count=3 says .* 'z' came"):
        net.infer("x", count=3, z=z)
    needs = lk.Net([L.Input("z", shape=(3,)), L.Dense("x", "z", units=2)], 8)
    with pytest.raises(NetError, match=r"'z' is needed .* give z="):
        needs.infer("x", count=3)
    counted = lk.Net([L.Input("count", shape=()), L.Add("y", "count")], 2)
    np.testing.assert_array_equal(counted.infer("y", count=[3.0, 4.0]), [3, 4])


@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_a_net_that_is_dropped_is_gone_at_once(kernels, rng):
    """Without Python's collector, which counts objects and lets many large nets pile up."""
    x = rng.normal(size=(20, 300))
    layers = [
        L.MemoryData("x", data=x),
        L.Dense("h", "x", units=300, neuron="relu"),
        [L.Dropout("d", "h"), L.Dense("y", "d", units=300)],
        L.SquareLoss("loss", "y", "x"),
    ]
    gc.collect()
    gc.disable()
    try:
        net = lk.Net(layers, batch_size=4, kernels=kernels)
        solver = lk.Adam(net, 1e-3, ema=0.9)
        watched = lk.Net([*layers[1:], L.Input("x", shape=(300,))], 4, phase="test", share=net)
        validate = lk.breaks.Validate(watched, {"x": x}, every=2)
        trainer = lk.Trainer(solver, [validate])
        trainer.run(steps=4)
        solver.steps(2)
        net.infer("y", x=x)
        parts = [weakref.ref(o) for o in (net, watched, solver, net.arena)]
        del net, watched, solver, validate, trainer
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()
