"""Calls that do not fit: one error each, which says what the net takes and what came."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError, NetError, NetFileError, SnapshotError

X, T = np.ones((2, 3)), np.ones((2, 4))


@pytest.fixture
def net():
    return lk.Net(
        [
            L.Input("x", shape=(3,)),
            L.Input("t", shape=(4,)),
            L.Dense("y", "x", units=4, neuron="relu"),
            L.SquareLoss("loss", "y", "t"),
        ],
        batch_size=4,
    )


INPUTS = "this net's inputs are 'x', 't'"
BY_PLACE = {  # what is called, how -> what the error says was expected
    "forward": [((X,), {}), ((X, T), {}), (({"x": X, "t": T},), {}), ((None,), {})],
    "backward": [((X,), {})],
    "infer": [
        ((), {}),
        ((), {"x": X}),
        ((), {"outputs": "y", "x": X}),
        (("y", True, X), {}),
        (("y", True), {"sample": False, "x": X}),
    ],
    "evaluate": [((X, T), {}), ((), {"x": X, "t": T}), ((3,), {"y": 2})],
    "state": [((3,), {})],
    "set_state": [((), {}), ((), {"x": X})],
    "step": [((X,), {}), ((X, T), {})],
    "steps": [((), {}), ((), {"x": X, "t": T}), ((3, X, T), {}), ((), {"count": 3, "x": X})],
    "profile": [((X, T), {}), ((5,), {"iterations": 3, "x": X})],
}
EXPECTED = {
    "forward": "forward(x=array, t=array)",
    "backward": "backward(loss=array)",
    "infer": "infer(outputs, sample=True, x=array, t=array)",
    "evaluate": "evaluate(data=None, processes=None, progress=False)",
    "state": "state()",
    "set_state": "set_state(state)",
    "step": "step(x=array, t=array)",
    "steps": "steps(count, x=array, t=array)",
    "profile": "profile(iterations=50, x=array, t=array)",
}


@pytest.mark.parametrize("name", BY_PLACE)
def test_a_call_that_does_not_fit_says_what_does(net, name):
    of = lk.Adam(net) if name in ("step", "steps", "profile") else net
    for args, given in BY_PLACE[name]:
        with pytest.raises(NetError) as error:
            getattr(of, name)(*args, **given)
        message = str(error.value)
        assert message.startswith(f"{name}: expected {EXPECTED[name]}, got ")
        assert message.endswith(INPUTS)
        assert ("arrays are given as evaluate({'x': array, 't': array}); " in message) == (
            name == "evaluate"
        )
        for word in given:
            assert f"{word}=" in message.partition(", got ")[2]
        if not args and not given:
            assert ", got nothing;" in message


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "input 'x' is missing.*and none came"),
        ({"x": X}, "input 't' is missing: call with t=array.*and 'x' came"),
        ({"X": X, "t": T}, "no Input layer has a blob 'X'.*and 'X', 't' came"),
        ({"x": X, "t": T, "u": T}, "no Input layer has a blob 'u'.*and 'x', 't', 'u' came"),
    ],
)
def test_wrong_inputs_say_which_are_wanted_and_which_came(net, given, problem):
    solver = lk.Adam(net)
    for call in (
        net.forward,
        solver.step,
        lambda **inputs: solver.steps(2, **inputs),
        lambda **inputs: solver.profile(2, **inputs),
        lambda **inputs: lk.check_gradients(net, **inputs),
    ):
        with pytest.raises(NetError, match=problem) as error:
            call(**given)
        assert INPUTS in str(error.value)
    assert solver.iteration == 0


def test_what_a_data_layer_fills_is_not_given():
    net = lk.Net([L.MemoryData("x", data=X), L.Dense("y", "x", units=3), L.ReLU("z", "y")])
    with pytest.raises(NetError, match="'x', which a data layer fills; this net's inputs are none"):
        net.forward(x=X)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "abc",
        3,
        X + 1j,
        [[1, 2], [3]],
        {"x": X},
        np.array([object()] * 3)[None],
        np.array(["a", "b", "c"])[None],
        iter(X),
    ],
)
def test_what_is_no_array_of_numbers_is_named(net, value):
    solver = lk.Adam(net)
    for call in (
        lambda v: net.forward(x=v, t=T),
        lambda v: net.infer("y", x=v),
        lambda v: solver.step(x=v, t=T),
        lambda v: lk.find_inactive(net, x=v),
        lambda v: lk.centre_biases(net, x=v),
    ):
        with pytest.raises(NetError, match=r"^blob 'x': expected an array of"):
            call(value)


def test_blobs_that_are_not_there_are_named(net):
    net.forward(x=X, t=T)
    with pytest.raises(NetError, match="backward: blob 'los' is not in the net; did you mean 'los"):
        net.backward(los=np.ones(2))
    with pytest.raises(NetError, match="backward: blob 't' has no diff"):
        net.backward(t=T)
    for function in (lk.find_inactive, lk.centre_biases):
        before = net.params["y/bias"].data.copy()
        with pytest.raises(NetError, match=f"{function.__name__}: no blob 'X'; there are 'x', 't'"):
            function(net, X=X)
        with pytest.raises(NetError, match=f"{function.__name__}: give at least one blob"):
            function(net)
        with pytest.raises(NetError, match="same number of rows, at least 1, got"):
            function(net, x=X[:0])
        with pytest.raises(NetError, match=f"{function.__name__}: expected a net"):
            function("net", x=X)
        np.testing.assert_array_equal(net.params["y/bias"].data, before)


def test_settings_of_a_rebuilt_net_are_named(net):
    with pytest.raises(NetError, match=r"expected rebuild\(batch_size=...\), got 3; settings"):
        net.rebuild(3)
    with pytest.raises(NetError, match="unexpected keyword argument 'batch'; it takes"):
        net.rebuild(batch=3)


def test_net_files_and_data_of_the_wrong_kind(net):
    for function in (lk.load_net, lk.net_settings):
        for path in (3, None, "", ["a.py"]):
            with pytest.raises(NetFileError, match="expected the path of a file"):
                function(path)
    data = L.MemoryData("x", data=X)
    for layers in (net, 3, None, net.descriptions[0], "layers"):
        with pytest.raises(NetError, match="with_data: expected a list of layers"):
            lk.with_data(layers, data)
    for source in (3, None, X, L.ReLU("a", "b"), [data]):
        with pytest.raises(NetError, match="with_data: expected a data layer"):
            lk.with_data(net.descriptions, source)
    assert [x.name for x in lk.with_data(iter(net.descriptions), data)] == ["x", "t", "y", "loss"]


def test_a_net_in_a_message_is_no_table(net):
    with pytest.raises(NetError, match="a list of layers, got an object of type Net; put it in"):
        lk.Net(net)


class NoUpdate(lk.Solver):
    """A solver of a user's own that is not finished."""


def test_a_solver_without_an_update_says_so(net):
    with pytest.raises(NetError, match=r"^NoUpdate: its class does not define update\("):
        NoUpdate(net, 0.1).step(x=X, t=T)


@pytest.mark.parametrize("policy", [lambda i: [0.1][i + 1], lambda i: {}[i], lambda i: 1 / i])
def test_a_rate_that_fails_is_named(net, policy):
    solver = lk.Adam(net, policy)
    with pytest.raises(NetError, match=r"^rate: at iteration 0 .* gave '\w+Error: "):
        solver.step(x=X, t=T)
    assert solver.iteration == 0


def test_biases_are_not_centred_on_what_is_not_finite(net):
    before = net.params["y/bias"].data.copy()
    with pytest.raises(NetError, match="what layer 'y' rectifies is not finite"):
        lk.centre_biases(net, x=np.full((2, 3), np.nan))
    np.testing.assert_array_equal(net.params["y/bias"].data, before)


PLAIN = [  # function, arguments, kind of error, what it says
    (lk.check_gradients, (None, X), {}, NetError, r"as NAME=value; it takes \(net,"),
    (lk.find_inactive, (None, X), {}, NetError, "by name, as NAME=value"),
    (lk.centre_biases, (), {}, NetError, "missing a required argument: 'net'"),
    (
        lk.save,
        ("file.h5",),
        {},
        SnapshotError,
        r"missing a required argument: 'net'; it takes \(path, net, solver=None, extra=None, ",
    ),
    (lk.save, ("file.h5", None), {"iteration": 3}, SnapshotError, "argument 'iteration'"),
    (lk.load, ("file.h5",), {}, SnapshotError, "missing a required argument: 'net'"),
    (lk.snapshot.read_extra, (), {}, SnapshotError, "missing a required argument: 'path'"),
    (lk.load_net, ("net.py", 3), {}, NetFileError, "by name, as NAME=value"),
    (lk.net_settings, (), {}, NetFileError, "'path'"),
    (lk.with_data, ([],), {}, NetError, "missing a required argument: 'source'"),
    (
        lk.Net.freeze,
        (None,),
        {"pattern": "y*"},
        NetError,
        r"^Net.freeze: .* argument 'pattern'; it takes \(\*patterns\)",
    ),
    (lk.Net.unfreeze, (None,), {"pattern": "y*"}, NetError, "argument 'pattern'"),
    (galaxy.prepare, ("a", "b"), {"sizes": 3}, DataError, "argument 'sizes'; it takes"),
    (galaxy.gather, ("a",), {}, DataError, "missing a required argument: 'cache'"),
    (galaxy.load, (), {}, DataError, "missing a required argument: 'path'"),
    (galaxy.open_source, (), {}, DataError, "missing a required argument: 'path'"),
    (galaxy.split, (["a"],), {}, DataError, "missing a required argument: 'held_out'"),
    (galaxy.unstretch, (X,), {}, DataError, "missing a required argument: 'stretches'"),
    (galaxy.GalaxyModel, (), {}, NetError, "^GalaxyModel: missing .* 'net'; it takes"),
    (
        galaxy.GalaxyModel.sample,
        (None,),
        {"n": 3},
        NetError,
        r"^GalaxyModel.sample: .* argument 'n'; it takes \(count, seed=0, noise=False\)",
    ),
    (galaxy.evaluate, (), {"model": 3}, DataError, "missing a required argument: 'train'"),
    (galaxy.refine, (), {}, NetError, "missing a required argument"),
    (galaxy.fit_gaussian, (X, X, X), {}, DataError, "too many positional arguments"),
]


@pytest.mark.parametrize(("function", "args", "given", "kind", "says"), PLAIN)
def test_plain_functions_say_what_they_take(function, args, given, kind, says):
    with pytest.raises(kind, match=says):
        function(*args, **given)
