"""gather and the results folder: what is prepared once, and when it is prepared again."""

import json
import os
import time

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from layerkit import galaxy
from layerkit.errors import DataError


def picture(rng, path, side=120):
    y, x = np.mgrid[:side, :side] - side / 2
    light = 200 * np.exp(-0.5 * (x**2 / rng.uniform(6, 9) ** 2 + y**2 / rng.uniform(6, 9) ** 2))
    noisy = np.clip(light + rng.normal(10, 3, (side, side)), 0, 255)
    Image.fromarray(noisy.astype("uint8")).save(path)


def test_prepares_once_and_again_when_the_pictures_change(tmp_path, rng, capsys):
    folder, cache = tmp_path / "pictures", tmp_path / "out" / "galaxies.h5"
    folder.mkdir()
    for i in range(4):
        picture(rng, folder / f"{i}.png")
    first = galaxy.gather(folder, cache)
    assert len(first) == 4
    assert (tmp_path / "out" / "contact_sheets" / "kept.png").exists()
    capsys.readouterr()
    np.testing.assert_array_equal(galaxy.gather(folder, cache).images, first.images)
    assert "earlier" in capsys.readouterr().out
    picture(rng, folder / "3.png")
    later = time.time() + 5
    os.utime(folder / "3.png", (later, later))
    changed = galaxy.gather(folder, cache)
    assert not np.array_equal(changed.images[3], first.images[3])
    picture(rng, folder / "4.png")
    assert len(galaxy.gather(folder, cache)) == 5
    assert len(galaxy.gather(folder, cache, limit=2)) == 2
    # A prepared file is itself a source, and a damaged one is made anew.
    assert galaxy.gather(cache, tmp_path / "other.h5").ids == ["0", "1"]
    assert not (tmp_path / "other.h5").exists()
    cache.write_bytes(cache.read_bytes()[:3000])
    assert len(galaxy.gather(folder, cache)) == 5


def test_another_extension_is_another_set(tmp_path, rng):
    y, x = np.mgrid[:120, :120] - 60
    bands = [
        900 * np.exp(-np.hypot(y / ratio, x) / 5) + rng.normal(0, 2, (120, 120))
        for ratio in (0.4, 1.0)
    ]
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(band, name=f"B{k}") for k, band in enumerate(bands))]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    one, two = (
        galaxy.gather(tmp_path / "a.fits", tmp_path / "g.h5", hdu=hdu) for hdu in ("b0", 2)
    )
    assert (one.source, two.source) == ("a.fits[b0]", "a.fits[2]")
    assert one.ids == two.ids == ["a"]
    assert one.images[0, 5:20, 34].mean() < two.images[0, 5:20, 34].mean() - 0.05
    assert len(galaxy.gather(tmp_path / "a.fits", tmp_path / "g.h5")) == 2


def test_results_folder_must_be_writable(tmp_path):
    assert galaxy.results_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        galaxy.results_folder(tmp_path / "file")


def test_an_earlier_model_is_set_aside_and_json_is_whole(tmp_path, capsys):
    galaxy.set_aside(tmp_path / "model.h5")
    (tmp_path / "model.h5").write_text("precious")
    galaxy.set_aside(tmp_path / "model.h5")
    assert not (tmp_path / "model.h5").exists()
    assert (tmp_path / "model.previous.h5").read_text() == "precious"
    galaxy.write_json(tmp_path / "m.json", {"a": 1, "b": float("nan")})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": 1, "b": None}
