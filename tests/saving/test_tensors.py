"""Safetensors files: written, read by other means, and read back."""

import json
import sys

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import SnapshotError


def net_of(seed=0, units=3, **settings):
    layers = [
        L.Input("x", shape=(4,)),
        L.Dense("fc.1", "x", units=4),
        L.Dense("y", "fc.1", units=units),
    ]
    return lk.Net(layers, 4, seed=seed, **settings)


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lk.save_safetensors, lk.load_safetensors):
        with pytest.raises(SnapshotError, match="pip install safetensors") as error:
            call(tmp_path / "net.safetensors", net_of())
        assert "\n" not in str(error.value)


def read(path):
    """Arrays by the format's definition: length of the header, header in JSON, numbers."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2"}
    return {
        name: np.frombuffer(body[slice(*x["data_offsets"])], kinds[x["dtype"]]).reshape(x["shape"])
        for name, x in header.items()
    }


def write(path, arrays):
    """Write arrays, a dict of (kind, array), by the format's definition."""
    header, body = {}, b""
    for name, (kind, array) in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        span = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("safetensors")
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_is_read_by_others_and_comes_back(dtype, path):
    net = net_of(dtype=dtype)
    lk.save_safetensors(path, net)
    arrays = read(path)
    assert arrays.keys() == net.params.keys()
    other = net_of(seed=5, dtype=dtype)
    report = lk.load_safetensors(path, other).report
    assert report.loaded == {name: name for name in net.params}
    for name, p in net.params.items():
        assert arrays[name].dtype == dtype
        np.testing.assert_array_equal(arrays[name], p.data)
        np.testing.assert_array_equal(other.params[name].data, p.data)


def test_what_others_have_saved_is_loaded(path, rng):
    w, b = rng.standard_normal((4, 4)), rng.standard_normal(4).astype("float16")
    write(
        path, {"fc.1.weight": ("F64", w.T), "fc.1.bias": ("F16", b), "n": ("I64", np.ones(1, int))}
    )
    net = net_of()
    before = net.params["y/weight"].data.copy()
    report = lk.load_safetensors(
        path, net, rename={"*.*": "*/*"}, transpose="fc*/weight", skip="y", strict=False
    ).report
    np.testing.assert_array_equal(net.params["fc.1/weight"].data, w.astype("float32"))
    np.testing.assert_array_equal(net.params["fc.1/bias"].data, b)
    np.testing.assert_array_equal(net.params["y/weight"].data, before)
    assert report.loaded == {"fc.1/weight": "fc.1.weight", "fc.1/bias": "fc.1.bias"}
    assert report.unused == {"n": "not in the net"}


@pytest.mark.parametrize(
    ("arrays", "settings", "words"),
    [
        ({}, {}, "'fc.1/weight' is not in the file"),
        ({"y/bias": ("I64", np.ones(3, int))}, {"only": "y/bias"}, "must hold floats, got int64"),
        ({"y/bias": ("BF16", np.ones(3, "int16"))}, {"only": "y/bias"}, "BF16|bfloat16"),
        ({"y/bias": ("F64", np.full(3, 1e300))}, {"only": "y/bias"}, "1e+300 is too large"),
        (
            {"y/bias": ("F64", np.full(3, 1e-50))},
            {"only": "y/bias"},
            "largest number, is too small",
        ),
        ({"y/bias": ("F32", np.ones(4, "f4"))}, {"only": "y/bias"}, "shape (4,) there, and (3,)"),
        ({"y/bias": ("F32", np.ones(3, "f4"))}, {"transpose": "y/bias"}, "matches no parameter"),
        ({"y/bias": ("F32", np.ones(3, "f4"))}, {"transpose": 3}, "transpose must be a name"),
    ],
)
def test_what_cannot_be_loaded(arrays, settings, words, path):
    write(path, arrays)
    net = net_of()
    before = net.arena.data.copy()
    with pytest.raises(SnapshotError) as error:
        lk.load_safetensors(path, net, **settings)
    assert any(word in str(error.value) for word in words.split("|")), str(error.value)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(net.arena.data, before)


def test_files_that_are_none(path, rng):
    net = net_of()
    lk.save_safetensors(path, net)
    good = path.read_bytes()
    for bad in (b"", good[:40], good[:-3], rng.bytes(300), b"\xff" * 8 + good[8:]):
        path.write_bytes(bad)
        with pytest.raises(SnapshotError, match="no safetensors file, or a damaged one") as error:
            lk.load_safetensors(path, net)
        assert "\n" not in str(error.value)
    for wrong in (path.parent, path.parent / "none"):
        with pytest.raises(SnapshotError, match="cannot read"):
            lk.load_safetensors(wrong, net)
    with pytest.raises(SnapshotError, match="cannot write"):
        lk.save_safetensors(path.parent / "no" / "net.safetensors", net)
    with pytest.raises(SnapshotError, match="expected a Net"):
        lk.save_safetensors(path, 3)
