"""Commands with the model that comes with layerkit, and the population of one's own."""

import json

import h5py
import numpy as np
import pytest
from astropy.io import fits
from galaxy_runs import galaxy_picture, materials, quicken

from layerkit import galaxy
from layerkit.saving import snapshot


def test_encode_with_no_model_named(layerkit, tmp_path, rng):
    (tmp_path / "mine").mkdir()
    for i in range(3):
        galaxy_picture(rng).save(tmp_path / "mine" / f"g{i}.png")
    status, _, _ = layerkit("galaxy", "encode", "mine", "--out", "t.csv", "--draws", 0)
    assert status == 0
    table = galaxy.read_catalogue(tmp_path / "t.csv")
    assert np.isfinite(table["bound"]).all()
    assert ((table["bound_percentile"] >= 0) & (table["bound_percentile"] <= 100)).all()
    assert "z_mean_15" in table.colnames


def test_a_name_that_is_none(layerkit):
    status, _, err = layerkit("galaxy", "sample", "galaxy_zo", "--out", "x.h5")
    assert status == 2
    assert "no model that comes with layerkit; those are 'galaxy_zoo'" in err


@pytest.mark.parametrize("stamps", [True, False])
@pytest.mark.parametrize("suffix", [".fits", ".h5"])
def test_drawn_galaxies_and_their_z(layerkit, tmp_path, suffix, stamps):
    words = ["galaxy", "sample", "--count", 3, "--seed", 2, "--out", f"drawn{suffix}"]
    assert layerkit(*words, *(["--stamps"] if stamps else []))[0] == 0
    model = galaxy.load_model()
    images, z = model.sample(3, seed=2).reshape(3, 69, 69), model.sample_z(3, seed=2)
    wanted = list(images) if stamps else [images, z]
    if suffix == ".fits":
        with fits.open(tmp_path / "drawn.fits") as file:
            found = [np.array(hdu.data) for hdu in file]
    else:
        names = ["galaxy_1", "galaxy_2", "galaxy_3"] if stamps else ["images", "z"]
        with h5py.File(tmp_path / "drawn.h5") as file:
            found = [file[name][...] for name in names]
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stamps_do_not_fit_into_npy(layerkit):
    status, _, err = layerkit("galaxy", "sample", "--stamps", "--out", "x.npy")
    assert status == 2
    assert "one array" in err


def test_export_wants_an_hdf5_name(layerkit):
    status, _, err = layerkit("galaxy", "export", "run", "--out", "x.npy")
    assert status == 2
    assert "ends in .h5" in err


def test_populate_keeps_what_it_finds(layerkit, tmp_path, monkeypatch):
    """A run of a few steps: its model gets a prior and noise, and the rest of the file stays."""
    monkeypatch.setattr("layerkit.galaxy.model.population.prior.DRAWS", 3000)
    monkeypatch.setattr("layerkit.galaxy.evaluation.population.TREES", 20)
    quicken(monkeypatch)
    pictures, net = materials(tmp_path / "m", count=190, side=120)
    galaxy.gather(pictures, tmp_path / "set.h5", size=20)
    galaxy.train(
        tmp_path / "set.h5", tmp_path / "run", net=net, iterations=30, held_out=50, batch=16,
        refine=0, importance_samples=1,
    )  # fmt: skip
    before = galaxy.load_model(tmp_path / "run")
    # Bounds that are no longer true, as those with the earlier prior.
    old = galaxy.read_metrics(tmp_path / "run") | {"held_out_elbo": 0, "encoded_held_out_elbo": 0}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(old))
    snapshot.amend(tmp_path / "run" / "model.h5", extra={"held_out_bounds": [0.0]})
    status, out, _ = layerkit("galaxy", "populate", "run")
    assert status == 0
    assert "told apart" in out
    model = galaxy.load_model(tmp_path / "run")
    assert before.prior is None
    assert model.prior is not None
    assert model.noise is not None
    for name, p in before.net.params.items():
        np.testing.assert_array_equal(model.net.params[name].data, p.data)
    found = json.loads((tmp_path / "run" / "population.json").read_text())
    assert found["told_apart"].keys() == {"z", "means", "images"}
    # Every bound that the run has written is with the new prior.
    metrics = galaxy.read_metrics(tmp_path / "run")
    assert metrics["population"] == found
    held_out = galaxy.load(tmp_path / "set.h5")
    held_out = held_out.images[galaxy.split(held_out.ids, 50)[1]]
    expected = model.bound(held_out, 100)[0].mean()
    stored = snapshot.read_extra(tmp_path / "run" / "model.h5")
    for found in (
        metrics["encoded_held_out_elbo"],
        metrics["held_out_elbo"],
        np.mean(stored["held_out_bounds"]),
        np.mean(stored["refined_bounds"]["bounds"]),
    ):
        assert found == pytest.approx(expected, rel=0.05)
    assert metrics["prior_gaussians"] == len(model.prior.weights)
    again = galaxy.train(out=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.model.prior.means, model.prior.means)


def test_populate_needs_a_finished_run(layerkit):
    status, _, err = layerkit("galaxy", "populate", "none")
    assert status == 2
    assert "no finished run" in err


def test_a_file_of_settings_that_was_given_stays_as_it_was_written(layerkit, tmp_path):
    """Even if it is called like the one that would repeat the command."""
    text = '\ufeff# my stamps\ncount = 1\nout = "drawn.npy"\n'
    for name, stays in (("drawn.npy.toml", True), ("mine.toml", False)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert layerkit("galaxy", "sample", "--config", name)[0] == 0
        assert (tmp_path / name).read_text(encoding="utf-8") == text
        made = (tmp_path / "drawn.npy.toml").read_text(encoding="utf-8")
        assert (made == text) == stays
        (tmp_path / "drawn.npy.toml").unlink()
