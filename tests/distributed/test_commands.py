"""Commands that mpiexec starts give what one process gives."""

import json

import h5py
import numpy as np
from galaxy_runs import materials, quicken
from processes import program, run

from layerkit import galaxy

NET = """
from layerkit import layers as L

def net():
    return [
        L.Input("x", shape=(6,)), L.Input("t", shape=()),
        L.Dense("h", "x", units=5, neuron="relu"), L.Dense("y", "h", units=3),
        L.SoftmaxLoss("loss", "y", "t"),
    ]
"""


def values(path):
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tolist()

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_two_processes_train_what_one_trains(tmp_path, rng):
    (tmp_path / "net.py").write_text(NET)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(50, 6)), t=rng.integers(0, 3, 50))
    command = ["-m", "layerkit", "train", tmp_path / "net.py", "--data", tmp_path / "data.npz"]
    command += ["--validate", tmp_path / "data.npz", "--steps", 20, "--batch", 4, "--every", 5]
    shown, found = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = run(processes, *command, "--shards", 2, "--out", out)
        assert done.returncode == 0, done.stderr
        shown.append([line for line in done.stdout.splitlines() if "shards" not in line])
        logged = (out / "log.csv").read_text()
        found.append([values(out / "model.h5"), values(out / "best.h5"), logged])
    assert shown[0] == shown[1]
    assert found[0] == found[1]
    again = run(2, *command, "--out", tmp_path / "1")
    assert again.returncode
    assert again.stderr.count("of an earlier run; continue it with --resume") == 1


def test_two_processes_train_the_galaxies_that_one_trains(tmp_path, monkeypatch):
    """From pictures, and from a set in shards, of which each process reads its own."""
    pictures, net = materials(tmp_path / "given")
    shards = tmp_path / "shards"
    galaxy.prepare_shards(pictures, shards, each=7, workers=1, progress=False)
    settings = {"net": net, "shards": 2, "held_out": 6, "refine": 0, "importance_samples": 1}
    runs = {
        "pictures": settings | {"data": pictures, "batch": 4, "iterations": 4},
        "shards": settings | {"data": shards, "batch": 2, "iterations": 9},
    }
    quicken(monkeypatch)
    words = []
    for name, given in runs.items():
        galaxy.train(out=tmp_path / "one" / name, **given)
        given = given | {"out": tmp_path / "two" / name}
        pairs = [(f"--{key.replace('_', '-')}", str(value)) for key, value in given.items()]
        words.append([word for pair in pairs for word in pair])
    done = program(2, "galaxies", json.dumps(words), limit=120)
    assert done.returncode == 0, done.stderr
    for name in runs:
        one, two = (tmp_path / which / name for which in ("one", "two"))
        assert (one / "report.html").exists()
        assert (two / "report.html").exists()
        assert values(one / "model.h5") == values(two / "model.h5")
