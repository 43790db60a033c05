"""Pictures that galaxies were prepared from, found again and prepared again."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

import layerkit as lk
from layerkit import galaxy
from layerkit.errors import DataError, LayerkitError
from layerkit.galaxy.evaluation.coverage.latent_coverage import DRAWS
from layerkit.galaxy.evaluation.coverage.redraws import redraw, sky_noise
from layerkit.galaxy.evaluation.coverage.source_pictures import SourcePictures


def test_pictures_of_a_prepared_set_are_found_again(tmp_path, rng):
    """Ids find them, evenly spread; they are prepared alike, and their noise is measured."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:120, :120] - 60
    for i in range(12):
        light = 180 * np.exp(-0.5 * (x**2 + (2 + 0.1 * i) * y**2) / 49)
        light += rng.normal(20, 3, light.shape)
        Image.fromarray(light.clip(0, 255).astype("uint8")).save(folder / f"{i:02d}.png")
    prepared = tmp_path / "galaxies.h5"
    galaxy.prepare(galaxy.open_source(folder), prepared, size=24, progress=False)
    galaxies = galaxy.load(prepared)
    assert len(galaxies) == 12
    pictures = SourcePictures(folder, galaxies, np.arange(2, 12), most=5)
    assert [row for row, _ in pictures.items] == [2, 4, 6, 8, 11]
    for (row, _), picture in zip(pictures.items, pictures, strict=True):
        np.testing.assert_array_equal(pictures.cut(picture), galaxies.images[row])
        assert sky_noise(picture) == pytest.approx(3 / 255, rel=0.1)
    net = lk.Net(lk.load_net("nets/galaxy_gdae.py", pixels=24 * 24, hidden=8), 8, phase="test")
    model = galaxy.GalaxyModel(net)
    pictures = SourcePictures(folder, galaxies, np.arange(12))
    found = galaxy.redrawn_coverage(model, pictures, refine_steps=2)
    assert found.sd.shape == (12, DRAWS, 8)
    assert set(found.metrics()) >= {"latent_scatter_over_sd", "latent_coverage_1sd"}
    # A prepared set has no pictures any more.
    nothing = SourcePictures(prepared, galaxies, np.arange(12))
    assert len(nothing) == 0
    assert galaxy.redrawn_coverage(model, nothing) is None
    # Pictures that cannot be prepared again are nothing to measure, but other errors are shown.
    pictures.galaxies = replace(galaxies, settings={**galaxies.settings, "min_radius": 100.0})
    assert galaxy.redrawn_coverage(model, pictures, refine_steps=0) is None
    pictures.galaxies = replace(galaxies, settings={**galaxies.settings, "size": 20})
    with pytest.raises(LayerkitError, match=r"\(n, 24, 24\)"):
        galaxy.redrawn_coverage(model, pictures, refine_steps=0)
    with pytest.raises(DataError, match="pictures must be SourcePictures"):
        galaxy.redrawn_coverage(model, list(pictures))
    with pytest.raises(DataError, match="model must be a GalaxyModel"):
        galaxy.redrawn_coverage(net, pictures)


def test_masked_pixels_of_linear_units_are_masked_again(tmp_path, rng):
    """A hot pixel that the file masks would else be in what is prepared again."""
    y, x = np.mgrid[:120, :120] - 60
    light = 900 * np.exp(-0.5 * (x**2 + 2 * y**2) / 49) + rng.normal(20, 3, x.shape)
    mask = np.zeros(light.shape, "u1")
    light[62, 66], mask[62, 66] = 1e5, 1
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(light, name="SCI"), fits.ImageHDU(mask, name="MASK")]
    (tmp_path / "pictures").mkdir()
    fits.HDUList(hdus).writeto(tmp_path / "pictures" / "a.fits")
    source = galaxy.open_source(tmp_path / "pictures")
    galaxy.prepare(source, tmp_path / "g.h5", size=24, units="linear", progress=False)
    galaxies = galaxy.load(tmp_path / "g.h5")
    pictures = SourcePictures(tmp_path / "pictures", galaxies, np.arange(1))
    (picture,) = pictures
    assert np.isnan(picture[62, 66])
    np.testing.assert_array_equal(pictures.cut(picture), galaxies.images[0])


def deep(folder, count, top, noise):
    """PNGs of 16 bits, of which a camera fills the values up to `top`."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:120, :120] - 60
    for i in range(count):
        light = top * (0.02 + 0.9 * np.exp(-0.5 * (x**2 + (1.5 + 0.1 * i) * y**2) / 49))
        values = (light + rng.normal(0, noise, light.shape)).clip(0, top).round()
        Image.fromarray(values.astype("uint16")).save(folder / f"{i}.png")


def test_pictures_of_16_bits_keep_their_steps(tmp_path):
    """Their noise may be far below a step of 8 bits; white is that of the set."""
    deep(tmp_path / "pictures", 9, top=4095, noise=3)
    galaxy.prepare(
        galaxy.open_source(tmp_path / "pictures"), tmp_path / "g.h5", size=24, progress=False
    )
    galaxies = galaxy.load(tmp_path / "g.h5")
    pictures = SourcePictures(tmp_path / "pictures", galaxies, np.arange(1, 9), most=4)
    assert len(pictures) == 4
    for (row, _), picture in zip(pictures.items, pictures, strict=True):
        assert picture.dtype == np.uint16
        assert sky_noise(picture) == pytest.approx(3, rel=0.1)
        np.testing.assert_array_equal(pictures.cut(picture), galaxies.images[row])
    views, kept = redraw(pictures, None, 8, share=0.5, cut=pictures.cut)
    assert len(kept) == 4
    border = views[:, :, [0, -1]]  # sky, with 1.5 steps of noise added; its pixels are averaged
    assert 0 < border.std(axis=1).mean() < 1.6 / 4095
