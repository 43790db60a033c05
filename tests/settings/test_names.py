"""Mappings by name: lookups of names that are not there, and values put where none belongs."""

import copy
import pickle

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import LayerkitError, NetError


@pytest.fixture
def net():
    net = lk.Net(
        [
            L.Input("x", shape=(3,)),
            L.Input("labels", shape=()),
            L.Dense("scores", "x", units=4),
            L.SoftmaxLoss("loss", "scores", "labels"),
            L.Accuracy("accuracy", "scores", "labels"),
        ],
        batch_size=2,
        backend="numpy",
    )
    net.forward(x=np.ones((2, 3)), labels=np.zeros(2))
    return net


HELD = {
    "blobs": ("blob", "scorse", "scores"),
    "params": ("parameter", "scores/wieght", "scores/weight"),
    "layers": ("layer", "score", "scores"),
    "losses": ("loss", "los", "loss"),
    "metrics": ("metric", "acuracy", "accuracy"),
}


@pytest.mark.parametrize("attribute", HELD)
def test_a_misspelt_name_is_an_error_that_names_the_closest(net, attribute):
    kind, wrong, right = HELD[attribute]
    mapping = getattr(net, attribute)
    with pytest.raises(LayerkitError, match=f"no {kind} '{wrong}'; did you mean '{right}'"):
        mapping[wrong]
    with pytest.raises(KeyError, match=f"^no {kind} 7; there are '"):
        mapping[7]
    assert wrong not in mapping
    assert mapping.get(wrong, 3) == 3
    assert right in mapping
    assert mapping[right] is mapping.get(right)


def test_what_solvers_and_layers_hold_is_looked_up_alike(net):
    solver = lk.Adam(net)
    solver.steps(2, x=np.ones((2, 3)), labels=np.zeros(2))
    with pytest.raises(LayerkitError, match="no curve 'lost'; did you mean 'loss'"):
        solver.curves["lost"]
    with pytest.raises(LayerkitError, match="no history 'momentum'; there are 'm', 'v'"):
        solver.history["momentum"]
    with pytest.raises(LayerkitError, match="no parameter of layer 'scores' 'b'; there are 'w"):
        net.layers["scores"].parameters["b"]


def test_the_mean_of_a_misspelt_loss_is_an_error():
    data = L.MemoryData("x", data=np.ones((5, 3)))
    net = lk.Net([data, L.Dense("y", "x", units=3), L.SquareLoss("loss", "y", "x")], phase="test")
    means = net.evaluate()
    with pytest.raises(LayerkitError, match="no loss or metric 'los'; did you mean 'loss'"):
        means["los"]


def test_no_value_is_put_where_nobody_would_see_it(net):
    for attribute, instead in (
        ("params", r"\.data\[\.\.\.\]"),
        ("blobs", r"\.data\[\.\.\.\]"),
        ("layers", "descriptions"),
    ):
        mapping = getattr(net, attribute)
        before = dict(mapping)
        for name in (*before, "new"):
            with pytest.raises(NetError, match=f"'{name}' cannot be put in.*{instead}"):
                mapping[name] = np.ones(3)
        assert dict(mapping) == before
        name, value = next(iter(before.items()))
        for way, args in (
            ("update", [{name: 3}]),
            ("update", [[("new", 3)]]),
            ("__ior__", [{name: 3}]),
            ("setdefault", ["new", 3]),
        ):
            with pytest.raises(NetError, match=f"cannot be put in.*{instead}"):
                getattr(mapping, way)(*args)
        assert mapping.setdefault(name, 3) is value
        mapping.update({name: value})
        for way, args in (("pop", [name]), ("popitem", []), ("clear", []), ("__delitem__", [name])):
            with pytest.raises(NetError, match="cannot be taken out"):
                getattr(mapping, way)(*args)
        assert mapping.pop("nothing", 5) == 5
        assert list(mapping) == list(before)
        assert dict(mapping) == before
    solver = lk.Adam(net)
    for change in (
        lambda: solver.history.update(m=0),
        lambda: solver.history.clear(),
        lambda: solver.history.pop("v"),
    ):
        with pytest.raises(NetError, match=r"history '[mv]' cannot"):
            change()
    with pytest.raises(NetError, match="history 'm' cannot"):
        solver.history["m"] = np.ones(3)
    solver.history["m"] += 2
    assert (solver.history["m"] == 2).all()


def test_copies_are_plain_dictionaries(net):
    for again in (
        copy.copy(net.losses),
        copy.deepcopy(net.losses),
        pickle.loads(pickle.dumps(net.losses)),
        net.losses.copy(),
    ):
        assert type(again) is dict
        assert again == net.losses
