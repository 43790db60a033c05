"""Training on a set in shards: the galaxies of one file, read from the shards, and resumed."""

import json
import shutil

import numpy as np
import pytest
from galaxy_runs import QUICK, materials, quicken

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.catalogue.trained import load_trained
from layerkit.galaxy.training.run import gathering
from layerkit.galaxy.training.settings import Settings
from layerkit.system import interrupt


@pytest.fixture(scope="module", autouse=True)
def _quick_runs():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The galaxies in one file and in shards, and a net file."""
    top = tmp_path_factory.mktemp("materials")
    pictures, net = materials(top)
    galaxy.prepare(galaxy.open_source(pictures), top / "one.h5", workers=1, progress=False)
    galaxy.prepare_shards(pictures, top / "shards", each=7, workers=1, progress=False)
    return {"one": top / "one.h5", "shards": top / "shards", "net": net, "pictures": pictures}


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


def test_other_commands_read_shards_too(given, run):
    table = galaxy.encode(run.folder, given["shards"], draws=1)
    one = galaxy.encode(run.folder, given["one"], draws=1)
    assert list(table["id"]) == list(one["id"])
    np.testing.assert_array_equal(table["z_mean_0"], one["z_mean_0"])
    np.testing.assert_array_equal(table["bound_percentile"], one["bound_percentile"])


def test_some_stand_for_many_that_do_not_fit_in_memory(given, run, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "MANY", 5)
    made, layer = [], gathering.Galaxies.layer

    def noting(self, settings):
        made.append((self, layer(self, settings)))
        return made[0][1]

    monkeypatch.setattr(gathering.Galaxies, "layer", noting)
    found = train(given, tmp_path / "out", samples=2)  # which holds out 6
    metrics, (galaxies, data) = json.loads((found.folder / "metrics.json").read_text()), made[0]
    assert metrics["train"] == run.metrics["train"] > len(galaxies.train) == 5
    assert (metrics["held_out"], metrics["held_out_in_all"]) == (5, 6)
    assert "held_out_in_all" not in run.metrics
    assert metrics["galaxies"] == run.metrics["galaxies"]
    whole = galaxy.load(given["shards"])
    held_out = galaxy.split(whole.ids, 6)[1]
    assert set(held_out) <= set(data.skip)
    assert set(galaxies.ids) < {whole.ids[i] for i in held_out}
    np.testing.assert_array_equal(load_trained(found.folder).held_out, galaxies.held_out)
    # Two samples of each galaxy, one after the other, and as many galaxies as without.
    assert (metrics["samples"], metrics["epochs"]) == (2, run.metrics["epochs"])
    assert data.repeat == 2


def test_a_set_in_shards_may_be_held_out(given, tmp_path):
    """Two of its galaxies have other names, and one the name of another galaxy."""
    some = tmp_path / "some"
    some.mkdir()
    names = {k: f"{k:03d}" for k in range(5)} | {5: "a", 6: "b", 9: "008"}
    for k, name in names.items():
        shutil.copy(given["pictures"] / f"{k:03d}.bmp", some / f"{name}.bmp")
    galaxy.prepare(galaxy.open_source(some), tmp_path / "one.h5", workers=1, progress=False)
    galaxy.prepare_shards(some, tmp_path / "shards", each=3, workers=1, progress=False)
    found = []
    for held_out in ("one.h5", "shards"):
        settings = Settings(data=str(given["shards"]), held_out=str(tmp_path / held_out))
        found.append(gathering.gather_galaxies(settings, tmp_path, None, None))
    one, two = found
    assert one.counts == two.counts
    assert one.prepared == two.prepared
    assert one.ids == two.ids
    np.testing.assert_array_equal(one.held_out, two.held_out)
    whole = galaxy.load(given["shards"])
    left_out = {whole.ids[i] for i in two.skip}
    assert {"000", "001", "002", "003", "004", "005", "006", "009"} <= left_out
    assert two.count == len(whole) - len(left_out)


def test_a_missing_shard_is_one_line(given, tmp_path):
    (given["shards"] / "part-000001.h5").rename(tmp_path / "kept.h5")
    try:
        with pytest.raises(DataError, match=r"1 of \d+ parts are missing"):
            train(given, tmp_path / "out")
    finally:
        (tmp_path / "kept.h5").rename(given["shards"] / "part-000001.h5")
