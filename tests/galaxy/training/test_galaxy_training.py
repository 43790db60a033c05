"""`galaxy.train` as a notebook calls it."""

import ast
import json
import re
import shutil

import numpy as np
import pytest
from galaxy_runs import QUICK, SMALL_NET, galaxy_picture, materials, quicken

import layerkit as lk
from layerkit import galaxy
from layerkit.errors import DataError, LayerkitError, SnapshotError
from layerkit.galaxy.images.prepared import load
from layerkit.system import interrupt


@pytest.fixture(scope="module", autouse=True)
def _quick_runs():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Pictures and a net file."""
    pictures, net = materials(tmp_path_factory.mktemp("materials"))
    return {"data": pictures, "net": net}


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    """A whole run."""
    out = tmp_path_factory.mktemp("run") / "out"
    return galaxy.train(**given, out=out, **QUICK, iterations=8, set={"hidden": 5}, keep="best")


class AtOnce(interrupt.Interrupt):
    """An interrupt that comes after five steps."""

    @property
    def requested(self):
        self.asked = getattr(self, "asked", 0) + 1
        return self.asked > 5


def parameters(run):
    return {name: p.data.copy() for name, p in run.model.net.params.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_the_result_is_what_the_folder_holds(run):
    assert (run.ending, run.iteration, run.target) == ("done", 8, 8)
    assert json.loads((run.folder / "metrics.json").read_text()) == json.loads(
        json.dumps(run.metrics)
    )
    assert (run.folder / "report.html").is_file()
    for name, value in run.evaluation.metrics().items():
        assert run.metrics[name] == value
    assert run.history["iteration"] == list(range(1, 9))
    assert run.metrics["kept_iteration"] == 1 + np.argmax(run.history["validation_elbo"])
    assert run.metrics["net_settings"] == {"hidden": 5}
    shown = repr(run)
    assert "\n" not in shown
    assert f"{run.metrics['held_out_elbo']:,.1f} nats on 6 held out" in shown
    assert "Evaluation on 6 held-out images" in run._repr_html_()


def test_the_model_of_a_folder_is_the_one_that_was_trained(run, given, tmp_path):
    model = galaxy.load_model(run.folder)
    assert model.latent == run.model.latent == 2
    np.testing.assert_array_equal(model.temperature, run.model.temperature)
    images = load(run.folder / "galaxies.h5").images[:5]
    for found, expected in zip(model.encode(images), run.model.encode(images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The net file and the snapshot alone give these numbers, too.
    net = lk.Net(
        lk.load_net(given["net"], hidden=5, pixels=images[0].size), len(images), phase="test"
    )
    lk.load(run.folder / "model.h5", net)
    np.testing.assert_allclose(
        net.infer("z_mean", x=images.reshape(5, -1)), model.encode(images).mean, rtol=1e-6
    )
    for folder in (tmp_path, tmp_path / "none", given["net"]):
        with pytest.raises(LayerkitError):
            galaxy.load_model(folder)


def test_the_command_of_the_report_is_the_call(run, given):
    call = ast.parse(run.metrics["command"], mode="eval").body
    assert ast.unparse(call.func) == "galaxy.train"
    words = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    expected = {"out": str(run.folder), "iterations": 8, "set": {"hidden": 5}, "keep": "best"}
    assert words == {**{k: str(v) for k, v in given.items()}, **QUICK, **expected}


def test_an_interrupted_run_returns_and_goes_on_as_if_it_had_not(
    given, tmp_path, monkeypatch, capsys
):
    whole = galaxy.train(**given, out=tmp_path / "whole", **QUICK, iterations=12)
    with monkeypatch.context() as patched:
        patched.setattr(interrupt, "Interrupt", AtOnce)
        stopped = galaxy.train(**given, out=tmp_path / "cut", **QUICK, iterations=12)
    assert (stopped.ending, stopped.iteration, stopped.target) == ("interrupted", 5, 12)
    assert stopped.evaluation is None
    assert stopped.metrics == {}
    hint = f"galaxy.train(resume=True, out={str(tmp_path / 'cut')!r})"
    assert hint in repr(stopped)
    assert f"continue with: {hint}" in capsys.readouterr().out
    assert stopped._repr_html_()
    with pytest.raises(SnapshotError, match="not trained to the end"):
        galaxy.load_model(tmp_path / "cut")
    resumed = eval(hint, {"galaxy": galaxy})
    assert resumed.ending == "done"
    assert_equal(parameters(whole), parameters(resumed))
    assert resumed.history == whole.history
    times = {"seconds", "images_per_second", "iterations_per_second", "command"}
    for name in whole.metrics.keys() - times:
        assert resumed.metrics[name] == whole.metrics[name], name


def test_a_resumed_run_says_which_setting_gives_other_galaxies(run, given, tmp_path, rng):
    """Not the galaxies, where it is the units or another setting that differs."""
    shutil.copytree(run.folder, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    other = materials(tmp_path / "other")[0]
    galaxy_picture(rng).save(other / "more.bmp")
    for setting, said in (
        ({"units": "linear"}, "begun with --units stretched, and a resumed run keeps its units"),
        ({"data": other}, f"than --data gives now: it was begun with --data {given['data']};"),
        ({"tiny": True, "data": other}, "than --data, --tiny gives now"),
        ({"held_out": 4}, "than --held-out gives now: it was begun with --held-out 6;"),
    ):
        with pytest.raises(DataError, match=re.escape(said)):
            galaxy.train(out=tmp_path / "run", resume=True, **setting)
    for name, content in before.items():
        assert (tmp_path / "run" / name).read_bytes() == content
    # The pictures, where these have changed under their names.
    pictures = tmp_path / "pictures"
    shutil.copytree(given["data"], pictures)
    small = {**given, "data": pictures, **QUICK, "out": tmp_path / "small"}
    galaxy.train(**small, iterations=1)
    galaxy_picture(rng).save(pictures / "000.bmp")
    with pytest.raises(DataError, match=r"the pictures, or how .* have changed"):
        galaxy.train(out=tmp_path / "small", resume=True, iterations=2)


def test_a_net_that_comes_with_layerkit_is_called_by_its_name(given, tmp_path):
    with pytest.raises(LayerkitError, match="galaxy_gdae"):
        galaxy.train(given["data"], tmp_path / "out", net="galaxy_none")
    with pytest.raises(LayerkitError, match=r"galaxy_gdae\.py.*hiden"):
        galaxy.train(given["data"], tmp_path / "out", net="galaxy_gdae", set={"hiden": 3})


def test_relative_paths_are_taken_from_where_the_call_is_made(given, tmp_path, monkeypatch):
    monkeypatch.chdir(given["data"].parent)
    out = tmp_path / "net.py"
    out.write_text(SMALL_NET)
    with pytest.raises(DataError, match="cannot write to"):
        galaxy.train("pictures", "small.py", net="small.py")
    with pytest.raises(SnapshotError, match="no snapshot"):
        galaxy.train("pictures", "there", net="small.py", resume=True)
    assert not (given["data"].parent / "there").exists()
