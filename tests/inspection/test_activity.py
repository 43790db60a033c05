"""Units that are never active, in nets made so by hand."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError


def net_of(*layers, dtype="float64", **settings):
    return lk.Net([L.Input("x", shape=(3,)), *layers], 4, dtype=dtype, **settings)


@pytest.mark.parametrize("neuron", ["relu", "leaky_relu", "elu"])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_dead_units_are_found(neuron, rows, rng):
    net = net_of(L.Dense("h", "x", units=5, neuron=neuron), L.Dense("y", "h", units=2))
    net.params["h/weight"].data[...] = 0
    net.params["h/bias"].data[...] = [1, -1, 0, 2, -3]
    found = lk.find_inactive(net, x=rng.standard_normal((rows, 3)))
    np.testing.assert_array_equal(found.units["h"], [False, True, True, False, True])
    assert found.counts == {"h": 3}
    examples = "1 example" if rows == 1 else f"{rows} examples"
    assert str(found) == f"units never active on {examples}: 3 of 5 in h"


def test_one_example_of_the_last_batch_is_enough(rng):
    net = net_of(L.Dense("h", "x", units=2, neuron="relu"), phase="test")
    net.params["h/weight"].data[...] = np.eye(3, 2)
    x = -np.ones((11, 3))
    x[10, 1] = 1e-9
    np.testing.assert_array_equal(lk.find_inactive(net, x=x).units["h"], [True, False])


def test_channels_and_layers_of_their_own(rng):
    net = net_of(
        L.Reshape("picture", "x", shape=(1, 1, 3)),
        L.Convolution("c", "picture", channels=3, kernel=1, neuron="relu"),
        L.Dense("d", "c", units=2),
        L.ReLU("r", "d"),
        L.Dense("s", "r", units=4, neuron="sigmoid"),
    )
    net.params["c/weight"].data[...] = np.reshape([1, -1, 0], net.params["c/weight"].shape)
    net.params["d/weight"].data[...] = 0
    net.params["d/bias"].data[...] = [-1, 1]
    found = lk.find_inactive(net, x=np.abs(rng.standard_normal((9, 3))))
    assert found.counts == {"c": 2, "r": 1}
    assert str(found) == "units never active on 9 examples: 2 of 3 in c, 1 of 2 in r"


def test_only_what_the_given_blobs_lead_to_is_looked_at(rng):
    net = net_of(
        L.Dense("g", "x", units=2, neuron="relu", bias=-9.0, weight=0.0),
        L.Dense("f", "g", units=3, neuron="relu", bias=-9.0, weight=0.0),
    )
    x, g = rng.random((5, 3)), rng.random((5, 2))
    assert lk.find_inactive(net, x=x).counts == {"g": 2, "f": 3}
    assert lk.find_inactive(net, g=g).counts == {"f": 3}


def test_centred_units_have_a_mean_of_zero_and_none_is_dead(rng):
    """With positive inputs, half of the units are dead or never at rest before."""
    net = net_of(
        L.Dense("g", "x", units=40, neuron="relu", bias=0.7),
        L.Dense("f", "g", units=30, neuron="relu"),
        L.Dense("y", "f", units=2, bias=3.0),
    )
    x = rng.uniform(0.9, 1, (50, 3))
    before = {name: p.data.copy() for name, p in net.params.items()}
    assert sum(lk.find_inactive(net, x=x).counts.values()) > 10
    lk.centre_biases(net, x=x)
    assert lk.find_inactive(net, x=x).counts == {"g": 0, "f": 0}
    below = x
    for name in "gf":
        level = below @ net.params[f"{name}/weight"].data + net.params[f"{name}/bias"].data
        np.testing.assert_allclose(level.mean(axis=0), 0, atol=1e-12)
        below = np.maximum(level, 0)
    for name in ("g/weight", "f/weight", "y/weight", "y/bias"):
        np.testing.assert_array_equal(net.params[name].data, before[name])
    with pytest.raises(NetError, match="give at least one blob"):
        lk.centre_biases(net)


def test_nothing_is_dead(rng):
    net = net_of(L.Dense("h", "x", units=2, neuron="relu", weight=0.0, bias=1.0))
    assert str(lk.find_inactive(net, x=np.ones((2, 3)))).endswith("on 2 examples: none")
    assert str(lk.find_inactive(net_of(L.Dense("h", "x", units=2)), x=np.ones((2, 3)))) == (
        "no layer has rectified units"
    )
    with pytest.raises(NetError, match="give at least one blob"):
        lk.find_inactive(net)
    with pytest.raises(NetError, match="blob 'x'"):
        lk.find_inactive(net, x=np.ones((2, 4)))


@pytest.mark.parametrize("size", [1e30, 1e38])
def test_biases_beyond_the_floats_are_refused_whatever_numpy_raises(size):
    net = net_of(L.Dense("h", "x", units=2, neuron="relu"), phase="test", dtype="float32")
    net.params["h/weight"].data[...] = size
    x = np.full((4, 3), 1e5)
    before = net.params["h/bias"].data.copy()
    with np.errstate(all="raise"):
        if size < 1e38:
            lk.centre_biases(net, x=x)
            np.testing.assert_allclose(net.params["h/bias"].data, -3e5 * size, rtol=1e-6)
        else:
            with pytest.raises(NetError, match="not finite"):
                lk.centre_biases(net, x=x)
            np.testing.assert_array_equal(net.params["h/bias"].data, before)
