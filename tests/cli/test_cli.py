"""The `layerkit` command, run in this process: what it computes, and one line for bad input."""

import csv
import os
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.saving import hdf5
from layerkit.system import bars

NET = """
from layerkit import layers as L

def classifier(units=3):
    return [
        L.Input("x", shape=(4,)),
        L.Input("label", shape=()),
        L.Dense("h", "x", units=units, neuron="tanh"),
        L.Dense("logits", "h", units=2),
        L.SoftmaxLoss("loss", "logits", "label"),
        L.Accuracy("accuracy", "logits", "label"),
    ]
"""


@pytest.fixture
def trained(layerkit, tmp_path, rng):
    """A net file, a snapshot, and data; returns the net and the arrays."""
    (tmp_path / "classifier.py").write_text(NET)
    x, label = rng.standard_normal((11, 4)), rng.integers(2, size=11)
    net = lk.Net(lk.load_net(tmp_path / "classifier.py"), 11, seed=5)
    lk.Adam(net, 0.1).step(x=x, label=label)
    lk.save(tmp_path / "model.h5", net)
    np.savez(tmp_path / "data.npz", x=x, label=label, other=np.zeros(3))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "label.npy", label)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["label"], file["deep/x"] = x, label, x
    return net, x, label


WAYS = [
    ["data.npz"],
    ["data.h5"],
    ["x=x.npy", "label=label.npy"],
    ["x=data.h5:deep/x", "label=data.h5:label"],
    ["data.h5", "--batch", 3],
]


def test_version_and_devices(layerkit):
    assert layerkit("--version") == (0, f"{lk.__version__}\n", "")
    code, out, _ = layerkit("devices")
    assert code == 0
    assert re.search("^numpy .*(array code|compiled kernels .*threads)$", out, re.MULTILINE)
    assert re.search("^cupy ", out, re.MULTILINE)


@pytest.mark.parametrize("data", WAYS)
def test_test_prints_losses_and_metrics(layerkit, trained, data):
    net, x, label = trained
    code, out, err = layerkit("test", "classifier.py", "--model", "model.h5", "--data", *data)
    assert code == 0, err
    found = {name: float(value) for name, value in map(str.split, out.splitlines())}
    logits = net.infer("logits", x=x)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(11), label]
    assert found["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == label).mean(), rel=1e-5)


def test_infer_writes_each_kind_of_file(layerkit, trained, tmp_path):
    net, x, _ = trained
    h, logits = net.infer(["h", "logits"], x=x)
    what = ["infer", "classifier.py", "--model", "model.h5", "--data", "x.npy"]
    assert layerkit(*what[:-1], "x=x.npy", "--blob", "h", "--out", "h.npy")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "h.npy"), h)
    for name in ("both.npz", "both.h5"):
        code, out, err = layerkit(*what[:-1], "x=x.npy", "--blob", "h", "logits", "--out", name)
        assert code == 0, err
        assert "logits: 11 x 2" in out
        opened = np.load(tmp_path / name) if name.endswith("z") else h5py.File(tmp_path / name)
        with opened as file:
            np.testing.assert_array_equal(file["h"][...], h)
            np.testing.assert_array_equal(file["logits"][...], logits)
    assert layerkit(*what[:-1], "data.npz", "--blob", "logits", "--out", "l.csv")[0] == 0
    with open(tmp_path / "l.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["logits[0]", "logits[1]"]
    np.testing.assert_array_equal(np.array(rows[1:], "float32"), logits)


def test_infer_writes_integers_beside_floats_to_csv(layerkit, tmp_path):
    (tmp_path / "ids.py").write_text(
        "from layerkit import layers as L\n\n\ndef net():\n    return [\n"
        "        L.Input('k', shape=(), integers=True),\n"
        "        L.Input('x', shape=(2,)),\n"
        "        L.Reshape('id', 'k', shape=(1,)),\n"
        "        L.Tanh('y', 'x'),\n    ]\n"
    )
    lk.save("ids.h5", lk.Net(lk.load_net("ids.py"), 2))
    ids, x = np.array([2**60 + 1, -(2**63), 2**63 - 1, 0]), np.linspace(-1, 1, 8).reshape(4, 2)
    np.savez("ids.npz", k=ids, x=x)
    words = ["infer", "ids.py", "--model", "ids.h5", "--data", "ids.npz", "--out", "ids.csv"]
    code, _, err = layerkit(*words, "--blob", "id", "y")
    assert code == 0, err
    with open(tmp_path / "ids.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id[0]", "y[0]", "y[1]"]
    assert [int(row[0]) for row in rows[1:]] == ids.tolist()
    np.testing.assert_allclose(np.array([row[1:] for row in rows[1:]], float), np.tanh(x), 1e-6)


def test_files_of_arrays_that_are_damaged_are_one_line(layerkit, trained, rng):
    np.savez_compressed("whole.npz", x=trained[1], label=trained[2], more=np.array([None]))
    words = ["test", "classifier.py", "--model", "model.h5", "--data"]
    assert layerkit(*words, "whole.npz")[0] == 0  # nobody wants the third array
    whole = Path("whole.npz").read_bytes()
    said = set()
    for size in (3, 30, 100, len(whole) - 30, len(whole) - 1):
        Path("bad.npz").write_bytes(whole[:size])
        code, _, err = layerkit(*words, "bad.npz")
        assert code == 2, err
        assert err.count("\n") == 1, err
    for _ in range(60):
        bad = bytearray(whole)
        bad[rng.integers(4, len(bad))] ^= 1 << rng.integers(8)
        Path("bad.npz").write_bytes(bad)
        code, _, err = layerkit(*words, "bad.npz")
        assert code in (0, 2), err
        assert err.count("\n") == (code == 2), err
        said.add(err)
    assert len(said) > 3
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 4), }\n"
    bomb = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    Path("bomb.npy").write_bytes(bomb)
    with zipfile.ZipFile("text.npz", "w") as archive:
        archive.writestr("x", "text")
    for data, says in (("x=bomb.npy", "bomb.npy: too large"), ("text.npz", "'x' is no array")):
        code, _, err = layerkit(*words, data)
        assert code == 2
        assert says in err


def test_check_finds_a_wrong_gradient(layerkit, trained, tmp_path):
    code, out, _ = layerkit("check", "classifier.py", "--set", "units=2")
    assert code == 0
    assert "derivatives of" in out
    assert layerkit("check", "classifier.py", "--data", "data.npz")[0] == 0
    wrong = """
import layerkit as lk
from layerkit import layers as L
class Wrong(lk.Layer):
    def __init__(self, name, bottom):
        super().__init__(name, [bottom], None)
    def setup(self, shapes):
        return shapes
    def forward(self, bottoms, tops):
        tops[0].data[...] = bottoms[0].data ** 2
    def backward(self, bottoms, tops):
        bottoms[0].diff[...] = tops[0].diff * bottoms[0].data
def net():
    return [L.Input("x", shape=(2,)), Wrong("y", "x")]
"""
    (tmp_path / "wrong.py").write_text(wrong)
    code, _, err = layerkit("check", "wrong.py")
    assert code == 2
    assert "failures of the gradient check" in err


def test_train_equals_the_trainer_and_is_resumed_bit_for_bit(layerkit, trained, tmp_path):
    words = ["train", "classifier.py", "--data", "data.h5", "--batch", 4, "--rate", 0.05]
    words += ["--validate", "data.npz", "--every", 5, "--seed", 3, "--clip", 1.0]
    code, out, err = layerkit(*words, "--steps", 20, "--out", "whole")
    assert code == 0, err
    assert "validation/loss" in out
    source = L.HDF5Data(
        "data", path=tmp_path / "data.h5", datasets=["x", "label"], tops=["x", "label"]
    )
    layers = lk.with_data(lk.load_net(tmp_path / "classifier.py"), source)
    net = lk.Net(layers, 4, seed=3)
    lk.Adam(net, 0.05, clip=1.0).steps(20)
    found = lk.Net(lk.load_net(tmp_path / "classifier.py"), 4)
    lk.load(tmp_path / "whole" / "model.h5", found)
    for name, p in net.params.items():
        np.testing.assert_array_equal(found.params[name].data, p.data)
    assert layerkit(*words, "--steps", 8, "--out", "parts")[0] == 0
    code, _, err = layerkit(*words, "--steps", 20, "--out", "parts")
    assert code == 2
    assert "--resume" in err
    assert layerkit(*words, "--steps", 20, "--out", "parts", "--resume")[0] == 0
    lk.load(tmp_path / "parts" / "model.h5", found)
    for name, p in net.params.items():
        np.testing.assert_array_equal(found.params[name].data, p.data)
    rows = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert rows == (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert (tmp_path / "whole" / "best.h5").exists()


def test_integers_keep_their_values(layerkit, tmp_path):
    (tmp_path / "ids.py").write_text(
        """
from layerkit import layers as L

def ids():
    return [
        L.Input("t", shape=(), integers=True),
        L.Reshape("same", "t", shape=(1,)),
        L.Embed("y", "t", count=9, units=2),
        L.Input("x", shape=(2,)),
        L.SquareLoss("loss", "y", "x"),
    ]
"""
    )
    np.savez("data.npz", t=np.arange(9), x=np.zeros((9, 2)))
    with h5py.File("data.h5", "w") as file:
        file["t"], file["x"] = np.arange(9), np.zeros((9, 2))
    large = np.array([2**24 + 1, 2**63 - 1, -(2**63)])
    np.save("large.npy", large)
    for words in (
        ["check", "ids.py"],
        ["time", "ids.py", "--iterations", 1],
        ["train", "ids.py", "--data", "data.h5", "--steps", 3, "--out", "run"],
        ["test", "ids.py", "--model", "run/model.h5", "--data", "data.npz"],
        ["infer", "ids.py", "--model", "run/model.h5", "--blob", "same", "--out", "same.npy",
         "--data", "t=large.npy", "--batch", 2],
    ):  # fmt: skip
        code, _, err = layerkit(*words)
        assert code == 0, err
    np.testing.assert_array_equal(np.load("same.npy")[:, 0], large)


def test_long_commands_show_how_far_they_are(layerkit, trained, monkeypatch):
    model = ["--model", "model.h5", "--data", "data.npz", "--batch", 2]
    commands = {
        "evaluating": ["test", "classifier.py", *model],
        "inferring": ["infer", "classifier.py", *model, "--blob", "h", "--out", "h.npy"],
        "timing layers": ["time", "classifier.py", "--iterations", 6],
        "checking": ["check", "classifier.py"],
    }
    counts = dict(zip(commands, (6, 6, 6, 5), strict=True))
    for words in commands.values():
        code, _, err = layerkit(*words)
        assert (code, err) == (0, "")  # in less than a second
    monkeypatch.setattr(bars, "DELAY", 0)
    for description, words in commands.items():
        code, out, err = layerkit(*words)
        assert code == 0, err
        count = counts[description]
        assert re.search(rf"{description}: 100%.* {count}\.?0*/{count}\.?0* ", err), err
        assert description not in out


def test_draw(layerkit, trained, tmp_path):
    code, out, _ = layerkit("draw", "classifier.py")
    assert code == 0
    assert out.startswith("digraph")
    assert layerkit("draw", "classifier.py", "--out", "net.mmd")[0] == 0
    assert "SoftmaxLoss" in (tmp_path / "net.mmd").read_text()


def test_nets_that_come_with_layerkit_have_names(layerkit):
    code, out, err = layerkit("check", "galaxy_gdae", "--set", "pixels=9", "hidden=3", "latent=2")
    assert code == 0, err
    assert "derivatives" in out
    code, _, err = layerkit("check", "galaxy_gade")
    assert code == 2
    assert "'galaxy_gdae'" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["infer", "classifier.py", "--model", "model.h5", "--data", "x=x.npy", "--blob", "q",
          "--out", "o.npy"], "'q'"),
        (["infer", "classifier.py", "--model", "model.h5", "--data", "x=x.npy", "--blob", "h",
          "--out", "o.txt"], "ends in .h5, .npz, .npy or .csv"),
        (["infer", "classifier.py", "--model", "model.h5", "--data", "x=x.npy", "--blob", "h",
          "logits", "--out", "o.npy"], "one blob"),
        (["infer", "classifier.py", "--model", "none.h5", "--data", "x=x.npy", "--blob", "h",
          "--out", "o.npy"], "none.h5"),
        (["infer", "classifier.py", "--model", "model.h5", "--data", "x=x.npy", "--blob", "h",
          "--out", "no/o.npy"], "cannot write"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "x=x.npy"], "'label'"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "x.npy"], "x=x.npy"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "y=x.npy"], "'y' is no input"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "classifier.py"], "HDF5, NPZ"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "x=x.csv", "label=label.npy"],
         "not an HDF5, NPZ or NPY file"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "objects.npz"],
         "save arrays of numbers"),
        (["test", "classifier.py", "--model", ".", "--data", "data.npz"], "a snapshot in it"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "none.npz"],
         "none.npz: no rows"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "one.npz"], "got one number"),
        (["train", "classifier.py", "--data", "data.npz", "--validate", "none.npz", "--out", "o"],
         "none.npz: no rows"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "x=data.h5:no",
          "label=label.npy"], "no data set 'no'"),
        (["test", "classifier.py", "--model", "model.h5", "--data", "data.npz", "x=x.npy"],
         "given twice"),
        (["test", "classifier.py", "--set", "units=9", "--model", "model.h5", "--data",
          "data.npz"], "shape"),
        (["check", "classifier.py", "--set", "unit=9"], "unit"),
        (["check", "classifier.py", "--set", "units"], "NAME=VALUE"),
        (["check", "classifier.py", "--batch", "0"], "from 1"),
        (["time", "classifier.py", "--iterations", "x"], "invalid int value"),
        (["train", "classifier.py", "--data", "data.npz"], "--out"),
        (["train", "classifier.py", "--data", "data.npz", "--out", "o", "--resume"], "no snapshot"),
        (["train", "classifier.py", "--data", "x=x.npy", "--out", "o"], "'label'"),
        (["train", "classifier.py", "--data", "data.npz", "--out", "o", "--final-rate", "0.1"],
         "--rate"),
        (["train", "classifier.py", "--data", "data.npz", "--out", "model.h5"], "model.h5"),
        (["draw", "classifier.py", "--out", "net.gif"], ".dot"),
        (["nothing"], "invalid choice"),
        ([], "COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(layerkit, trained, words, says):
    np.savetxt("x.csv", trained[1], delimiter=",")
    np.savez("none.npz", x=trained[1][:0], label=trained[2][:0])
    np.savez("one.npz", x=np.float32(3), label=np.float32(1))
    np.savez("objects.npz", x=np.array([None] * 11), label=trained[2])
    code, out, err = layerkit(*words)
    assert code == 2, out
    assert says in err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1, err
    assert "pickle" not in err


@pytest.mark.parametrize(
    ("data", "out", "says"),
    [
        ("x=x.npy", "x.npy", "that --data names"),
        ("data.npz", "data.npz", "that --data names"),
        ("x=data.h5:deep/x", "data.h5", "that --data names"),
        ("x=x.npy", "link.npy", "that --data names"),
        ("x=x.npy", "model.h5", "a layerkit snapshot"),
        ("x=x.npy", "other.h5", "a layerkit snapshot"),
        ("x=x.npy", "set.h5", "a layerkit galaxy set"),
    ],
)
def test_infer_replaces_nothing_that_it_reads_nor_a_model(layerkit, trained, data, out, says):
    os.symlink("x.npy", "link.npy")
    lk.save("other.h5", trained[0])
    hdf5.write_sealed("set.h5", "layerkit galaxy set", lambda file: None)
    before = Path(out).read_bytes()
    words = ["infer", "classifier.py", "--model", "model.h5", "--blob", "h", "--data", data]
    code, _, err = layerkit(*words, "--out", out)
    assert code == 2
    assert says in err
    assert Path(out).read_bytes() == before
    for _ in range(2):  # it replaces what it wrote
        assert layerkit(*words, "--out", "h.h5")[0] == 0


def test_a_run_that_failed_before_it_saved_is_begun_anew(layerkit, trained):
    _, x, label = trained
    np.savez("bad.npz", x=np.full_like(x, np.nan), label=label)
    words = ["train", "classifier.py", "--out", "run", "--data"]
    code, _, err = layerkit(*words, "bad.npz", "--steps", 20)
    assert code == 2
    assert "the data hold an infinity or not-a-number" in err
    assert layerkit(*words, "data.npz", "--steps", 20)[0] == 0
    log = Path("run", "log.csv").read_text()
    assert len(log.splitlines()) == 3
    assert layerkit(*words, "bad.npz", "--steps", 30, "--resume")[0] == 2
    assert Path("run", "log.csv").read_text() == log
    assert layerkit(*words, "data.npz", "--steps", 30, "--resume")[0] == 0


def test_a_log_without_a_snapshot_is_told(layerkit, trained):
    Path("run").mkdir()
    Path("run", "log.csv").write_text("iteration\n10\n")
    code, _, err = layerkit("train", "classifier.py", "--out", "run", "--data", "data.npz")
    assert code == 2
    assert "log.csv of an earlier run that saved nothing else; remove it" in err


@pytest.mark.parametrize("first", [True, False])
def test_resuming_with_other_breaks_names_the_option(layerkit, trained, first):
    words = ["train", "classifier.py", "--out", "run", "--data", "data.npz", "--every", 2]
    validate = [["--validate", "data.npz"], []]
    assert layerkit(*words, "--steps", 4, *validate[not first])[0] == 0
    code, _, err = layerkit(*words, "--steps", 6, "--resume", *validate[first])
    assert code == 2
    assert f"was begun with{'' if first else 'out'} --validate" in err
    assert "strict" not in err


CHECKED = {
    "ids": """[L.Input("x", shape=(3,)), L.Embed("e", "x", count=5, units=2),
        L.Input("y", shape=(2,)), L.OneHot("o", "y", count=3), L.Dense("d", "e", units=2)]""",
    "classes": """[L.Input("x", shape=(2, 6, 6)), L.Permute("p", "x", order=(1, 2, 0)),
        L.Input("t", shape=(6, 6)), L.SoftmaxLoss("s", "p", "t", axis=-1)]""",
    "soft": """[L.Input("x", shape=(6,)), L.Dense("d", "x", units=4), L.Input("t", shape=(4,)),
        L.SoftmaxLoss("s", "d", "t")]""",
    "hinge": """[L.Input("x", shape=(6,)), L.Input("t", shape=()), L.HingeLoss("s", "x", "t"),
        L.Input("u", shape=(6,)), L.HingeLoss("v", "x", "u")]""",
    "pairs": """[L.Input("x", shape=(6,)), L.Input("y", shape=(6,)), L.Input("t", shape=()),
        L.ContrastiveLoss("s", "x", "y", "t")]""",
    "counts": """[L.Input("x", shape=(6,)), L.Dense("d", "x", units=6, neuron="softplus"),
        L.PoissonReconstruction("s", "x", "d")]""",
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_check_makes_labels_and_ids_that_layers_take(name, layerkit):
    Path("net.py").write_text(
        f"from layerkit import layers as L\n\ndef net():\n    return {CHECKED[name]}\n"
    )
    code, out, err = layerkit("check", "net.py")
    assert (code, err) == (0, "")
    assert "derivatives of" in out
