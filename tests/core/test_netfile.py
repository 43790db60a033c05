"""Net definition files: what they describe, and what is said when they do not."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError, NetFileError
from layerkit.netfile import find_net

PAPERS_NET = Path(__file__).resolve().parents[2] / "nets" / "galaxy_gdae.py"


@pytest.fixture
def net_file(tmp_path):
    """Writes a net file and returns its path."""

    def write(text):
        path = tmp_path / "mine.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def one_line(message, *words):
    text = str(message.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def dense(inputs, outputs):
    return (inputs + 1) * outputs


def test_the_papers_net():
    """Section 3.1 of Regier, McAuliffe and Prabhat (2015)."""
    net = lk.Net(lk.load_net(PAPERS_NET), batch_size=2)
    pixels = 69 * 69
    f_and_g = 2 * dense(128, 128)
    assert sum(p.size for p in net.params.values()) == (
        dense(pixels, 128) + 2 * dense(128, 8) + dense(8, 128) + 2 * dense(128, pixels) + f_and_g
    )
    for name, shape in {
        "x": (pixels,),
        "g1": (128,),
        "g2": (128,),
        "z_mean": (8,),
        "z_log_variance": (8,),
        "z": (8,),
        "f1": (128,),
        "f2": (128,),
        "x_mean": (pixels,),
        "x_log_variance": (pixels,),
    }.items():
        assert net.blobs[name].shape == shape
    x = np.random.default_rng(0).random((2, 69, 69))
    assert net.forward(x=x) == pytest.approx(
        net.losses["reconstruction"] + net.losses["kl"], rel=1e-12
    )
    assert (net.blobs["f2"].data >= 0).all(), "rectified"


def test_settings_reach_the_net():
    settings = {"pixels": 9, "hidden": 5, "latent": 2, "log_variance": -3.0, "kl_weight": 0.25}
    net = lk.Net(lk.load_net(PAPERS_NET, **settings), batch_size=2)
    assert net.params["g1/weight"].shape == (9, 5)
    assert net.blobs["z"].shape == (2,)
    assert (net.params["x_log_variance/bias"].data == -3).all()
    loss = net.forward(x=np.ones((2, 9)))
    assert loss == pytest.approx(net.losses["reconstruction"] + 0.25 * net.losses["kl"], rel=1e-12)


def test_the_papers_net_has_right_gradients(rng):
    layers = lk.load_net(PAPERS_NET, pixels=9, hidden=16, latent=2, log_variance=-1.0)
    net = lk.Net(layers, 8, seed=int(rng.integers(1e6)))
    for name, p in net.params.items():
        if name.endswith("bias"):  # at zero, units that see nothing would sit on the kink of a ReLU
            p.data += 0.5 * rng.standard_normal(p.shape)
    lk.check_gradients(net, x=rng.random((8, 9)))


def test_settings_can_be_listed(net_file):
    assert list(lk.net_settings(PAPERS_NET)) == [
        "pixels",
        "hidden",
        "latent",
        "log_variance",
        "kl_weight",
    ]
    assert lk.net_settings(PAPERS_NET)["hidden"] == 128
    with pytest.raises(NetFileError, match=r"mine\(\)"):
        lk.net_settings(net_file("theirs = 1"))


def test_a_file_runs_on_its_own(net_file):
    """It knows its name and place, is read as UTF-8, and inherits nothing from layerkit."""
    path = net_file(
        "from layerkit import layers as L\n"
        "assert __file__.endswith('mine.py') and __name__ == 'mine'\n"
        "def mine(größe: int = 3, **rest):\n"
        "    assert mine.__annotations__ == {'größe': int}\n"
        "    return [L.Input('x', shape=(größe, len(rest)))]\n"
    )
    assert lk.Net(lk.load_net(str(path), größe=4, a=1, b=2)).blobs["x"].shape == (4, 2)


def test_an_unknown_setting():
    with pytest.raises(NetFileError, match="'hiden'") as message:
        lk.load_net(PAPERS_NET, hiden=64)
    one_line(message, "galaxy_gdae.py", "hidden=128", "latent=8")


def test_a_setting_that_is_missing(net_file):
    with pytest.raises(NetFileError, match="'units'") as message:
        lk.load_net(net_file("def mine(units):\n    return []\n"))
    one_line(message, "mine.py", "mine(units)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def mine():\n    return [\n\nx = (\n", ["mine.py, line ", "SyntaxError"]),
        ("def mine():\n        return []\n    x = 1\n", ["mine.py, line 3", "IndentationError"]),
        ("x = 1\n\nmine = x / 0\n", ["mine.py, line 3", "ZeroDivisionError"]),
        (
            "def mine():\n    x = 1\n    raise ValueError('two\\nlines')\n",
            ["mine.py, line 3", "ValueError: two lines"],
        ),
        (
            "import json\ndef mine():\n    return json.loads('{')\n",
            ["mine.py, line 3", "JSONDecodeError"],  # not the line inside json
        ),
        ("import ast\nast.parse('x = (')\n", ["mine.py, line 2", "SyntaxError"]),
        ("import not_installed\n", ["mine.py, line 1", "not_installed"]),
        ("def theirs():\n    return []\n", ["mine.py", "no function mine()", "named like itself"]),
        ("mine = 3\n", ["mine.py", "no function mine()"]),
        ("", ["mine.py", "no function mine()"]),
        ("def mine():\n    return None\n", ["mine.py", "list of layers", "None"]),
        ("def mine():\n    return ['x']\n", ["mine.py", "list of layers", "'x'"]),
        (
            "from layerkit import layers as L\ndef mine():\n    return L.Input('x', shape=(1,))\n",
            ["mine.py", "list of layers", "Input"],
        ),
        (
            "from layerkit import layers as L\ndef mine():\n"
            "    return [L.Dense('g1', 'x', unit=3)]\n",
            ["mine.py", "'g1' (Dense)", "units"],
        ),
        (
            "from layerkit import layers as L\ndef mine():\n"
            "    return [L.Input('x', shape=(1,)), L.Dense('y', 'x', units=3, neuron='rel')]\n",
            ["mine.py", "'rel'", "relu"],
        ),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", ["mine.py", "cannot read"]),
        (b"PK\x03\x04\x00\x00", ["mine.py", "null bytes"]),
    ],
    ids=[
        "syntax",
        "indentation",
        "when read",
        "when called",
        "in a library",
        "syntax elsewhere",
        "import",
        "no function",
        "not a function",
        "empty",
        "None",
        "list of text",
        "one layer",
        "layer setting",
        "neuron",
        "picture",
        "zip",
    ],
)
def test_files_that_describe_no_net(net_file, text, words):
    with pytest.raises(NetFileError) as message:
        lk.load_net(net_file(text))
    one_line(message, *words)
    assert "line 0" not in str(message.value)
    assert "None:" not in str(message.value)


def test_a_net_that_comes_with_layerkit_is_loaded_by_name():
    path = find_net("galaxy_gdae")
    by_name, by_path = (
        lk.Net(lk.load_net(where, pixels=9, hidden=3), 2) for where in ("galaxy_gdae", path)
    )
    assert str(by_name) == str(by_path)
    assert lk.net_settings("galaxy_gdae") == lk.net_settings(path)
    with pytest.raises(NetFileError, match=r"no net that comes with layerkit; .*'galaxy_gdae'"):
        lk.load_net("galaxy_gade")


@pytest.mark.parametrize("name", ["missing.py", "folder"])
def test_files_that_are_not_there(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(NetFileError, match="cannot read net file") as message:
        lk.load_net(tmp_path / name)
    one_line(message, name)


# Files as people have them.

LAYERS = "[L.Input('x', shape=(n,))]"
IMPORT = "from layerkit import layers as L\n"


def shape_of(layers):
    (layer,) = layers
    return layer.shape


def test_a_copy_keeps_its_function(tmp_path):
    copied = tmp_path / "galaxy gdae (copy).py"
    copied.write_text(PAPERS_NET.read_text())
    assert [x.name for x in lk.load_net(copied, latent=3)] == [
        x.name for x in lk.load_net(PAPERS_NET)
    ]
    assert lk.net_settings(copied) == lk.net_settings(PAPERS_NET)
    with pytest.raises(NetFileError, match=r"galaxy_gdae\(.*'hiden'"):
        lk.load_net(copied, hiden=3)


def test_the_one_function_that_can_be_called_is_meant(net_file):
    helpers = f"def stack(name, n):\n    return {LAYERS}\ndef _hidden(n=1):\n    return 3\n"
    net = "def theirs(n=2):\n    return stack('x', n)\n"
    assert shape_of(lk.load_net(net_file(IMPORT + helpers + net), n=5)) == (5,)
    two = IMPORT + net + net.replace("theirs", "others") + helpers
    with pytest.raises(NetFileError, match=r"no function mine\(\), but theirs\(\), others\(\)"):
        lk.load_net(net_file(two))
    borrowed = "from os.path import join\nfrom layerkit import load_net\n"
    with pytest.raises(NetFileError, match=r"no function mine\(\); a net file has"):
        lk.load_net(net_file(borrowed))


@pytest.mark.parametrize("name", ["mine", "json"])
def test_data_classes_with_postponed_annotations(tmp_path, name):
    import json

    path = tmp_path / f"{name}.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from typing import ClassVar\nfrom layerkit import layers as L\n"
        "@dataclass\nclass Size:\n    many: ClassVar[int] = 4\n    n: int = 3\n"
        f"def {name}(n=2):\n"
        "    @dataclass\n    class Inner:\n        n: int\n"
        f"    assert Size(1) == Size(1)\n    n = Inner(Size(n).n).n\n    return {LAYERS}\n"
    )
    before = set(sys.modules)
    assert shape_of(lk.load_net(path, n=7)) == (7,)
    assert "mine" not in set(sys.modules) - before
    assert sys.modules["json"] is json


def test_each_file_imports_its_own_neighbours(tmp_path):
    paths = []
    for n in (3, 4):
        folder = tmp_path / str(n)
        (folder / "parts").mkdir(parents=True)
        (folder / "blocks.py").write_text(f"n = {n}\n")
        (folder / "parts" / "__init__.py").write_text("from blocks import n\n")
        (folder / "parts" / "inner.py").write_text("from parts import n\n")
        paths.append(folder / "mine.py")
        paths[-1].write_text(
            f"{IMPORT}import blocks\ndef mine():\n    from parts.inner import n\n"
            f"    assert n == blocks.n\n    return {LAYERS}\n"
        )
    before = set(sys.modules), list(sys.path)
    assert [shape_of(lk.load_net(path)) for path in paths] == [(3,), (4,)]
    (tmp_path / "3" / "blocks.py").write_text("n = 5\n")
    assert shape_of(lk.load_net(paths[0])) == (5,), "as it is now"
    assert (set(sys.modules), sys.path) == before
    assert not list(tmp_path.rglob("__pycache__"))
    (tmp_path / "4" / "blocks.py").write_text("1 / 0")
    with pytest.raises(NetFileError, match=r"mine\.py, line 2: ZeroDivisionError"):
        lk.load_net(paths[1])
    assert (set(sys.modules), sys.path) == before


def test_encodings(net_file):
    text = f"{IMPORT}def mine(größe=3):\n    n = größe\n    return {LAYERS}\n"
    for content in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        b"# -*- coding: latin-1 -*-\n" + text.encode("latin-1"),
    ):
        assert shape_of(lk.load_net(net_file(content), größe=6)) == (6,)
    for content in (text.encode("latin-1"), text.encode("utf-16"), b"# coding: none\n"):
        with pytest.raises(NetFileError, match=r"mine\.py") as message:
            lk.load_net(net_file(content))
        one_line(message)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys\nsys.exit(3)", ["line 2", "ended the program"]),
        ("def mine():\n    raise SystemExit", ["line 2", "ended the program"]),
        ("class Odd(BaseException):\n    pass\nraise Odd('x')", ["line 3", "Odd: x"]),
        ("def mine():\n    return mine()", ["line 2", "RecursionError"]),
        ("class Bad(Exception):\n    def __str__(self):\n        1/0\nraise Bad", ["Bad"]),
        ("class mine:\n    def __repr__(self):\n        1/0", ["list of layers", "mine"]),
        ("async def mine():\n    return []", ["list of layers"]),
        ("raise ValueError('x ' * 10**6)", ["line 1", "x x"]),
        ("def mine():\n    yield 1", ["list of layers"]),
        ("def mine():\n    return 'a\\nb' * 10**6", ["list of layers"]),
        ("def mine():\n    x = []\n    x.append(x)\n    return x", ["list of layers"]),
        ("import numpy as np\ndef mine():\n    return np.eye(50)", ["list of layers"]),
        ("mine = dict.fromkeys", ["mine.py"]),
    ],
)
def test_files_that_do_something_else(net_file, text, words):
    with pytest.raises(NetFileError) as message:
        lk.load_net(net_file(text))
    one_line(message, *words)
    assert len(str(message.value)) < 600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "mine.py")
    for path in (tmp_path / "mine.py", "/dev/zero"):
        with pytest.raises(NetFileError, match="not a regular file"):
            lk.load_net(path)
    with pytest.raises(NetFileError, match="null"):
        lk.load_net("a\0b.py")


# Data in the place of inputs.


def small_net():
    return [
        L.Dense("y", "x", units=2),
        L.Input("x", shape=(6,)),
        L.Input("class", shape=(), tops="t"),
        L.SoftmaxLoss("loss", "y", "t"),
    ]


def test_with_data_replaces_inputs(rng):
    images, labels = rng.random((10, 2, 3)), rng.integers(0, 2, 10)
    source = L.MemoryData("d", data=[images, labels], tops=["x", "t"], shuffle=False)
    layers = small_net()
    net = lk.Net(lk.with_data(layers, source), batch_size=4, seed=1)
    by_hand = lk.Net(layers, batch_size=4, seed=1)
    assert net.forward() == by_hand.forward(x=images[:4], t=labels[:4])
    assert net.blobs["x"].shape == (6,)
    assert len(layers) == 4
    assert source.shapes is None, "the caller's layer is left as it was"


def test_with_data_can_leave_inputs(rng):
    images = rng.random((10, 6))
    net = lk.Net(lk.with_data(small_net(), L.MemoryData("x", data=images, shuffle=False)), 4)
    net.forward(t=np.zeros(4))
    np.testing.assert_array_equal(net.blobs["x"].data, images[:4].astype("float32"))


def test_with_data_that_does_not_fit(rng):
    with pytest.raises(NetError, match="'pictures'") as message:
        lk.with_data(small_net(), L.MemoryData("pictures", data=np.zeros((3, 6))))
    one_line(message, "MemoryData", "'x'", "'t'")
    with pytest.raises(NetError, match="'x'") as message:
        lk.Net(lk.with_data(small_net(), L.MemoryData("x", data=np.zeros((3, 2, 2)))))
    one_line(message, "MemoryData", "(2, 2)", "(6,)")
    with pytest.raises(NetError, match="2 arrays") as message:
        lk.Net(lk.with_data(small_net(), L.MemoryData("x", data=[np.zeros((3, 6))] * 2)))
    one_line(message, "'x'")
