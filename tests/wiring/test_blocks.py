"""Blocks: lists of layers inside a list of layers."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError, NetFileError


def block(name, bottom):
    """Two layers around which their bottom is added, in lists of several kinds."""
    return [
        (L.Dense(f"{name}/in", bottom, units=3, neuron="tanh"),),
        [[L.Dense(f"{name}/out", f"{name}/in", units=4)], []],
        L.Add(name, bottom, f"{name}/out"),
    ]


def nested():
    return [L.Input("x", shape=(4,)), [block("a", "x"), [block("b", "a")]]]


def flat(layers):
    return [y for x in layers for y in (flat(x) if isinstance(x, list | tuple) else [x])]


NAMES = ["x", "a/in", "a/out", "a", "b/in", "b/out", "b"]


def test_a_net_of_blocks_is_that_of_their_layers(rng):
    x = rng.standard_normal((2, 4))
    nets = [lk.Net(layers, 2) for layers in (nested(), flat(nested()), tuple(nested()))]
    for net in nets:
        assert [layer.name for layer in net.descriptions] == [*net.layers] == NAMES
        np.testing.assert_array_equal(net.infer("b", x=x), nets[0].infer("b", x=x))
    assert [*lk.Net(iter(nested())).layers] == NAMES
    assert [*nets[0].rebuild(batch_size=3).layers] == NAMES


def test_all_that_takes_a_list_of_layers_takes_blocks(tmp_path, rng):
    x = rng.standard_normal((3, 4))
    lk.check_gradients(nested(), x=x)
    lk.check_gradients([[L.Dense("y", "x", units=2)]], x=x)
    served = lk.with_data([nested()], L.MemoryData("x", data=x))
    assert [layer.name for layer in served] == NAMES
    assert isinstance(lk.Net(served, 3).layers["x"], L.MemoryData)
    path = tmp_path / "mine.py"
    path.write_text(
        "from layerkit import layers as L\n\n"
        "def mine():\n"
        "    return [L.Input('x', shape=(4,)), [[L.ReLU('y', 'x')], (L.Tanh('z', 'y'),)]]\n"
    )
    assert [layer.name for layer in lk.load_net(path)] == ["x", "y", "z"]


def test_what_is_no_layer_inside_a_block_is_named(tmp_path):
    for layers in ([[L.Input("x", shape=(4,)), ["y"]]], [[3]], [{"a": 1}], [np.zeros(3)]):
        with pytest.raises(NetError, match="which is not a Layer"):
            lk.Net(layers)
    with pytest.raises(NetError, match="is empty"):
        lk.Net([[], [()]])
    with pytest.raises(NetError, match="expected a net, a layer or a list of layers"):
        lk.check_gradients([[3]])
    endless = [L.Input("x", shape=(4,))]
    endless.append([endless])
    for call in (lk.Net, lambda layers: lk.with_data(layers, L.MemoryData("x", data=np.ones(3)))):
        with pytest.raises(NetError, match="holds itself"):
            call(endless)
    path = tmp_path / "mine.py"
    path.write_text("def mine():\n    a = []\n    a.append(a)\n    return a\n")
    with pytest.raises(NetFileError, match=r"mine\.py: .*holds itself"):
        lk.load_net(path)
    path.write_text("def mine():\n    return [['x']]\n")
    with pytest.raises(NetFileError, match="must return a list of layers"):
        lk.load_net(path)


def test_one_layer_twice_is_still_refused():
    layer = L.Input("x", shape=(4,))
    with pytest.raises(NetError, match="two layers are called 'x'"):
        lk.Net([layer, [layer]])
