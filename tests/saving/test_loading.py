"""Parts of snapshots: chosen by name, renamed, and reported."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import SnapshotError


def net_of(names=("g", "f", "y"), units=(5, 4, 3), seed=0, **settings):
    layers, bottom = [L.Input("x", shape=(6,)), L.Input("t", shape=(units[-1],))], "x"
    for name, count in zip(names, units, strict=True):
        layers.append(L.Dense(name, bottom, units=count, bias=0.5))
        bottom = name
    return lk.Net([*layers, L.SquareLoss("loss", bottom, "t")], 4, seed=seed, **settings)


def values(net):
    return {name: p.data.copy() for name, p in net.params.items()}


@pytest.fixture
def saved(tmp_path):
    net = net_of(seed=1)
    for p in net.params.values():
        p.data += 1
    solver = lk.Adam(net)
    solver.steps(3, x=np.ones((4, 6)), t=np.zeros((4, 3)))
    lk.save(tmp_path / "net.h5", net, solver, {"note": 3})
    return tmp_path / "net.h5", net


ALL = {"g/weight", "g/bias", "f/weight", "f/bias", "y/weight", "y/bias"}


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        ({}, ALL),
        ({"strict": False}, ALL),
        ({"only": "g"}, {"g/weight", "g/bias"}),
        ({"only": "*/bias"}, {"g/bias", "f/bias", "y/bias"}),
        ({"only": ["g/weight", "y*"]}, {"g/weight", "y/weight", "y/bias"}),
        ({"skip": ("y/*", "f/bias")}, {"g/weight", "g/bias", "f/weight"}),
        ({"only": "[gf]", "skip": "*/bias"}, {"g/weight", "f/weight"}),
    ],
)
def test_what_is_chosen_is_loaded_and_nothing_else(settings, loaded, saved):
    path, source = saved
    net = net_of(seed=2)
    net.forward(x=np.ones((2, 6)), t=np.ones((2, 3)))
    before, state = values(net), net.state()
    extra = lk.load(path, net, **settings)
    assert extra == {"note": 3}
    for name, p in net.params.items():
        expected = source.params[name].data if name in loaded else before[name]
        np.testing.assert_array_equal(p.data, expected)
        assert not np.array_equal(source.params[name].data, before[name])
    assert extra.report.loaded == {name: name for name in ALL & loaded}
    left = dict.fromkeys(ALL - loaded, "skipped")
    left.update(dict.fromkeys(extra.report.left, "not among only=") if "only" in settings else {})
    assert extra.report.left.keys() == left.keys()
    assert (net.state() == state) == bool(settings)  # whoever loads a part keeps the state
    assert not net.passed


def test_a_new_head_is_finetuned(saved):
    path, source = saved
    net = net_of(("g", "f", "head"), (5, 4, 7), seed=2)
    before = values(net)
    with pytest.raises(SnapshotError, match=r"the net's 'head/weight' is not in the file.*skip"):
        lk.load(path, net, only="*")
    with pytest.raises(SnapshotError, match=r"the file's 'y/bias' is not in the net.*skip"):
        lk.load(path, net, skip="head")
    for settings in ({"strict": False}, {"skip": ["head", "y"]}):
        report = lk.load(path, net, **settings).report
        for name in ("g/weight", "g/bias", "f/weight", "f/bias"):
            np.testing.assert_array_equal(net.params[name].data, source.params[name].data)
        np.testing.assert_array_equal(net.params["head/weight"].data, before["head/weight"])
    assert report.left == {"head/weight": "skipped", "head/bias": "skipped"}
    report = lk.load(path, net, strict=False).report
    assert report.left == dict.fromkeys(["head/weight", "head/bias"], "not in the file")
    assert report.unused == dict.fromkeys(["y/bias", "y/weight"], "not in the net")
    text = str(report)
    assert text.startswith(f"4 of 6 loaded from {path}\n")
    assert "  g/weight\n" in text
    assert "left as they were:\n  head/weight  not in the file\n" in text
    assert "not used:\n  y/bias    not in the net\n  y/weight  not in the net" in text


@pytest.mark.parametrize("settings", [{}, {"strict": False}, {"only": "y"}, {"skip": "g"}])
def test_another_shape_is_an_error_unless_it_is_skipped(settings, saved):
    path, source = saved
    net = net_of(units=(5, 4, 7), seed=2)
    before = values(net)
    with pytest.raises(SnapshotError, match=r"'y/(weight|bias)' has shape .* there, and .*7"):
        lk.load(path, net, **settings)
    for name, array in values(net).items():
        np.testing.assert_array_equal(array, before[name])
    lk.load(path, net, skip="y")
    np.testing.assert_array_equal(net.params["f/bias"].data, source.params["f/bias"].data)
    np.testing.assert_array_equal(net.params["y/bias"].data, before["y/bias"])


@pytest.mark.parametrize(
    ("names", "rename"),
    [
        (("a", "f", "y"), {"g": "a"}),
        (("a", "f", "y"), {"g/weight": "a/weight", "g/bias": "a/bias"}),
        (("a", "f", "y"), {"g/*": "a/*"}),
        (("a", "f", "y"), lambda name: name.replace("g/", "a/")),
        (("enc_g", "enc_f", "enc_y"), {"*": "enc_*"}),
        (("x.y", "f.y", "y.y"), {"g": "x.y", "*/*": "*.y/*"}),  # the first that matches
    ],
)
def test_names_are_changed_on_the_way(names, rename, saved):
    path, source = saved
    net = net_of(names, seed=2)
    report = lk.load(path, net, rename=rename).report
    assert len(report.loaded) == 6
    for p, q in zip(net.params.values(), source.params.values(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        assert report.loaded[p.name] == q.name
    assert f"  {names[0]}/bias (there g/bias)\n" in str(report)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"only": "z*"}, "only: 'z*' matches no parameter; there are 'g/weight'"),
        ({"skip": ["y", "weights"]}, "skip: 'weights' matches no parameter"),
        ({"skip": "*"}, "nothing to load"),
        ({"only": 3}, "only must be a name or pattern"),
        ({"skip": [3]}, "skip must be a name or pattern"),
        ({"rename": ["g", "f"]}, "rename must be a dict"),
        ({"rename": {"g": 3}}, "rename must be a dict"),
        ({"rename": lambda name: None}, "rename must return a name for 'f/bias', got None"),
        ({"rename": {"q": "g"}}, "rename: no name in"),
        ({"rename": {"*/weight": "w"}}, "the same number of '*'"),
        ({"rename": {"f": "g"}}, "'f/bias' and 'g/bias' would both become 'g/bias'"),
        ({"strict": "no"}, "strict must be True or False"),
    ],
)
def test_a_choice_that_cannot_be_made(settings, words, saved):
    path, _ = saved
    net = net_of(seed=2)
    before = values(net)
    with pytest.raises(SnapshotError) as error:
        lk.load(path, net, **settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    for name, array in values(net).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_solver_takes_no_part(saved):
    path, _ = saved
    net = net_of()
    for settings in ({"only": "g"}, {"strict": False}):
        with pytest.raises(SnapshotError, match="a whole snapshot only"):
            lk.load(path, net, lk.Adam(net), **settings)
    with pytest.raises(SnapshotError, match="it takes"):
        lk.load(path, net, None, "g")


def test_a_part_is_cast_to_the_net_and_checked(saved, tmp_path):
    path, source = saved
    net = net_of(dtype="float64")
    lk.load(path, net, only="g")
    np.testing.assert_array_equal(net.params["g/weight"].data, source.params["g/weight"].data)
    net.params["f/weight"].data[0, 0] = 1e60
    lk.save(tmp_path / "large.h5", net)
    with pytest.raises(SnapshotError, match=r"f/weight.*too large for float32"):
        lk.load(tmp_path / "large.h5", source, skip="g")
