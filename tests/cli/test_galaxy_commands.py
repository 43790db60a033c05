"""`layerkit galaxy ...`: each command does what the call of the library does."""

import json
import shutil
import tomllib

import h5py
import numpy as np
import pytest
from astropy.io import fits
from galaxy_runs import QUICK, materials, quicken

import layerkit as lk
from layerkit import galaxy
from layerkit.saving import snapshot


@pytest.fixture(scope="module", autouse=True)
def _quick_runs():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run by the library, its pictures and its net."""
    top = tmp_path_factory.mktemp("finished")
    pictures, net = materials(top)
    galaxy.train(pictures, top / "run", net=net, iterations=4, **QUICK)
    return top


def test_train_is_the_call(layerkit, finished, tmp_path):
    words = ["--data", finished / "pictures", "--net", finished / "small.py", "--iterations", 4]
    words += [w for k, v in QUICK.items() for w in (f"--{k.replace('_', '-')}", v)]
    code, out, err = layerkit("galaxy", "train", *words, "--out", "again")
    assert code == 0, err
    assert f"open {tmp_path / 'again' / 'report.html'}" in out
    expected = galaxy.read_metrics(finished / "run")
    found = galaxy.read_metrics(tmp_path / "again")
    times = {"seconds", "images_per_second", "iterations_per_second", "command"}
    assert {k for k in found if found[k] != expected[k]} <= times
    assert found["command"].startswith("layerkit galaxy train --data ")


def test_prepare_in_shards_is_the_call(layerkit, finished, tmp_path):
    words = ["galaxy", "prepare", finished / "pictures", "--shard-rows", 7, "--workers", 1]
    code, out, err = layerkit(*words, "--out", "shards")
    assert code == 0, err
    assert "24 images read" in out
    galaxy.prepare_shards(finished / "pictures", tmp_path / "call", each=7, progress=False)
    for path in (tmp_path / "call").iterdir():
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes()
    code, out, err = layerkit(*words, "--out", "shards", "--resume")
    assert code == 0, err
    assert "24 of them earlier" in out
    for more, said in (
        ((), "is not empty"),
        (("--limit", 3), "--limit does not go with --shard-rows"),
        (("--data", finished / "pictures"), "give SOURCE or --data"),
    ):
        code, _, err = layerkit(*words, "--out", "shards", *more)
        assert code == 2
        assert said in err
    code, _, err = layerkit("galaxy", "prepare", finished / "pictures", "--out", "one.h5")
    assert code == 2
    assert "need --shard-rows N" in err


def test_units_and_bands_of_shards_are_those_given(layerkit, rng, tmp_path):
    """The bands of these cubes show galaxies of different sizes."""
    (tmp_path / "cubes").mkdir()
    y, x = np.mgrid[:120, :120] - 60
    for k in range(2):
        bands = [900 * np.exp(-(x**2 + y**2) / (2 * s**2)) + rng.normal(0, 2, x.shape)
                 for s in (5, 9, 7)]  # fmt: skip
        fits.PrimaryHDU(np.array(bands, "f4")).writeto(tmp_path / "cubes" / f"{k}.fits")
    words = ["galaxy", "prepare", "cubes", "--shard-rows", 1, "--units", "linear", "--band", 1]
    code, _, err = layerkit(*words, "--out", "shards")
    assert code == 0, err
    options = {"units": "linear", "progress": False}
    galaxy.prepare(galaxy.open_source(tmp_path / "cubes", "[1]"), tmp_path / "one.h5", **options)
    found, one = galaxy.load(tmp_path / "shards"), galaxy.load(tmp_path / "one.h5")
    assert found.settings == one.settings
    assert found.settings["units"] == "linear"
    np.testing.assert_array_equal(found.images, one.images)


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "run", "--count", 2, "--out", "drawn.npy"),
        ("prepare", "--data", "pictures", "--out", "some.h5"),
        ("export", "run", "--out", "small.h5"),
        ("encode", "pictures", "--model", "run", "--out", "table.csv"),
        ("encode", "pictures", "--model", "run", "--parts", 9, "--out", "tables"),
    ],
)
def test_settings_beside_a_result_replace_no_file_of_somebody(layerkit, finished, tmp_path, words):
    for name in ("run", "pictures"):
        (tmp_path / name).symlink_to(finished / name)
    own = tmp_path / f"{words[-1]}.toml"
    own.write_text("# notes of mine\n")
    code, _, err = layerkit("galaxy", *words)
    assert code == 2
    assert f"{own.name}: there already, and not written by layerkit" in err
    assert own.read_text() == "# notes of mine\n"
    assert not (tmp_path / words[-1]).exists()
    own.unlink()
    for more in ((), ("--resume",) if words[-1] == "tables" else ()):  # its own is written again
        assert layerkit("galaxy", *words, *more)[0] == 0
        assert tomllib.loads(own.read_text())["out"] == str(tmp_path / words[-1])


def test_evaluate_draws_again_and_leaves_the_model(layerkit, finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    model = (tmp_path / "run" / "model.h5").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    code, _, err = layerkit("galaxy", "evaluate", "run", "--importance-samples", 2)
    assert code == 0, err
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "model.h5").read_bytes() == model
    before, after = (galaxy.read_metrics(top / "run") for top in (finished, tmp_path))
    assert (before["iwae_samples"], after["iwae_samples"]) == (3, 2)
    assert after["held_out_elbo"] == before["held_out_elbo"]


def test_sample_writes_what_the_model_draws(layerkit, finished, tmp_path):
    model = galaxy.load_model(finished / "run")
    side = int(model.pixels**0.5)
    words = ["galaxy", "sample", finished / "run", "--count", 5, "--seed", 3]
    expected = model.sample(5, seed=3).reshape(5, side, side)
    for name in ("a.npy", "a.h5", "a.fits"):
        code, out, err = layerkit(*words, "--out", name)
        assert code == 0, err
        assert f"images: 5 x {side} x {side}" in out
    with h5py.File(tmp_path / "a.h5") as file, fits.open(tmp_path / "a.fits") as parts:
        for found in (np.load(tmp_path / "a.npy"), file["images"][...], parts[0].data):
            np.testing.assert_array_equal(found, expected)
    assert layerkit(*words, "--noise", "--out", "n.npy")[0] == 0
    noisy = model.sample(5, seed=3, noise=True).reshape(5, side, side)
    np.testing.assert_array_equal(np.load(tmp_path / "n.npy"), noisy)
    assert not np.array_equal(noisy, expected)


def test_prepare_writes_what_train_takes(layerkit, finished, tmp_path):
    words = ["--data", finished / "pictures", "--size", 30, "--limit", 20, "--out", "p.h5"]
    code, out, err = layerkit("galaxy", "prepare", *words)
    assert code == 0, err
    assert "20 images read" in out
    galaxies = galaxy.load(tmp_path / "p.h5")
    assert galaxies.size == 30
    assert galaxies.read == 20


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "run", "--out", "run/model.h5"),
        ("sample", "run", "--out", "run/galaxies.h5"),
        ("prepare", "--data", "pictures", "--out", "run/model.h5"),
        ("prepare", "--data", "pictures", "--out", "run/galaxies.h5"),
        ("prepare", "--data", "pictures", "--out", "other.h5"),
        ("encode", "pictures", "--model", "run", "--out", "run/galaxies.h5"),
        ("encode", "pictures", "--model", "run", "--out", "other.h5"),
    ],
)
def test_no_command_replaces_a_model_or_the_galaxies_of_a_run(layerkit, finished, tmp_path, words):
    for name in ("run", "pictures"):
        shutil.copytree(finished / name, tmp_path / name)
    shutil.copy(tmp_path / "run" / "model.h5", tmp_path / "other.h5")
    before = (tmp_path / words[-1]).read_bytes()
    code, _, err = layerkit("galaxy", *words)
    assert code == 2
    assert any(says in err for says in ("a layerkit ", "a result of the training run"))
    assert (tmp_path / words[-1]).read_bytes() == before


def test_sets_and_models_do_not_replace_each_other(finished, tmp_path):
    for name in ("model.h5", "galaxies.h5"):
        shutil.copy(finished / "run" / name, tmp_path / name)
    model, galaxies = galaxy.load_model(finished / "run"), galaxy.load(tmp_path / "galaxies.h5")
    with pytest.raises(lk.errors.SnapshotError, match=r"galaxies\.h5: it holds a layerkit galaxy"):
        lk.save(tmp_path / "galaxies.h5", model.net)
    table = galaxy.encode(model, galaxies, draws=0)
    for name in ("model.h5", "galaxies.h5"):
        with pytest.raises(lk.errors.DataError, match=f"{name}: it holds a layerkit"):
            galaxy.write_catalogue(table, tmp_path / name)
    source = galaxy.open_source(finished / "pictures")
    with pytest.raises(lk.errors.DataError, match=r"model\.h5: it holds a layerkit snapshot"):
        galaxy.prepare(source, tmp_path / "model.h5", progress=False)
    for name in ("model.h5", "galaxies.h5"):
        assert (tmp_path / name).read_bytes() == (finished / "run" / name).read_bytes()
    lk.save(tmp_path / "model.h5", model.net)
    galaxy.prepare(source, tmp_path / "galaxies.h5", progress=False)


def test_report_tells_the_results(layerkit, finished):
    run = finished / "run"
    code, out, err = layerkit("galaxy", "report", run)
    assert code == 0, err
    metrics = json.loads((run / "metrics.json").read_text())
    assert galaxy.summary(metrics) in out
    assert f"open {run / 'report.html'}" in out
    code, out, _ = layerkit("galaxy", "report", "--table", run, run / "metrics.json")
    assert code == 0
    assert out == galaxy.results_table([metrics, metrics])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "COMMAND"),
        ("train --batch 0", "--batch"),
        ("train --data none.zip", "none.zip"),
        ("train --net galaxy_none", "galaxy_gdae"),
        ("train --resume --out none", "no snapshot"),
        ("train --epochs 1 --iterations 1", "not allowed with"),
        ("prepare --data none.zip", "none.zip"),
        ("prepare --size 0", "--size"),
        ("evaluate none", "no finished run"),
        ("sample none --out a.npy", "no model that comes with layerkit"),
        ("sample none --out a.png", "ends in .h5, .npy or .fits"),
        ("sample none", "--out"),
        ("report none", "none"),
        ("report .", "metrics.json: cannot be read (No such file or directory); give the folder"),
        ("report half.json", "half.json"),
    ],
)
def test_bad_input_is_one_line_and_status_2(layerkit, tmp_path, words, says):
    (tmp_path / "half.json").write_text('{"held_out": 3}')
    code, _, err = layerkit("galaxy", *words.split())
    assert code == 2
    assert says in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1


def test_a_run_leaves_the_file_that_repeats_it(layerkit, finished, tmp_path):
    """Also a run by the library; the command line counts before the file."""
    file = finished / "run" / "run.toml"
    code, _, err = layerkit("galaxy", "train", "--config", file, "--out", "again")
    assert code == 0, err
    expected, found = (galaxy.read_metrics(top / n) for top, n in
        ((finished, "run"), (tmp_path, "again")))  # fmt: skip
    times = {"seconds", "images_per_second", "iterations_per_second", "command"}
    assert {k for k in found if found[k] != expected[k]} <= times
    own, before = (tomllib.loads(p.read_text()) for p in (tmp_path / "again" / "run.toml", file))
    assert own == {**before, "out": str(tmp_path / "again")}
    assert before["iterations"] == 4
    # An option that excludes one in the file ends it; settings of the net file add up.
    text = file.read_text() + "[set]\nhidden = 3\nlatent = 3\n"
    (tmp_path / "more.toml").write_text(text)
    words = "--config", "more.toml", "--epochs", 1, "--set", "latent=1", "--out", "more"
    code, _, err = layerkit("galaxy", "train", *words)
    assert code == 0, err
    metrics = galaxy.read_metrics(tmp_path / "more")
    assert metrics["net_settings"] == {"hidden": 3, "latent": 1}
    assert metrics["iterations"] == -(-metrics["train"] // 7) != 4  # once through the galaxies
    bad = {
        "epochs = 1\niterations = 2\n": "epochs or iterations",
        "tiny = 1\n": "tiny: must be true or false",
        "[sets]\na = 1": "unknown key",
    }
    for text, reason in bad.items():
        (tmp_path / "bad.toml").write_text(text)
        code, _, err = layerkit("galaxy", "train", "--config", "bad.toml", "--out", "bad")
        assert code == 2
        assert reason in err
    code, out, err = layerkit("galaxy", "report", "--config", "report.toml")
    assert code == 2
    (tmp_path / "report.toml").write_text("runs = ['again']\ntable = true\n")
    code, out, err = layerkit("galaxy", "report", "--config", "report.toml")
    assert code == 0, err
    assert out.startswith("|")
    # The command line turns off all that a file turns on.
    code, out, err = layerkit("galaxy", "report", "--config", "report.toml", "--no-table")
    assert code == 0, err
    assert out.startswith("again")
    (tmp_path / "drawn.toml").write_text(
        "noise = true\nstamps = true\ncount = 2\nout = 'drawn.h5'\n"
    )
    words = "galaxy", "sample", "again", "--config", "drawn.toml"
    assert layerkit(*words, "--no-stamps", "--no-noise")[0] == 0
    with h5py.File(tmp_path / "drawn.h5") as file:
        model = galaxy.load_model(tmp_path / "again")
        np.testing.assert_array_equal(file["images"][...].reshape(2, -1), model.sample(2))


def test_a_model_alone_knows_who_was_held_out(finished, tmp_path):
    """Its bounds rank pictures, without the prepared galaxies, refined as in the evaluation."""
    run = shutil.copytree(finished / "run", tmp_path / "run")
    galaxies = galaxy.load(run / "galaxies.h5")
    extra = snapshot.read_extra(run / "model.h5")
    chosen = galaxy.split(galaxies.ids, QUICK["held_out"])[1]
    assert extra["held_out_ids"] == [galaxies.ids[i] for i in chosen]
    whole = [galaxy.encode(run, finished / "pictures", draws=0, refine=n) for n in (0, 2, 1)]
    (run / "galaxies.h5").unlink()
    alone = [galaxy.encode(run, finished / "pictures", draws=0, refine=n) for n in (0, 2, 1)]
    stored = extra["held_out_bounds"], extra["refined_bounds"]["bounds"]
    assert extra["refined_bounds"]["steps"] == QUICK["refine"] == 2
    model = galaxy.load_model(run)
    for table, other, bounds, steps in zip(alone, whole, stored, (0, 2), strict=False):
        posterior = galaxy.refine(model, galaxies.images[chosen], steps, tempered=False)
        again, _ = model.bound(galaxies.images[chosen], 200, posterior)
        np.testing.assert_allclose(bounds, again, atol=120)  # of -600 to 900, by 8 samples
        np.testing.assert_array_equal(table["bound_percentile"], other["bound_percentile"])
        assert table.meta["RANKED"] == len(bounds) == QUICK["held_out"]
        assert "NORANKS" not in table.meta
        for row in table[table["reason"] == ""]:
            below = (np.array(bounds) < row["bound"]).mean() * 100
            assert row["bound_percentile"] == pytest.approx(below)
    assert np.isfinite(whole[2]["bound_percentile"]).any()
    assert np.isnan(alone[2]["bound_percentile"]).all()
    assert alone[2].meta["RANKED"] == 0
    assert alone[2].meta["NORANKS"].endswith("refined by 0 or 2 steps, not by 1")
