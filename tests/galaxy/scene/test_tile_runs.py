"""Tiles: kept and resumed, fitted by other processes, and alike whichever way."""

import shutil

import numpy as np
import pytest

from layerkit.errors import DataError
from layerkit.galaxy.scene import make_field, measure, tile_runs
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.model.learned import BOXED, Learned, learned_light

WIDTH = 3.0


STARS = (20, 20), (64, 66), (25, 100), (64, 20), (100, 25), (105, 110)


def stars(rng, width):
    """Stars on a field as wide as one tile or two; one star lies where tiles meet."""
    images = rng.normal(size=(1, 130, 130))
    for x, y in STARS:
        images[0, y - 12 : y + 13, x - 12 : x + 13] += 800 * gaussian(WIDTH)
    images = np.ascontiguousarray(images[:, :, :width])
    return make_field(images, gaussian(WIDTH), np.ones(images.shape))


@pytest.fixture(scope="module")
def field():
    """Six stars on a field of four tiles."""
    return stars(np.random.default_rng(0), 130)


@pytest.fixture
def narrow(rng):
    """Stars on a field of two tiles."""
    return stars(rng, 66)


@pytest.fixture(scope="module")
def whole(field, tmp_path_factory):
    """The field measured in one go, and the folder where its tiles are kept."""
    folder = tmp_path_factory.mktemp("tiles")
    return measure(field, tile=64, samples=3, keep=folder), folder


def same(a, b):
    assert a.table.colnames == b.table.colnames
    for name in a.table.colnames:
        np.testing.assert_allclose(a.table[name], b.table[name], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(a.model, b.model, atol=1e-9)


def test_a_run_that_was_cut_off_goes_on(field, whole, tmp_path, monkeypatch):
    whole = whole[0]
    assert len(whole.table) == 6
    fitted = []

    def interrupted(job, tell=None, real=tile_runs.fit_tile):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(job)
        return real(job)

    with monkeypatch.context() as patch:
        patch.setattr(tile_runs, "fit_tile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(field, tile=64, samples=3, keep=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    lines = []
    again = measure(field, tile=64, samples=3, keep=tmp_path, tell=lines.append)
    assert "2 of 4 tiles were fitted before" in lines
    same(again, whole)
    assert again.samples.keys() == whole.samples.keys()
    np.testing.assert_allclose(again.samples[1], whole.samples[1])
    # Other settings are another run: nothing that was kept fits them.
    lines.clear()
    monkeypatch.setattr(tile_runs, "fit_tile", interrupted)
    with pytest.raises(KeyboardInterrupt):  # as a tile is to be fitted
        measure(field, tile=64, samples=3, star=0.5, keep=tmp_path, tell=lines.append)
    assert not any("fitted before" in line for line in lines)
    (tmp_path / "notes.txt").write_text("mine")
    np.savez(tmp_path / "field.npz", images=field.images)
    tile_runs.discard(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "field.npz"}


def test_workers_change_no_result(narrow):
    same(
        measure(narrow, tile=64, workers=2, light="learned"),
        measure(narrow, tile=64, light="learned"),
    )


def test_tiles_of_another_light_are_fitted_again(narrow, tmp_path):
    """Two nets have one class, and latents of equal names and priors; their profiles differ."""
    first = learned_light()
    second = Learned(learned_light.__wrapped__(BOXED).net)
    second.net.params["f1/weight"].data[...] *= 3
    measure(narrow, tile=64, light=first, keep=tmp_path)
    lines = []
    resumed = measure(narrow, tile=64, light=second, keep=tmp_path, tell=lines.append)
    assert not any("fitted before" in line for line in lines)
    same(resumed, measure(narrow, tile=64, light=second))
    measure(
        narrow, tile=64, light=learned_light.__wrapped__(BOXED), keep=tmp_path, tell=lines.append
    )
    assert "2 of 2 tiles were fitted before" in lines


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text", "other"])
def test_damaged_tiles_are_fitted_again(damage, field, whole, tmp_path):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    path = min(tmp_path.glob("*.npz"))
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    kinds = {"empty": b"", "half": content[:middle], "flipped": flipped, "text": b"hello"}
    if damage == "other":
        np.savez(path, pictures=np.zeros(3))
    else:
        path.write_bytes(kinds[damage])
    lines = []
    same(measure(field, tile=64, samples=3, keep=tmp_path, tell=lines.append), whole[0])
    assert "3 of 4 tiles were fitted before" in lines


def test_a_light_that_cannot_go_to_other_processes_is_told(narrow):
    light = Learned(learned_light.__wrapped__(BOXED).net)
    with pytest.raises(DataError, match=r"light cannot go to other processes.*workers=1"):
        measure(narrow, tile=64, workers=2, light=light)
