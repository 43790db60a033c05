"""Commands that mpiexec starts give what one process gives."""

import h5py
import numpy as np
import pytest
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


def test_two_processes_train_on_shards_what_one_trains(tmp_path):
    pictures, net = materials(tmp_path)
    galaxy.prepare_shards(pictures, tmp_path / "shards", each=7, workers=1, progress=False)
    settings = {"data": tmp_path / "shards", "net": net, "shards": 2, "batch": 2, "held_out": 6}
    compare_one_and_two(tmp_path, settings | {"iterations": 9})


def test_two_processes_train_the_galaxies_that_one_trains(tmp_path):
    pictures, net = materials(tmp_path / "given")
    settings = {"data": pictures, "net": net, "shards": 2, "batch": 4, "held_out": 6}
    compare_one_and_two(tmp_path, settings | {"iterations": 4})


def compare_one_and_two(tmp_path, settings):
    """Train on galaxies, without figures, in this process and in two others."""
    settings |= {"refine": 0, "importance_samples": 1}
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        galaxy.train(out=tmp_path / "1", **settings)
    words = [w for name, value in settings.items() for w in (f"--{name.replace('_', '-')}", value)]
    done = program(2, "galaxies", *words, "--out", tmp_path / "2", limit=120)
    assert done.returncode == 0, done.stderr
    for out in (tmp_path / "1", tmp_path / "2"):
        assert (out / "report.html").exists()
    assert values(tmp_path / "1" / "model.h5") == values(tmp_path / "2" / "model.h5")
