"""Layers of one's own that break the contract: named in one line, and never a wrong gradient."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import ContractError, GradientError, NetError

ROWS = 4


class Twice(lk.Layer):
    """y = 2 w x, as the contract has it; what is wrong is written over it."""

    def __init__(self, name, bottom, **changes):
        super().__init__(name, bottom)
        for what, function in changes.items():
            setattr(self, what, function)

    def setup(self, shapes):
        self.w = self.parameter("w", (1,), 1.0)
        self.room = self.buffer(shapes[0])
        return self.declare(shapes)

    def forward(self, bottoms, tops):
        self.room.data[...] = 2 * bottoms[0].data
        self.ahead(self, bottoms, tops)

    def backward(self, bottoms, tops):
        self.w.diff[...] = (tops[0].diff * self.room.data).sum()
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = 2 * self.w.data * tops[0].diff
        self.back(self, bottoms, tops)

    def declare(self, shapes):
        return shapes

    @staticmethod
    def ahead(layer, bottoms, tops):
        tops[0].data[...] = layer.w.data * layer.room.data

    @staticmethod
    def back(layer, bottoms, tops):
        return None


class Returns(Twice):
    """Returns what it should have written."""

    def forward(self, bottoms, tops):
        return 2 * bottoms[0].data


class WritesAndReturns(Twice):
    def forward(self, bottoms, tops):
        super().forward(bottoms, tops)
        return tops[0].data


class ReturnsDiff(Twice):
    def backward(self, bottoms, tops):
        super().backward(bottoms, tops)
        return bottoms[0].diff


def rebind(what, of):
    """Assigns a new array of the right values to `what` of the object that `of` finds."""

    def spoil(layer, bottoms, tops):
        Twice.ahead(layer, bottoms, tops)
        target = of(layer, bottoms, tops)
        setattr(target, what, getattr(target, what) * 1)

    return spoil


def replace_top(layer, bottoms, tops):
    Twice.ahead(layer, bottoms, tops)
    tops[0] = lk.Blob("y", tops[0].data * 1)


def part_of_the_top(layer, bottoms, tops):
    tops[0].data[:, 1:] = layer.room.data[:, 1:]


def add_to_the_top(layer, bottoms, tops):
    tops[0].data[...] += layer.room.data


def change_the_bottom(layer, bottoms, tops):
    Twice.ahead(layer, bottoms, tops)
    bottoms[0].data[...] *= 2


def declare_late(layer, bottoms, tops):
    layer.parameter("late", (1,), 0.0)


def buffer_late(layer, bottoms, tops):
    layer.buffer((1,))


class NoDiff(Twice):
    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = 2 * self.w.data * tops[0].diff


class NoBottomDiff(Twice):
    def backward(self, bottoms, tops):
        self.w.diff[...] = (tops[0].diff * self.room.data).sum()


def change_top_diff(layer, bottoms, tops):
    tops[0].diff[...] *= 2


FAULTS = {
    "rebinds the top": (
        Twice("y", "x", ahead=rebind("data", lambda layer, b, t: t[0])),
        ["blob 'y'", "data[...] = values"],
    ),
    "rebinds a parameter": (
        Twice("y", "x", ahead=rebind("data", lambda layer, b, t: layer.w)),
        ["parameter 'y/w'", "data[...] = values"],
    ),
    "rebinds a buffer": (
        Twice("y", "x", ahead=rebind("data", lambda layer, b, t: layer.room)),
        ["data[...] = values"],
    ),
    "rebinds a bottom's diff": (
        Twice("y", "x", back=rebind("diff", lambda layer, b, t: b[0])),
        ["blob 'x'", "diff[...] = values"],
    ),
    "rebinds a parameter's diff": (
        Twice("y", "x", back=rebind("diff", lambda layer, b, t: layer.w)),
        ["parameter 'y/w'", "diff[...] = values"],
    ),
    "replaces the top": (Twice("y", "x", ahead=replace_top), ["replaced a blob"]),
    "returns": (Returns("y", "x"), ["forward returned ndarray", "tops[0].data[...] ="]),
    "writes and returns": (WritesAndReturns("y", "x"), ["forward returned ndarray"]),
    "returns a diff": (ReturnsDiff("y", "x"), ["backward returned ndarray"]),
    "writes a part": (Twice("y", "x", ahead=part_of_the_top), ["all of the data of its top 'y'"]),
    "adds to the top": (Twice("y", "x", ahead=add_to_the_top), ["data of its top 'y'", "never +="]),
    "writes nothing": (
        Twice("y", "x", ahead=lambda layer, bottoms, tops: None),
        ["data of its top 'y'"],
    ),
    "forgets a parameter": (NoDiff("y", "x"), ["diff of its parameter 'w'", "in full"]),
    "forgets a bottom": (NoBottomDiff("y", "x"), ["diff of its bottom 'x'", "in full"]),
    "changes the bottom": (
        Twice("y", "x", ahead=change_the_bottom),
        ["changed the data of its bottom 'x'"],
    ),
    "changes the diff": (
        Twice("y", "x", back=change_top_diff),
        ["changed the diff of its top 'y'"],
    ),
    "declares late": (Twice("y", "x", ahead=declare_late), ["late", "setup"]),
    "a late buffer": (Twice("y", "x", ahead=buffer_late), ["setup"]),
}


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def net_with(layer):
    """The layer between two that learn, so that all of its diffs are needed."""
    return lk.Net(
        [
            L.Input("in", shape=(3,)),
            L.Dense("x", "in", units=5),
            layer,
            L.Dense("out", "y", units=3),
            L.SquareLoss("loss", "out", "in"),
        ],
        ROWS,
        dtype="float64",
    )


def train(layer, x):
    lk.SGD(net_with(layer), 0.1).step(**{"in": x})


def passes(layer, x):
    net = net_with(layer)
    net.forward(**{"in": x})
    net.backward()


@pytest.mark.parametrize("use", [train, passes])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_net_names_the_layer(fault, use, rng):
    layer, words = FAULTS[fault]
    with pytest.raises(NetError) as message:
        use(layer, rng.standard_normal((ROWS, 3)))
    one_line(message, "layer 'y'", *words)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gradient_check_names_the_layer(fault, rng):
    layer, words = FAULTS[fault]
    with pytest.raises((GradientError, NetError)) as message:
        lk.check_gradients(layer, x=rng.standard_normal((ROWS, 3)))
    one_line(message, "layer 'y'", *words)
    if "late" not in fault:
        assert isinstance(message.value, GradientError)


def test_what_keeps_the_contract_passes(rng):
    x = rng.standard_normal((ROWS, 3))
    lk.check_gradients(Twice("y", "x"), x=x)
    lk.check_gradients(net_with(Twice("y", "x")), **{"in": x})


def test_a_fault_after_the_first_pass_is_seen_too(rng):
    """Replacing and returning arrays; the rest is looked at once."""
    calls = []

    def later(layer, bottoms, tops):
        Twice.ahead(layer, bottoms, tops)
        calls.append(1)
        if len(calls) == 3:
            tops[0].data = tops[0].data * 2

    net, x = net_with(Twice("y", "x", ahead=later)), rng.standard_normal((ROWS, 3))
    net.forward(**{"in": x})
    net.forward(**{"in": x})
    with pytest.raises(ContractError, match="layer 'y'"):
        net.forward(**{"in": x})


def test_inference_checks_as_well(rng):
    net = net_with(Returns("y", "x"))
    with pytest.raises(ContractError, match=r"layer 'y'.*forward"):
        net.infer("out", x=rng.standard_normal((ROWS, 5)))


def test_numbers_that_look_unwritten_are_none(rng):
    """Not-a-numbers of any kind that a layer computes are not taken for what it left out."""
    patterns = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001], "uint64")
    nans = patterns.view("float64")

    def ahead(layer, bottoms, tops):
        tops[0].data[...] = np.resize(nans, tops[0].data.shape)

    net = net_with(Twice("y", "x", ahead=ahead))
    assert np.isnan(net.forward(**{"in": rng.standard_normal((ROWS, 3))}))


def test_the_check_changes_no_result(rng):
    """The first pass, which is checked, and later ones give the same bits, with kernels too."""
    x = rng.random((ROWS, 9)).astype("float32")
    layers = [
        L.Input("x", shape=(9,)),
        L.Dense("g", "x", units=8, neuron="relu"),
        L.Dense("m", "g", units=2),
        L.Dense("v", "g", units=2),
        L.Reparameterize("z", "m", "v"),
        L.Dropout("d", "z"),
        L.Dense("f", "d", units=9, neuron="tanh"),
        L.Softplus("s", "f"),
        L.SquareLoss("loss", "s", "x"),
        L.GaussianKL("kl", "m", "v"),
    ]
    nets = [lk.Net(layers, ROWS) for _ in range(2)]
    solvers = [lk.Adam(net) for net in nets]
    for plan in (nets[0]._plan, solvers[0].plan()):
        plan.forward_checked = plan.backward_checked = True
    for _ in range(3):
        for net, solver in zip(nets, solvers, strict=True):
            net.forward(x=x)
            net.backward()
            solver.step(x=x)
    np.testing.assert_array_equal(nets[0].arena.data, nets[1].arena.data)
    np.testing.assert_array_equal(nets[0].arena.diff, nets[1].arena.diff)


def test_users_write_into_parameters_too():
    net = net_with(Twice("y", "x"))
    with pytest.raises(ContractError) as message:
        net.params["x/weight"].data = np.zeros((3, 5))
    one_line(message, "parameter 'x/weight'", ".data[...] = values")
    with pytest.raises(ContractError):
        net.blobs["x"].data = np.zeros((ROWS, 5))
    net.params["x/weight"].data[...] = 3
    net.params["x/weight"].data *= 2
    assert (net.arena.data == 6).sum() == 15


# Declarations in setup.


@pytest.mark.parametrize(
    "given",
    [
        None,
        (3,),
        3,
        [3],
        "ab",
        [(3.0,)],
        [(0,)],
        [(-1,)],
        [(True,)],
        [None],
        [[(3,)]],
        {1: 2},
        np.array([3]),
        np.zeros((40, 40)),
        lambda shapes: shapes,
    ],
    ids=range(15),
)
def test_setup_must_return_a_list_of_shapes(given):
    with pytest.raises(NetError) as message:
        net_with(Twice("y", "x", declare=lambda shapes: given))
    one_line(message, "layer 'y' (Twice)", "setup", "[(3,)]")


def test_a_top_larger_than_the_memory():
    with pytest.raises(NetError) as message:
        lk.Net([L.Input("x", shape=(3,)), Twice("y", "x", declare=lambda shapes: [(2**30, 2**20)])])
    one_line(message, "layer 'y' (Twice)", "batch of 64", "512 PiB", "are free")
    with pytest.raises(NetError) as message:
        lk.Net([L.Input("x", shape=(3,)), Twice("y", "x", declare=lambda shapes: [(2**31,)])])
    one_line(message, "layer 'y' (Twice)", "setup", "below 2^31")


@pytest.mark.parametrize("given", [[[5]], ([5],), [(np.int64(5),)]])
def test_shapes_may_be_lists_and_numpy_integers(given, rng):
    train(Twice("y", "x", declare=lambda shapes: given), rng.standard_normal((ROWS, 3)))


def declaring(declare):
    class Declares(lk.Layer):
        def setup(self, shapes):
            declare(self)
            return shapes

    return [L.Input("x", shape=(3,)), Declares("y", ["x"])]


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda layer: [layer.parameter("w", (3,), 0.0) for _ in range(2)], ["'w' twice"]),
        (lambda layer: layer.parameter("w", 3, 0.0), ["w:", "tuple of positive whole", "got 3"]),
        (lambda layer: layer.parameter("w", (3.0,), 0.0), ["w:", "(3.0,)"]),
        (lambda layer: layer.parameter("w", None, 0.0), ["w:", "None"]),
        (lambda layer: layer.parameter("w", (0, 3), 0.0), ["w:", "(0, 3)"]),
        (lambda layer: layer.parameter("", (3,), 0.0), ["name"]),
        (lambda layer: layer.parameter("w", (2**31,), 0.0), ["w:", "below 2^31"]),
        (lambda layer: layer.parameter("w", (2**30, 2**20), 0.0), ["parameters", "PiB"]),
        (lambda layer: layer.buffer((2**30, 2**20)), ["buffer", "256 PiB", "are free"]),
        (lambda layer: layer.buffer(3), ["buffer", "got 3"]),
    ],
    ids=range(10),
)
def test_declarations_that_cannot_be(declare, words):
    with pytest.raises(NetError) as message:
        lk.Net(declaring(declare))
    one_line(message, "layer 'y' (Declares)", *words)


def test_a_bottom_may_be_a_name_instead_of_a_list(rng):
    """`super().__init__(name, "data")` means one blob, not four."""
    report = lk.check_gradients(Twice("y", "data"), data=rng.standard_normal((ROWS, 3)))
    assert "input data" in report.errors


class Tied(L.Dense):
    """Uses the weight of the first of its kind, registered as its own or not."""

    register = True

    def __init__(self, *args, pool, **settings):
        super().__init__(*args, **settings)
        self.pool = lambda: pool

    def setup(self, shapes):
        tops = super().setup(shapes)
        if self.pool():
            self.w = self.pool()[0]
            del self.parameters["weight"]
            if self.register:
                self.parameters["weight"] = self.w
        else:
            self.pool().append(self.w)
        return tops


class TiedInAList(Tied):
    register = False


@pytest.mark.parametrize("kind", [Tied, TiedInAList])
def test_one_parameter_of_two_layers_is_refused(kind):
    pool = []
    layers = [
        L.Input("x", shape=(3,)),
        kind("a", "x", units=3, pool=pool),
        kind("b", "a", units=3, pool=pool),
        L.SquareLoss("loss", "b", "x"),
    ]
    with pytest.raises(NetError) as message:
        lk.Net(layers)
    one_line(message, "layer 'b'", "'a/weight'", "shares='a'")


def test_parameters_of_one_name_are_refused():
    """The parameter "b/w" of layer "a", and "w" of layer "a/b"."""

    class Declares(lk.Layer):
        def setup(self, shapes):
            self.parameter(self.bottoms[0], (2,), 0.0)
            return shapes

    layers = [
        L.Input("b/w", shape=(2,)),
        L.Input("w", shape=(2,)),
        Declares("a", ["b/w"]),
        Declares("a/b", ["w"]),
    ]
    with pytest.raises(NetError) as message:
        lk.Net(layers)
    one_line(message, "layer 'a/b'", "'a/b/w'", "'a'", "rename")


# Classes of which something is missing.


class Bare(lk.Layer):
    pass


class NoForward(lk.Layer):
    def setup(self, shapes):
        return shapes


class NoBackward(NoForward):
    def forward(self, bottoms, tops):
        tops[0].data[...] = bottoms[0].data


class NoInit(NoForward):
    def __init__(self, name, bottom):
        self.name, self.bottoms, self.tops = name, [bottom], [name]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Bare, ["layer 'y' (Bare)", "setup(shapes)"]),
        (NoForward, ["layer 'y' (NoForward)", "forward(bottoms, tops)"]),
        (NoBackward, ["layer 'y' (NoBackward)", "backward(bottoms, tops)"]),
        (NoInit, ["NoInit", "super().__init__"]),
    ],
)
def test_what_a_class_forgets_is_said(kind, words, rng):
    with pytest.raises(NetError) as message:
        passes(kind("y", "x"), rng.standard_normal((ROWS, 3)))
    one_line(message, *words)


def test_a_layer_that_needs_no_gradient_needs_no_backward_pass(rng):
    net = lk.Net(
        [
            L.Input("x", shape=(3,)),
            NoBackward("y", "x"),
            L.Dense("z", "y", units=3),
            L.SquareLoss("loss", "z", "x"),
        ],
        ROWS,
    )
    lk.SGD(net, 0.1).step(x=rng.standard_normal((ROWS, 3)))


@pytest.mark.parametrize(
    "settings",
    [
        {"bottoms": 3},
        {"bottoms": {"x"}},
        {"tops": 3},
        {"tops": {"x": 1}},
        {"bottoms": ["x", 3]},
        {"tops": [None]},
    ],
)
def test_names_of_other_kinds(settings):
    with pytest.raises(NetError) as message:
        Bare("y", **{"bottoms": "x", **settings})
    one_line(message, "layer 'y' (Bare)", "name")
