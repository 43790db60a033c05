"""Models that come with layerkit, and small files made of one's own runs."""

import os

import numpy as np
import pytest

from layerkit import galaxy
from layerkit.errors import SnapshotError
from layerkit.galaxy.catalogue.boxes import BOXED
from layerkit.saving import snapshot


def test_the_boxed_model_is_small_and_whole():
    assert (BOXED / "galaxy_zoo.h5").stat().st_size <= 6e6
    assert (BOXED / "galaxy_zoo.md").is_file()
    model = galaxy.load_model()
    assert (model.latent, model.pixels) == (16, 69 * 69)
    assert model.prior is not None
    assert model.noise is not None
    drawn = model.sample(20, noise=True)
    assert np.isfinite(drawn).all()
    extra = snapshot.read_extra(BOXED / "galaxy_zoo.h5")
    assert os.sep not in extra["settings"]["net"]
    assert extra["settings"]["data"] is None
    assert "/" not in str(extra["settings"])


def test_galaxies_drawn_from_it_look_like_galaxies_to_it():
    """Its bound on what it draws is near that on held-out galaxies, and far above a blank's."""
    model = galaxy.load_model("galaxy_zoo")
    drawn = model.sample(50, noise=True).clip(0, 1)
    assert 11_500 < np.median(model.bound(drawn)[0]) < 13_500
    assert (model.bound(np.full((1, 69, 69), 0.7))[0] < 5000).all()


def test_a_name_that_is_none():
    with pytest.raises(SnapshotError, match=r"galaxy_zo: no snapshot .* those are 'galaxy_zoo'"):
        galaxy.load_model("galaxy_zo")


def test_an_exported_model_is_the_run_s(shared, tmp_path):
    model, out = galaxy.load_model(shared["run"]), tmp_path / "small.h5"
    images = shared["galaxies"].images[:5]
    full = galaxy.export_model(shared["run"], out, dtype="float32")
    np.testing.assert_array_equal(full.encode(images).mean, model.encode(images).mean)
    half = galaxy.export_model(shared["run"], out)
    np.testing.assert_allclose(half.encode(images).mean, model.encode(images).mean, atol=0.02)
    np.testing.assert_allclose(half.temperature, model.temperature)
    assert str(shared["run"]) not in str(snapshot.read_extra(out))
    assert out.stat().st_size < (shared["run"] / "model.h5").stat().st_size / 1.5
