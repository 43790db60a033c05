"""Models that come with layerkit, and small files made of one's own runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from galaxy_runs import galaxy_picture
from PIL import Image

from layerkit import galaxy
from layerkit.errors import SnapshotError
from layerkit.galaxy.catalogue.boxes import BOXED
from layerkit.saving import snapshot

ROOT = Path(__file__).resolve().parents[3]


def pictures(folder, rng, count=3):
    folder.mkdir()
    for i in range(count):
        galaxy_picture(rng).save(folder / f"g{i}.png")
    Image.fromarray(np.zeros((80, 80), "uint8")).save(folder / "void.png")
    return folder


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


def test_an_installed_package_encodes_a_folder(tmp_path, rng):
    """Files of the package as they are installed, from another folder."""
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("pybind11")
    source, built = tmp_path / "source", tmp_path / "built"
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for folder in ("layerkit", "nets"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    pictures(tmp_path / "mine", rng)
    subprocess.run(
        [sys.executable, "-m", "layerkit", "galaxy", "encode", "mine", "--out", "t.fits"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(built)},
        check=True,
        capture_output=True,
    )
    assert len(galaxy.read_catalogue(tmp_path / "t.fits")) == 4
