"""examples/galaxy_gdae.py as a user runs it: its results, its resuming, and what bad input gets."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from galaxy_runs import DRAW, SMALL_NET, galaxy_picture, measure_in_full, quicken
from PIL import Image
from threadpoolctl import threadpool_limits

from layerkit.errors import SnapshotError
from layerkit.saving.snapshot import read_extra
from layerkit.system import interrupt
from layerkit.system.locks import lock

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "galaxy_gdae.py"
SIDE = 69
# Every warning is an error, but for the one that says that nothing was compiled.
WARNINGS = ["-W", "error", "-W", "ignore:layerkit's compiled kernels"]


@pytest.fixture(scope="module", autouse=True)
def _quick_runs():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


@pytest.fixture
def folder(tmp_path, rng):
    """Thirty pictures of galaxies, and four files that are not."""
    path = tmp_path / "pictures"
    path.mkdir()
    for i in range(30):
        galaxy_picture(rng).save(path / f"{i:03d}.jpg", quality=95)
    whole = (path / "000.jpg").read_bytes()
    (path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (path / "words.jpg").write_text("this is not a picture")
    Image.new("RGB", (160, 160)).save(path / "black.png")
    return path


@pytest.fixture
def net_file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL_NET)
    return path


def start(*arguments):
    """The example in a process of its own."""
    command = [sys.executable, *WARNINGS, str(EXAMPLE), *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def refused(monkeypatch, capsys, *arguments):
    """The one line with which the example, run in this process, refuses its arguments."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    return lines[0]


def snapshot(path):
    """Everything in a snapshot that decides what comes next."""
    values = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                values.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        values["state"] = file.attrs["state"]
        values["history"] = json.loads(file.attrs["extra"])["history"]
    return values


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_run_writes_all_its_results_and_a_killed_one_resumed_equals_it(
    tmp_path, folder, net_file, ended, monkeypatch, capsys
):
    options = [
        "--data",
        folder,
        "--net",
        net_file,
        "--held-out",
        6,
        "--batch",
        7,
        "--seed",
        3,
        "--set",
        "hidden=5",
        "--kl-warm-up",
        900,
        "--samples",
        2,
        "--keep",
        "best",
        "--augment",
        "none",
        "--final-rate",
        1e-5,
        "--refine",
        3,
        "--importance-samples",
        5,
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    measure_in_full(monkeypatch, DRAW)  # as in a process
    with threadpool_limits(1):
        code, out, err = ended(*options, "--iterations", 1500, "--out", whole)
    assert code == 0, err
    assert "report.html" in out
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["images_read"] == 33
    assert metrics["images_kept"] == 33 - sum(metrics["excluded"].values()) >= 25
    assert sum(metrics["excluded"].values()) >= 3
    assert metrics["train"] + metrics["validation"] + 6 == metrics["images_kept"]
    expected = {"held_out": 6, "iterations": 1500, "backend": "numpy", "seed": 3, "latent": 2}
    assert expected.items() <= metrics.items()
    for key in ("iterations_per_second", "images_per_second", "train_elbo", "held_out_elbo"):
        assert np.isfinite(metrics[key])
    assert metrics["held_out_kl"] > 0
    expected = {
        "net_settings": {"hidden": 5},
        "kl_warm_up": 900,
        "samples": 2,
        "keep": "best",
        "augment": "none",
        "final_rate": 1e-5,
    }
    assert expected.items() <= metrics.items()
    side = int(metrics["pixels"].split()[0])  # that of the median crop, which is 55 to 68 pixels
    assert 45 < side <= SIDE
    with h5py.File(whole / "model.h5") as file:
        assert file["params/g/weight"].shape == (side * side, 5)
        extra = json.loads(file.attrs["extra"])
    history = extra["history"]
    assert metrics["latent_temperature"] == extra["latent_temperature"]
    assert len(metrics["latent_scatter_over_sd"]) == len(metrics["latent_temperature"]) == 2
    assert "unchecked" not in out  # there are 30 pictures, of which 2 are watched
    best = np.argmax(history["validation_elbo"])
    assert metrics["kept_iteration"] == history["iteration"][best]
    for key in ("mse_wins", "likelihood_wins", "pca_mse_wins"):
        assert 0 <= metrics[key] <= 6
    monkeypatch.setattr(sys, "argv", ["results_table.py", str(whole)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLE.parent / "results_table.py"), run_name="__main__")
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert "small.py hidden=5" in table[2]
    for figure in ("reconstructions", "embedding", "traversal", "samples", "learning_curves"):
        assert np.asarray(Image.open(whole / f"{figure}.png").convert("L")).std() > 1
    assert "<html" in (whole / "report.html").read_text()

    # Interrupted as by Ctrl-C once it trains, then resumed with no settings repeated.
    process = start(*options, "--iterations", 1500, "--out", killed)
    seen = ""
    while not seen.endswith("training"):  # the progress bar appears
        seen += process.stderr.read(1)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = int(re.search(r"stopped at iteration (\d+) of 1500.*--resume", out)[1])
    assert 0 <= stopped < 1500
    measure_in_full(monkeypatch)
    with threadpool_limits(1):
        assert ended("--resume", "--out", killed)[0] == 0
    assert same(snapshot(whole / "model.h5"), snapshot(killed / "model.h5"))
    again = json.loads((killed / "metrics.json").read_text())
    assert "--resume" not in again["command"]
    assert "--samples 2" in again["command"]
    for key in (
        "train_elbo",
        "held_out_elbo",
        "held_out_kl",
        "held_out_iwae",
        "mse_wins",
        "likelihood_wins",
        "sersic_mse_wins",
        "morphology",
        "kept_iteration",
        "latent_temperature",
        "latent_scatter_over_sd",
    ):
        assert again[key] == metrics[key]


def test_settings_of_the_net_file_are_checked(monkeypatch, capsys, tmp_path):
    for words, told in (
        (["hidden"], "NAME=VALUE"),
        (["hiden=5"], "hiden"),
        (["hidden=many"], "many"),
    ):
        monkeypatch.setattr(
            sys, "argv", [str(EXAMPLE), "--out", str(tmp_path / "out"), "--set", *words]
        )
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert told in err
        assert "Traceback" not in err


def test_tiny_runs_on_the_built_in_galaxies(tmp_path, ended):
    code, out, err = ended("--tiny", "--iterations", 5, "--out", tmp_path / "out")
    assert code == 0, err
    assert "Hubble Deep Field" in (tmp_path / "out" / "report.html").read_text()
    assert "paper: 971 of 1000" in out


def layer_list(*layers):
    return f"from layerkit import layers as L\n\ndef bad():\n    return [{', '.join(layers)}]\n"


BAD_NETS = {
    "duplicate top": (
        layer_list('L.Input("x", shape=(4,))', 'L.ReLU("a", "x")', 'L.ReLU("b", "x", tops="a")'),
        "'a'",
    ),
    "missing bottom": (layer_list('L.Input("x", shape=(4,))', 'L.ReLU("a", "y")'), "'y'"),
    "cycle": (layer_list('L.ReLU("a", "b")', 'L.ReLU("b", "a")'), "circle"),
    "shape mismatch": (
        layer_list('L.Input("x", shape=(4,))', 'L.Input("y", shape=(5,))', 'L.Add("a", "x", "y")'),
        "'a'",
    ),
    "unknown setting": (layer_list('L.Input("x", shape=(4,), size=3)'), "size"),
    "no loss": (layer_list('L.Input("x", shape=(4,))', 'L.ReLU("a", "x")'), "loss|Reconstruction"),
    "syntax error": ("def bad(:\n", "line 1"),
    "no function": ("x = 1\n", r"bad\(\)"),
}


@pytest.mark.parametrize("fault", BAD_NETS)
def test_a_bad_net_file_is_refused_before_any_work(fault, tmp_path, monkeypatch, capsys):
    text, expected = BAD_NETS[fault]
    path, out = tmp_path / "bad.py", tmp_path / "out"
    path.write_text(text)
    line = refused(monkeypatch, capsys, "--net", path, "--out", out)
    assert "bad.py" in line or "layer" in line
    assert re.search(expected, line), line
    assert not any(out.iterdir())


def empty_zip(path):
    with zipfile.ZipFile(path, "w"):
        pass
    return path


def folder_of_words(path):
    path.mkdir()
    (path / "a.jpg").write_text("not a picture")
    return path


def empty_folder(path):
    path.mkdir()
    return path


def broken_zip(path):
    path.write_bytes(b"PK\x03\x04 and then nothing of use")
    return path


def truncated_set(path):
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((50, SIDE, SIDE))
    path.write_bytes(path.read_bytes()[:5000])
    return path


@pytest.mark.parametrize(
    "make",
    [lambda p: p, empty_zip, empty_folder, folder_of_words, broken_zip, truncated_set],
    ids=["missing", "empty zip", "empty folder", "no usable galaxy", "broken zip", "truncated"],
)
def test_bad_data_is_refused_by_name(make, tmp_path, monkeypatch, capsys):
    path = make(tmp_path / "data.h5" if make is truncated_set else tmp_path / "data.zip")
    line = refused(monkeypatch, capsys, "--data", path, "--out", tmp_path / "out")
    assert path.name in line
    assert not any((tmp_path / "out").iterdir())


def test_a_snapshot_that_cannot_be_resumed_is_refused_and_kept(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert "no snapshot" in refused(monkeypatch, capsys, "--resume", "--out", out)
    (out / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n and then it was cut off")
    before = (out / "model.h5").read_bytes()
    assert "model.h5" in refused(monkeypatch, capsys, "--resume", "--out", out)
    assert before == (out / "model.h5").read_bytes()
    assert [p.name for p in out.iterdir()] == ["model.h5"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    line = refused(monkeypatch, capsys, "--tiny", "--out", tmp_path / "file" / "out")
    assert "cannot write" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_snapshot(
    trained, bands, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", "--out", out]
    line = refused(monkeypatch, capsys, *options, *QUICK, "--rate", 1e30)
    assert "not finite" in line or "nan" in line or "inf" in line
    assert re.search("(blob|parameter) '", line), line
    shutil.copytree(trained, out, dirs_exist_ok=True)
    before = (out / "model.h5").read_bytes()
    line = refused(
        monkeypatch, capsys, "--resume", "--out", out, "--rate", 1e30, "--iterations", 60
    )
    assert re.search("(blob|parameter) '", line), line
    assert (out / "model.h5").read_bytes() == before


# Whose results are in a folder.

QUICK = ["--held-out", 6, "--batch", 7, "--refine", 2, "--importance-samples", 3]


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    """Two folders of pictures with equal names, and a net file."""
    top = tmp_path_factory.mktemp("bands")
    for seed, band in enumerate("gr"):
        rng = np.random.default_rng(seed)
        folder = top / band / "pictures"
        folder.mkdir(parents=True)
        for i in range(24):
            galaxy_picture(rng, side=112).save(folder / f"{i:03d}.bmp")
    (top / "small.py").write_text(SMALL_NET)
    return top


@pytest.fixture(scope="module")
def trained(bands):
    """A folder with the results of two iterations on the first band, to be copied."""
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", *QUICK]
    with pytest.MonkeyPatch.context() as patched:
        arguments = [str(EXAMPLE), *options, "--iterations", 2, "--out", bands / "trained"]
        patched.setattr(sys, "argv", [*map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert exit_.value.code == 0
    return bands / "trained"


@pytest.fixture
def ended(monkeypatch, capsys):
    """Runs the example in this process; returns status, output and errors."""

    def end(*arguments):
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return exit_.value.code, out, err

    return end


def contents(folder):
    """Every file's content, but for the folders of earlier results."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("before-")
    }


def test_two_bands_one_after_the_other(bands, tmp_path, ended):
    out = tmp_path / "out"
    options = ["--net", bands / "small.py", *QUICK, "--iterations", 3, "--out", out]
    assert ended("--data", bands / "g" / "pictures", *options)[0] == 0
    first, before = json.loads((out / "metrics.json").read_text()), contents(out)
    assert first["data"] == str(bands / "g" / "pictures")

    # A run that continues takes no other pictures, nor does it touch what there is.
    code, _, err = ended("--resume", "--out", out, "--data", bands / "r" / "pictures")
    assert code == 2
    assert "other galaxies" in err
    assert contents(out) == before

    code, said, _ = ended("--data", bands / "r" / "pictures", *options)
    assert code == 0
    assert "before-1" in said
    second = json.loads((out / "metrics.json").read_text())
    assert contents(out / "before-1") == before, "all together"
    assert second["data"] == str(bands / "r" / "pictures")
    assert second["galaxies"] != first["galaxies"]
    alone = tmp_path / "alone"
    assert ended("--data", bands / "r" / "pictures", *options, "--out", alone)[0] == 0
    assert same(snapshot(alone / "model.h5"), snapshot(out / "model.h5"))

    # Trained further: the finished model and its report are set aside, the galaxies stay.
    before = contents(out)
    assert ended("--resume", "--iterations", 5, "--out", out)[0] == 0
    kept = {k: v for k, v in before.items() if "/" not in k and k != "galaxies.h5"}
    assert contents(out / "before-2") == kept
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["iterations"] == 5
    began, went_on = metrics["command"].split(" && ")
    assert began == second["command"]
    assert went_on.endswith(f"--resume --iterations 5 --out {out}")
    assert contents(out)["galaxies.h5"] == before["galaxies.h5"]
    assert ended("--resume", "--out", out)[0] == 0, "draws again"
    assert not (out / "before-3").exists()


def test_a_run_that_comes_to_nothing_leaves_what_there_is(bands, tmp_path, ended, monkeypatch):
    out = tmp_path / "out"
    options = ["--net", bands / "small.py", *QUICK, "--out", out]
    data = ["--data", bands / "g" / "pictures"]
    assert ended(*data, *options, "--iterations", 3)[0] == 0
    before = contents(out)
    empty = tmp_path / "nothing"
    empty.mkdir()
    for words in (
        [*data, *options, "--rate", 1e300],
        [*data, *options, "--set", "hidden=none"],
        [*options, "--data", empty],
        ["--resume", "--out", out, "--rate", 1e300, "--epochs", 9],
    ):
        assert ended(*words)[0] == 2
        assert contents(out) == before
    with lock(out, "somebody else"):
        code, _, err = ended(*data, *options)
        assert code == 2
        assert "somebody else" in err
    assert contents(out) == before

    # Killed before it has anything of its own, and a disk that is full at its first snapshot.
    def full(*_, **__):
        raise SnapshotError("cannot write snapshot: no space left on device")

    monkeypatch.setattr("layerkit.save", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, err = ended(*data, *options, "--iterations", 3)
    assert code == 2
    assert "no space left on device; nor could it be saved anywhere" in err
    assert contents(out / "before-1") == {
        k: v for k, v in before.items() if "/" not in k and k != "galaxies.h5"
    }
    assert set(contents(out)) == {k for k in before if "/" in k or k == "galaxies.h5"}


def test_a_full_disk_is_tried_again_and_the_state_saved_elsewhere(
    bands, tmp_path, ended, monkeypatch, capsys
):
    import layerkit as lk

    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    whole, tries = lk.save, []

    def save(path, *arguments, **settings):
        if Path(path).parent == out:
            tries.append(path)
            if len(tries) < 3 or len(tries) > 4:
                raise SnapshotError(f"cannot write snapshot {path}: no space left")
        whole(path, *arguments, **settings)

    clock = iter(range(0, 10**9, 15))  # seconds: a snapshot falls due every other time it is read
    monkeypatch.setattr("layerkit.save", save)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", *QUICK]
    code, _, err = ended(*options, "--iterations", 5, "--out", out)
    assert code == 2
    assert err.count("warning: cannot write snapshot") >= 2
    assert "training continues" in err
    assert len(tries) >= 5
    (error,) = [line for line in err.splitlines() if line.startswith("error:")]
    (place,) = elsewhere.iterdir()
    assert str(place) in error
    monkeypatch.undo()
    for file in place.iterdir():
        file.replace(out / file.name)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--resume", "--out", str(out)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert exit_.value.code == 0, capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text())["iterations"] == 5


def test_a_net_file_may_move_or_change_in_the_meantime(bands, tmp_path, ended, monkeypatch):
    folder, out = tmp_path / "nets", tmp_path / "out"
    folder.mkdir()
    (folder / "sizes.py").write_text("LATENT = 3\n")
    text = SMALL_NET.replace("latent=2", "latent=sizes.LATENT")
    (folder / "copy of small.py").write_text("import sizes\n" + text)
    monkeypatch.chdir(folder)
    data = os.path.relpath(bands / "g" / "pictures")
    options = ["--data", data, "--net", "copy of small.py", *QUICK, "--set", "hidden=5"]
    assert ended(*options, "--iterations", 2, "--out", os.path.relpath(out))[0] == 0
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "moved")
    code, _, err = ended("--resume", "--out", out, "--iterations", 3)
    assert code == 2
    assert "sizes" in err
    assert "--net" in err
    new = tmp_path / "moved" / "copy of small.py"
    assert ended("--resume", "--out", out, "--iterations", 3, "--net", new)[0] == 0
    # Without neighbours it needs no place at all, and a change is no part of the run.
    new.write_text(text.replace("sizes.LATENT", "3"))
    assert ended("--resume", "--out", out, "--iterations", 4, "--net", new)[0] == 0
    new.write_text("nothing like it")
    code, _, err = ended("--resume", "--out", out, "--iterations", 5, "--seed", 7)
    assert code == 2
    assert "keeps its seed" in err
    code, said, _ = ended("--resume", "--out", out, "--iterations", 5)
    assert code == 0
    assert "has changed since the run began" in said
    new.unlink()
    assert ended("--resume", "--out", out, "--iterations", 6)[0] == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["net_settings"] == {"hidden": 5}
    assert metrics["latent"] == 3


def test_results_among_the_pictures(bands, tmp_path, ended):
    folder = tmp_path / "pictures"
    shutil.copytree(bands / "g" / "pictures", folder)
    options = ["--data", folder, "--net", bands / "small.py", *QUICK, "--iterations", 2]
    for out in (folder, folder / "out", folder / "out"):
        assert ended(*options, "--out", out)[0] == 0
        assert json.loads((out / "metrics.json").read_text())["images_read"] == 24


def test_a_number_that_is_also_a_folder(bands, tmp_path, ended, monkeypatch):
    """--held-out 6 beside a folder named 6 is either; a run that began before it is resumed."""
    monkeypatch.chdir(tmp_path)
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", "--iterations", 2]
    assert ended(*options, *QUICK, "--out", "a")[0] == 0
    (tmp_path / "6").mkdir()
    for path in sorted((bands / "r" / "pictures").iterdir())[:4]:
        shutil.copy(path, "6")
    code, _, err = ended(*options, *QUICK, "--out", "b")
    assert code == 2
    assert "give ./6 for the path, or +6 for the number" in err
    for text, held_out in (("+6", 6), ("./6", 4)):
        assert ended(*options, "--held-out", text, *QUICK[2:], "--out", "b")[0] == 0
        assert json.loads((tmp_path / "b" / "metrics.json").read_text())["held_out"] == held_out
    assert ended("--resume", "--out", "a", "--iterations", 3)[0] == 0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["held_out"] == 6


def test_metrics_tell_how_the_model_was_trained(bands, tmp_path, ended):
    """Not what a later command line says of it."""
    out = tmp_path / "out"
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", *QUICK]

    def metrics():
        return json.loads((out / "metrics.json").read_text())

    assert ended(*options, "--iterations", 10, "--rate", 0.01, "--out", out)[0] == 0
    first = metrics()
    assert first["epochs"] == pytest.approx(10 * 7 / first["train"])
    again = "--resume", "--out", out
    late = ["--rate", 0.1, "--batch", 2, "--warm-up", 4, "--keep", "best", "--centre"]
    code, said, err = ended(*again, *late)
    assert code == 0, err
    named = re.search("no effect: (.*); the model is trained already", said)[1]
    assert set(named.split(", ")) == {"--rate", "--batch", "--warm-up", "--keep", "--centre"}
    second = metrics()
    settings = "rate", "final_rate", "batch", "warm_up", "keep", "kept_iteration", "centre"
    for key in (*settings, "epochs", "iterations"):
        assert second[key] == first[key], key
    assert "earlier_settings" not in second
    for _ in range(2):  # the second time there is nothing to train
        assert ended(*again, "--iterations", 16, "--batch", 2)[0] == 0
        third = metrics()
        assert third["batch"] == 2
        assert third["epochs"] == pytest.approx((10 * 7 + 6 * 2) / third["train"])
        assert third["earlier_settings"] == "--batch 7 until iteration 10"
        assert third["images_per_second"] == pytest.approx(
            third["epochs"] * third["train"] / third["seconds"]
        )


@pytest.mark.parametrize(
    "words",
    [
        "--held-out -5",
        "--held-out 0",
        "--held-out 2.5",
        "--held-out nan",
        "--rate nan",
        "--rate inf",
        "--rate 0",
        "--rate 1e999",
        "--final-rate nan",
        "--iterations 1e9",
        "--iterations 99999999999",
        "--epochs 0",
        "--batch 0",
        "--batch 2147483647",
        "--seed -1",
        "--seed 99999999999999999999",
        "--set latent=-1",
        "--set hidden=x",
        "--set path=3",
        "--set latent={1,2}",
        "--backend tpu",
        "--backend cupy",
        "--samples 0",
        "--refine -1",
        "--refine 1000001",
        "--importance-samples 0",
        "--importance-samples 1000001",
        "--batch 65536 --samples 32768",
        "--net /",
        "--out /dev/null/x",
        "--data /dev/null",
        "--hdu 1 --data /dev/null",
    ],
)
def test_no_words_get_a_traceback(words, bands, tmp_path, ended, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    data = ["--data", bands / "g" / "pictures", "--net", bands / "small.py"]
    code, _, err = ended("--out", tmp_path / "out", *data, *words.split())
    assert code == 2
    assert "error: " in err
    assert not (tmp_path / "out" / "model.h5").exists()


def test_too_many_rows_in_a_step_are_named_by_what_makes_them(bands, tmp_path, ended):
    code, _, err = ended("--out", tmp_path, "--batch", 65536, "--samples", 32768)
    assert code == 2
    assert "--batch 65536 and --samples 32768 make 2147483648 rows" in err


@pytest.mark.parametrize("name", ["--data", "--net", "--out", "--held-out"])
def test_an_empty_path_is_not_this_folder(name, ended):
    code, _, err = ended(name, "")
    assert code == 2
    assert name in err


def test_a_snapshot_of_something_else_is_not_resumed(bands, tmp_path, ended):
    import layerkit as lk

    net = lk.Net(lk.load_net(bands / "small.py"), 1)
    good = {"settings": {"set": {}, "command": "x"}, "history": {}}
    for extra in (
        None,
        {"a": 1},
        {"settings": []},
        {"settings": {"set": 3, "command": ""}},
        {"settings": {**good["settings"], "batch": "many"}},
        {"settings": {**good["settings"], "rate": float("nan")}},
        {"settings": {**good["settings"], "keep": ["best"]}},
    ):
        lk.save(tmp_path / "model.h5", net, lk.Adam(net), extra)
        before = (tmp_path / "model.h5").read_bytes()
        code, _, err = ended("--resume", "--out", tmp_path)
        assert code == 2
        assert "model.h5" in err
        assert (tmp_path / "model.h5").read_bytes() == before


@pytest.mark.parametrize("bad", [None, "hot", [0.5, 1.0], [1.0] * 3, [1.0, float("nan")], {}])
def test_a_temperature_that_is_none_is_refused(bad, bands, trained, tmp_path, ended):
    import layerkit as lk

    out = tmp_path / "out"
    shutil.copytree(trained, out)
    side = int(json.loads((out / "metrics.json").read_text())["pixels"].split()[0])
    layers = lk.load_net(bands / "small.py", pixels=side * side)
    data = lk.layers.MemoryData("x", data=np.zeros((1, side, side)), augment="dihedral")
    net = lk.Net(lk.with_data(layers, data), 7)
    solver = lk.Adam(net)
    extra = lk.load(out / "model.h5", net, solver)
    assert len(extra["latent_temperature"]) == 2
    lk.save(out / "model.h5", net, solver, {**extra, "latent_temperature": bad})
    before = (out / "model.h5").read_bytes()
    code, _, err = ended("--resume", "--out", out, "--iterations", 4)
    assert code == 2
    assert "model.h5" in err
    assert (out / "model.h5").read_bytes() == before


def test_held_out_galaxies_of_another_size_are_refused_before_training(bands, tmp_path, ended):
    from layerkit import galaxy

    others = tmp_path / "others.h5"
    source = galaxy.open_source(bands / "r" / "pictures")
    galaxy.prepare(source, others, size=20, progress=False)
    code, _, err = ended(
        "--data",
        bands / "g" / "pictures",
        "--net",
        bands / "small.py",
        "--held-out",
        others,
        "--out",
        tmp_path / "out",
    )
    assert code == 2
    assert "others.h5" in err
    assert "20 x 20" in err
    assert not (tmp_path / "out" / "model.h5").exists()


def test_the_size_that_a_net_is_told_is_that_of_the_galaxies(bands, tmp_path, ended):
    options = [
        "--data",
        bands / "g" / "pictures",
        "--net",
        bands / "small.py",
        *QUICK,
        "--iterations",
        2,
    ]
    assert ended(*options, "--set", "pixels=576", "--out", tmp_path / "a")[0] == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["pixels"] == "24 x 24"
    assert metrics["net_settings"] == {"pixels": 576}
    fixed = tmp_path / "fixed.py"  # without a setting for it
    fixed.write_text(
        SMALL_NET.replace("small(pixels=4761, ", "small(").replace(
            "return [", "pixels = 900\n    return ["
        )
    )
    options[3] = fixed
    assert ended(*options, "--out", tmp_path / "b")[0] == 0
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["pixels"] == "30 x 30"
    # A number that is no square of a side.
    options[3] = bands / "small.py"
    code, out, err = ended(*options, "--set", "pixels=577", "--out", tmp_path / "c")
    assert code == 2
    assert "the net takes 577 pixels, and galaxies are square: 576 would be 24 x 24" in err
    assert "images read" not in out  # refused before any picture is prepared
    assert not (tmp_path / "c" / "galaxies.h5").exists()


def test_a_run_that_ends_before_it_was_ever_watched_has_its_curves(
    bands, tmp_path, ended, monkeypatch
):
    """A long run stopped early, and told then that this was all."""

    class AtOnce(interrupt.Interrupt):
        count = 0

        @property
        def requested(self):
            AtOnce.count += 1
            return AtOnce.count > 5

    out = tmp_path / "out"
    options = ["--data", bands / "g" / "pictures", "--net", bands / "small.py", *QUICK]
    with monkeypatch.context() as patched:
        patched.setattr(interrupt, "Interrupt", AtOnce)
        assert ended(*options, "--iterations", 100000, "--out", out)[0] == 130
    stopped = read_extra(out / "model.h5")
    assert stopped["history"]["iteration"] == []
    assert len(stopped["recent"]) == 5
    code, _, err = ended("--resume", "--iterations", 3, "--out", out)
    assert code == 0, err
    history = read_extra(out / "model.h5")["history"]
    assert history["iteration"] == [5]
    assert history["train_elbo"] == [pytest.approx(-np.mean(stopped["recent"]))]
    assert np.isfinite(history["validation_elbo"] + history["kl"]).all()


def test_all_galaxies_held_out(bands, tmp_path, ended):
    pictures = bands / "g" / "pictures"
    code, _, err = ended(
        "--data",
        pictures,
        "--held-out",
        pictures,
        "--net",
        bands / "small.py",
        "--out",
        tmp_path / "out",
    )
    assert code == 2
    assert "galaxies of " in err
    assert "is left to train on" in err


def test_copies_of_held_out_galaxies_are_not_trained_on(bands, tmp_path, ended):
    """Under other names in another folder, or in the very folder."""
    pictures, copies = bands / "g" / "pictures", tmp_path / "copies"
    copies.mkdir()
    for path in pictures.iterdir():
        shutil.copy(path, copies / f"copy of {path.name}")
    options = ["--net", bands / "small.py", "--iterations", 2, *QUICK[2:]]
    given = "--data", pictures, "--held-out", copies
    code, _, err = ended(*given, *options, "--out", tmp_path / "a")
    assert code == 2
    assert "is left to train on: all others are copies" in err
    for path in pictures.iterdir():
        shutil.copy(path, copies)
    code, said, err = ended("--data", copies, "--held-out", 6, *options, "--out", tmp_path / "b")
    assert code == 0, err
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    left_out = int(re.search(r"(\d+) of the galaxies are copies", said)[1])
    used = metrics["train"] + metrics["validation"] + metrics["held_out"]
    assert 1 <= left_out <= 6
    assert metrics["images_kept"] - used == left_out


def test_equal_file_names_of_other_galaxies_are_trained_on(bands, tmp_path, ended):
    """Two folders that number their pictures alike, as `train` and `test` often do."""
    pictures, others = bands / "g" / "pictures", tmp_path / "others"
    others.mkdir()
    for path in sorted((bands / "r" / "pictures").iterdir())[:8]:
        shutil.copy(path, others)
    options = ["--net", bands / "small.py", "--iterations", 2, *QUICK[2:]]
    given = "--data", pictures, "--held-out", others
    code, said, err = ended(*given, *options, "--out", tmp_path / "a")
    assert code == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    kept = int(re.search(r"(\d+) of the galaxies have ids .* look different", said)[1])
    left_out = metrics["images_kept"] - metrics["train"] - metrics["validation"]
    assert metrics["held_out"] == kept + left_out
    assert kept >= 6  # by chance one in eight is most like its namesake


def test_galaxies_with_the_ids_of_held_out_ones_are_counted_aloud(bands, tmp_path, ended):
    pictures, others = bands / "g" / "pictures", tmp_path / "others"
    others.mkdir()
    for path in sorted(pictures.iterdir())[:3]:
        shutil.copy(path, others)
    options = ["--net", bands / "small.py", "--iterations", 2, *QUICK[2:]]
    given = "--data", pictures, "--held-out", others
    code, said, err = ended(*given, *options, "--out", tmp_path / "a")
    assert code == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    left_out = int(re.search(r"(\d+) of the galaxies have ids", said)[1])
    assert left_out == metrics["held_out"]
    assert metrics["images_kept"] - metrics["train"] - metrics["validation"] == left_out


@pytest.mark.skipif(os.name != "posix", reason="signals and file names as POSIX has them")
def test_a_closed_terminal_a_second_run_and_a_hint_that_can_be_pasted(bands, tmp_path, ended):
    out = tmp_path / "out of 'reach' \udcff"
    pictures = tmp_path / "p\udcff"
    try:
        shutil.copytree(bands / "g" / "pictures", pictures)
        for path in pictures.iterdir():
            path.rename(pictures / f"\udcfe{path.name}")
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    options = ["--data", pictures, "--net", bands / "small.py", *QUICK, "--out", out]
    first = start(*options, "--iterations", 1000000)
    seen = ""
    while not seen.endswith("training"):
        seen += first.stderr.read(1)
    code, _, err = ended(*options)
    assert code == 2
    assert "is in use by a training run" in err
    first.send_signal(signal.SIGHUP)
    said, err = first.communicate(timeout=300)
    assert first.returncode == 130, err
    hint = re.search("continue with: (.*)", said)[1]
    # Somewhere else, into a pipe that nobody reads: trains no more, saves, and says so.
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f"{hint} --iterations 2000000 2>&1 | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        ],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 141, shown
    assert {p.name for p in out.iterdir()} == {
        "model.h5", "galaxies.h5", "contact_sheets", "run.toml"
    }  # fmt: skip
