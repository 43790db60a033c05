"""examples/galaxy_gdae.py as a user runs it: its results, its resuming, and what bad input gets."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parent.parent / "examples" / "galaxy_gdae.py"
SIDE = 69
SMALL_NET = """
from layerkit import layers as L

def small(pixels=4761, hidden=6, latent=2):
    return [
        L.Input("x", shape=(pixels,)),
        L.Dense("g", "x", units=hidden, neuron="tanh"),
        L.Dense("z_mean", "g", units=latent),
        L.Dense("z_log_variance", "g", units=latent),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("f", "z", units=hidden, neuron="tanh"),
        L.Dense("x_mean", "f", units=pixels),
        L.Dense("x_log_variance", "f", units=pixels, weight=0.0, bias=-4.0),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]
"""


def galaxy_picture(rng, side=160):
    """One elliptical galaxy on a noisy sky, RGB uint8."""
    y, x = np.mgrid[:side, :side] - side / 2
    angle, long = rng.uniform(0, np.pi), rng.uniform(8, 12)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = 200 * np.exp(-0.5 * ((u / long) ** 2 + (v / (long * rng.uniform(0.5, 0.9))) ** 2))
    light = light[..., None] + rng.normal(10, 3, (side, side, 3))
    return Image.fromarray(np.clip(light, 0, 255).astype("uint8"))


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
    command = [sys.executable, "-W", "error", str(EXAMPLE), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out


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
            lambda name, item: values.update({name: item[...]})
            if isinstance(item, h5py.Dataset) else None
        )
        values["state"] = file.attrs["state"]
        values["history"] = json.loads(file.attrs["extra"])["history"]
    return values


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_run_writes_all_its_results_and_a_killed_one_resumed_equals_it(
    tmp_path, folder, net_file
):
    options = ["--data", folder, "--net", net_file, "--held-out", 6, "--batch", 7, "--seed", 3,
               "--set", "hidden=5", "--kl-warm-up", 900, "--samples", 2, "--keep", "best",
               "--augment", "none", "--final-rate", 1e-5]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    out = run(*options, "--iterations", 1500, "--out", whole)
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
    expected = {"net_settings": {"hidden": 5}, "kl_warm_up": 900, "samples": 2, "keep": "best",
                "augment": "none", "final_rate": 1e-5}
    assert expected.items() <= metrics.items()
    side = int(metrics["pixels"].split()[0])  # that of the median crop, which is 55 to 68 pixels
    assert 45 < side <= SIDE
    with h5py.File(whole / "model.h5") as file:
        assert file["params/g/weight"].shape == (side * side, 5)
        extra = json.loads(file.attrs["extra"])
    history = extra["history"]
    assert metrics["latent_temperature"] == extra["latent_temperature"]
    assert len(metrics["latent_scatter_over_sd"]) == len(metrics["latent_temperature"]) == 2
    best = np.argmax(history["validation_elbo"])
    assert metrics["kept_iteration"] == history["iteration"][best]
    for key in ("mse_wins", "likelihood_wins", "pca_mse_wins"):
        assert 0 <= metrics[key] <= 6
    table = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE.parent / "results_table.py", whole],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()
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
    run("--resume", "--out", killed)
    assert same(snapshot(whole / "model.h5"), snapshot(killed / "model.h5"))
    again = json.loads((killed / "metrics.json").read_text())
    assert "--resume" not in again["command"]
    assert "--samples 2" in again["command"]
    for key in ("train_elbo", "held_out_elbo", "held_out_kl", "held_out_iwae", "mse_wins",
                "likelihood_wins", "sersic_mse_wins", "morphology", "kept_iteration",
                "latent_temperature", "latent_scatter_over_sd"):
        assert again[key] == metrics[key]


def test_settings_of_the_net_file_are_checked(monkeypatch, capsys, tmp_path):
    for words, told in (
        (["hidden"], "NAME=VALUE"), (["hiden=5"], "hiden"), (["hidden=many"], "many"),
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


def test_tiny_runs_on_the_built_in_galaxies(tmp_path):
    out = run("--tiny", "--iterations", 5, "--out", tmp_path / "out")
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
    "make", [lambda p: p, empty_zip, empty_folder, folder_of_words, broken_zip, truncated_set],
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
    tmp_path, folder, net_file, monkeypatch, capsys
):
    out = tmp_path / "out"
    options = ["--data", folder, "--net", net_file, "--held-out", 6, "--batch", 7, "--out", out]
    line = refused(monkeypatch, capsys, *options, "--rate", 1e30)
    assert "not finite" in line or "nan" in line or "inf" in line
    assert re.search("(blob|parameter) '", line), line
    run(*options, "--iterations", 5)
    before = (out / "model.h5").read_bytes()
    line = refused(monkeypatch, capsys, "--resume", "--out", out, "--rate", 1e30,
                   "--iterations", 60)
    assert re.search("(blob|parameter) '", line), line
    assert (out / "model.h5").read_bytes() == before
