"""Training on a set in shards: the galaxies of one file, read from the shards, and resumed."""

import json

import numpy as np
import pytest
from galaxy_runs import QUICK, draw_noise, materials

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.catalogue.trained import load_trained
from layerkit.galaxy.training.run import gathering
from layerkit.system import interrupt


@pytest.fixture(scope="module", autouse=True)
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        draw_noise(patch, 2)
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The galaxies in one file and in shards, and a net file."""
    top = tmp_path_factory.mktemp("materials")
    pictures, net = materials(top)
    galaxy.prepare(galaxy.open_source(pictures), top / "one.h5", workers=1, progress=False)
    galaxy.prepare_shards(pictures, top / "shards", each=7, workers=1, progress=False)
    return {"one": top / "one.h5", "shards": top / "shards", "net": net}


def train(given, out, **settings):
    options = {**QUICK, "iterations": 8, "batch": 4, **settings}
    return galaxy.train(given["shards"], out, net=given["net"], **options)


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    return train(given, tmp_path_factory.mktemp("run") / "out")


class AtOnce(interrupt.Interrupt):
    """An interrupt that comes after five steps."""

    @property
    def requested(self):
        self.asked = getattr(self, "asked", 0) + 1
        return self.asked > 5


def test_the_galaxies_are_those_of_one_file(given, run, tmp_path):
    options = {**QUICK, "iterations": 8, "batch": 4}
    one = galaxy.train(given["one"], tmp_path / "one", net=given["net"], **options)
    for name in ("galaxies", "images_read", "images_kept", "train", "validation", "held_out"):
        assert run.metrics[name] == one.metrics[name], name
    assert run.metrics["epochs"] == one.metrics["epochs"]


def test_only_the_galaxies_to_train_on_are_served(given, run, monkeypatch):
    served, layer = [], gathering.Galaxies.layer

    def watching(self, settings):
        made = layer(self, settings)
        assert len(made.skip) == len(galaxy.load(given["shards"])) - run.metrics["train"]
        served.append({image.tobytes() for image in self.held_out})
        rows = np.setdiff1d(np.arange(len(galaxy.load(given["shards"]))), made.skip)
        trained = galaxy.load(given["shards"]).images[rows]
        assert not served[0] & {image.tobytes() for image in trained}
        return made

    monkeypatch.setattr(gathering.Galaxies, "layer", watching)
    again = galaxy.train(resume=True, out=run.folder)
    assert again.iteration == 8
    assert served


def test_a_run_is_resumed_bit_for_bit(given, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "Interrupt", AtOnce)
        assert train(given, out).ending == "interrupted"
    resumed = galaxy.train(resume=True, out=out)
    assert (resumed.ending, resumed.iteration) == ("done", 8)
    for name, p in run.model.net.params.items():
        np.testing.assert_array_equal(resumed.model.net.params[name].data, p.data, name)


def test_a_sample_stands_for_many(given, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "MANY", 5)
    found = train(given, tmp_path / "out")
    assert found.metrics["train"] > 5
    assert json.loads((found.folder / "metrics.json").read_text())["train"] > 5


def test_other_commands_read_shards_too(given, run):
    table = galaxy.encode(run.folder, given["shards"], draws=1)
    one = galaxy.encode(run.folder, given["one"], draws=1)
    assert list(table["id"]) == list(one["id"])
    np.testing.assert_array_equal(table["z_mean_0"], one["z_mean_0"])
    np.testing.assert_array_equal(table["bound_percentile"], one["bound_percentile"])


def test_several_samples_of_a_galaxy_follow_each_other(given, run, tmp_path):
    found = train(given, tmp_path / "out", samples=2)
    assert found.metrics["samples"] == 2
    assert found.metrics["epochs"] == run.metrics["epochs"]  # as many galaxies in as many steps
    assert found.ending == "done"


def test_many_held_out_galaxies_are_not_all_in_memory(given, run, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "MANY", 5)
    made, layer = [], gathering.Galaxies.layer

    def noting(self, settings):
        made.append((self, layer(self, settings)))
        return made[0][1]

    monkeypatch.setattr(gathering.Galaxies, "layer", noting)
    found = train(given, tmp_path / "out")  # which holds out 6
    galaxies, data = made[0]
    assert (found.metrics["held_out"], found.metrics["held_out_in_all"]) == (5, 6)
    assert len(galaxies.held_out) == len(galaxies.ids) == 5
    assert found.metrics["galaxies"] == run.metrics["galaxies"]
    whole = galaxy.load(given["shards"])
    held_out = galaxy.split(whole.ids, 6)[1]
    assert set(held_out) <= set(data.skip)
    assert set(galaxies.ids) < {whole.ids[i] for i in held_out}
    known = load_trained(found.folder).held_out
    np.testing.assert_array_equal(known, galaxies.held_out)


def test_a_set_in_shards_may_be_held_out(given, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    pictures, _ = materials(tmp_path / "more", count=7, seed=5)
    galaxy.prepare(galaxy.open_source(pictures), tmp_path / "a.h5", workers=1, progress=False)
    galaxy.prepare_shards(pictures, tmp_path / "b", each=3, workers=1, progress=False)
    found = [train(given, tmp_path / x[0], held_out=tmp_path / x) for x in ("a.h5", "b")]
    for name in ("galaxies", "train", "held_out", "held_out_elbo"):
        assert found[0].metrics[name] == found[1].metrics[name], name
    images = [load_trained(one.folder).held_out for one in found]
    np.testing.assert_array_equal(*images)
    assert len(images[0]) == found[0].metrics["held_out"]


def test_a_missing_shard_is_one_line(given, tmp_path):
    (given["shards"] / "part-000001.h5").rename(tmp_path / "kept.h5")
    try:
        with pytest.raises(DataError, match=r"1 of \d+ parts are missing"):
            train(given, tmp_path / "out")
    finally:
        (tmp_path / "kept.h5").rename(given["shards"] / "part-000001.h5")
