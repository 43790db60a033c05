"""Pixel values: their dtype says what they mean, and no mean over colours hides a gap."""

import io

import h5py
import numpy as np
import pytest
import tifffile
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, NDData, NDDataArray
from astropy.utils.masked import Masked
from picture_files import (
    check_all,
    deep_png,
    encoded,
    hdf5,
    one,
    pixels_of,
    read_alone,
    reason,
    tiff,
)
from PIL import Image

from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.decode.pixels import as_picture
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load
from layerkit.galaxy.images.sources.sources import open_source


def test_eight_bits_are_light(rng, tmp_path):
    rgba = pixels_of(rng, 9, 11, 4)
    expected = rgba[..., :3].mean(2) / 255
    for name, content in {
        "rgba.png": encoded(rgba),
        "colour.tiff": tiff(rgba[..., :3], photometric="rgb"),
        "planar.tiff": tiff(
            rgba[..., :3].transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"
        ),
        "packed.tiff": tiff(rgba[..., :3], photometric="rgb", compression="zlib"),
        "colour.bmp": encoded(rgba[..., :3], "BMP"),
        "colour.webp": encoded(rgba[..., :3], "WEBP", lossless=True),
        "false.fits": encoded(rgba[..., :3]),  # the content decides
    }.items():
        image = one(tmp_path, name, content)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, atol=1e-7)
    indexed = Image.fromarray(rgba[..., :3]).quantize(16)
    file = io.BytesIO()
    indexed.save(file, "PNG")
    np.testing.assert_allclose(
        one(tmp_path, "palette.png", file.getvalue()),
        np.asarray(indexed.convert("RGB")).mean(2) / 255,
        atol=1e-7,
    )


def test_sixteen_bits_keep_their_numbers(rng, tmp_path):
    grey, colour = pixels_of(rng, 9, 11, dtype=np.uint16), pixels_of(rng, 9, 11, 3, dtype=np.uint16)
    more = pixels_of(rng, 9, 11, 4, dtype=np.uint16)
    planar = colour.transpose(2, 0, 1).copy()
    for name, content, expected in [
        ("grey.png", encoded(grey), grey),
        ("colour.png", deep_png(colour), np.rint(colour.mean(2))),
        ("alpha.png", deep_png(more), np.rint(more[..., :3].mean(2))),
        ("grey.tif", tiff(grey), grey),
        ("big.tif", tiff(grey, bigtiff=True, byteorder=">"), grey),
        ("white.tif", tiff(grey, photometric="miniswhite"), 65535 - grey),
        ("packed.tif", tiff(grey, compression="zlib", predictor=True), grey),
        ("colour.tif", tiff(colour, photometric="rgb"), np.rint(colour.mean(2))),
        ("alpha.tif", tiff(more, photometric="rgb"), np.rint(more[..., :3].mean(2))),
        ("planar.tif", tiff(planar, photometric="rgb"), np.rint(colour.mean(2))),
    ]:
        image = one(tmp_path, name, content)
        assert image.dtype == np.uint16, name
        np.testing.assert_array_equal(image, expected, name)
        assert open_source(tmp_path / name).deep == [0]
    (tmp_path / "odd.png").write_bytes(deep_png(more[..., :2]))
    assert reason(open_source(tmp_path / "odd.png"), 0).startswith("a 16-bit grey PNG")


def test_floats_and_signed_integers_are_physical(rng, tmp_path):
    flux = rng.normal(0, 1e-3, (9, 11, 3))
    for kind in ("f4", "f8"):
        values = flux.astype(kind)
        one_band = one(tmp_path, "flux.tif", tiff(values[..., 0]))
        assert one_band.dtype == np.float64
        np.testing.assert_array_equal(one_band, values[..., 0])
        three = one(tmp_path, "rgb.tif", tiff(values, photometric="rgb"))
        np.testing.assert_allclose(three, flux.mean(2), atol=1e-9)
    counts = rng.integers(-3000, 3000, (9, 11))
    for kind in ("i2", "i4", "u4"):
        image = one(tmp_path, "counts.tif", tiff(abs(counts).astype(kind)))
        assert image.dtype == np.float64
        np.testing.assert_array_equal(image, abs(counts))


@pytest.mark.parametrize("empty", [0.0, 1.0, np.nan])
def test_bands_without_data_are_left_out_of_the_mean(empty, rng, tmp_path):
    bands = rng.normal(5, 1, (4, 20, 30))
    bands[3] = empty  # no survey there, or an alpha channel in floats
    expected = bands[:3].mean(axis=0)
    fits.writeto(tmp_path / "a.fits", bands)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = np.moveaxis(bands, 0, -1)[None]
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(bands, 0, -1), photometric="rgb")
    fits.writeto(tmp_path / "d.fits", np.full((3, 20, 30), empty))
    bands[0, 2, 3] = np.nan  # a bad pixel of one band is one of the picture
    fits.writeto(tmp_path / "e.fits", bands)
    for i in range(3):
        np.testing.assert_allclose(read_alone(tmp_path, i), expected, rtol=1e-12)
    np.testing.assert_array_equal(read_alone(tmp_path, 3), empty)
    expected[2, 3] = np.nan
    np.testing.assert_allclose(read_alone(tmp_path, 4), expected, rtol=1e-12)


BADS = [1e30, -1e30, -1.5e35, 0, -99, -999, -9999, -32768]


@pytest.mark.parametrize("bad", BADS)
def test_marks_of_bad_pixels_are_no_data(bad, rng, tmp_path):
    bands = rng.normal(50, 1, (3, 20, 30)).astype("f4")
    bands[1, 3, 4] = bands[1, 5, 6] = bad
    expected = bands.astype("f8").mean(axis=0)
    expected[3, 4] = expected[5, 6] = np.nan
    fits.writeto(tmp_path / "a.fits", bands)
    hdf5(tmp_path / "b.h5", images=np.moveaxis(bands, 0, -1)[None])
    fits.writeto(tmp_path / "c.fits", np.where(np.isnan(expected), bad, expected))
    tifffile.imwrite(tmp_path / "d.tif", np.where(np.isnan(expected), bad, expected))
    for i in range(4):
        np.testing.assert_allclose(read_alone(tmp_path, i), expected, rtol=1e-6)


def test_numbers_that_mark_bad_pixels_elsewhere_are_data_here(rng, tmp_path):
    noise = rng.normal(0, 40, (30, 30))
    noise[3, 4] = -99  # one of many such
    tall = 1e38 * np.exp(rng.normal(0, 1, (30, 30)))  # luminosities
    counts = np.rint(rng.normal(0, 400, (30, 30))).astype("i2")
    counts[5, 6] = -999
    kept = [noise, tall, counts, *(rng.poisson(rate, (30, 30)) for rate in (0.01, 0.1, 1, 9, 50))]
    kept += [np.maximum(noise, 0), np.where(noise > 60, noise, 0)]
    for i, pixels in enumerate(kept):
        fits.writeto(tmp_path / f"{i}.fits", pixels)
    source = check_all(tmp_path, [kept[int(name)] for name in open_source(tmp_path).ids])
    assert len(source) == 10


@pytest.mark.parametrize("kind", ["u1", "u2", "i4"])
@pytest.mark.parametrize("empty", [0, 7])
def test_bands_of_integers_without_data_are_left_out_of_the_mean(kind, empty, rng, tmp_path):
    bands = rng.integers(10, 250, (20, 30, 3)).astype(kind)
    bands[..., 1] = empty
    expected = bands[..., ::2].mean(axis=-1)
    expected = {"u1": expected / 255, "u2": np.rint(expected), "i4": expected}[kind]
    fits.writeto(tmp_path / "a.fits", np.moveaxis(bands, -1, 0))
    hdf5(tmp_path / "b.h5", images=bands[None])
    tifffile.imwrite(tmp_path / "c.tif", bands, photometric="rgb")
    if kind == "u1":
        Image.fromarray(bands).save(tmp_path / "d.png")
    np.testing.assert_allclose(read_alone(tmp_path, 0), bands[..., ::2].mean(axis=-1))
    for i in range(1, len(list(tmp_path.iterdir()))):
        np.testing.assert_allclose(read_alone(tmp_path, i), expected, rtol=1e-6)


@pytest.mark.parametrize("fill", [0, -1, np.nan])
def test_a_band_that_ends_within_the_picture_hides_no_gap(fill, rng, tmp_path):
    bands = rng.normal(50, 1, (3, 30, 40))
    expected = bands.mean(axis=0)
    bands[1, :, :9] = fill
    fits.writeto(tmp_path / "a.fits", bands)
    hdf5(tmp_path / "b.h5", images=np.moveaxis(bands, 0, -1)[None].astype("f4"))
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(bands, 0, -1), photometric="rgb")
    for i in range(3):
        picture = read_alone(tmp_path, i)
        assert np.isnan(picture[:, :9]).all()
        # The line beside a gap may count to it.
        np.testing.assert_allclose(picture[:, 10:], expected[:, 10:], rtol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("fill", [0, 9])
def test_a_band_of_light_that_ends_within_the_picture_hides_no_gap(kind, fill, rng, tmp_path):
    """The mean of the others and of nothing would be a galaxy with a dark half."""
    y, x = np.mgrid[-64:64, -64:64]
    light = 12 + 200 * np.exp(-np.hypot(x, y / 0.6) / 8)
    bands = light[..., None] + rng.normal(0, 3, (128, 128, 3))
    bands = np.clip(np.rint(bands * (1 if kind == "u1" else 200)), 0, None)
    bands = np.clip(bands, 0, 255 if kind == "u1" else 65535).astype(kind)
    tifffile.imwrite(tmp_path / "whole.tif", bands, photometric="rgb")
    ends = bands.copy()
    ends[:, :50, 1] = fill
    tifffile.imwrite(tmp_path / "ends.tif", ends, photometric="rgb")
    ends, whole = (open_source(tmp_path).read(i) for i in range(2))
    unit = 255 if kind == "u1" else 1
    np.testing.assert_allclose(whole * unit, bands.mean(axis=-1), atol=0.5)
    assert (ends[:, :50] == 0).all()
    # A blank is taken to be wider than it is by what a JPEG blurs.
    np.testing.assert_array_equal(ends[:, 60:], whole[:, 60:])
    report = prepare(open_source(tmp_path), tmp_path / "set.h5", size=32, progress=False)
    assert report.excluded == {"reaches into blank border": 1}
    assert load(tmp_path / "set.h5").ids == ["whole"]


@pytest.mark.parametrize("dtype", ["f8", "f4", "u1", "u2", "i4", ">f4"])
def test_masked_pixels_are_no_data(dtype, rng):
    """However the mask is kept, and whatever number is under it."""
    pixels = (rng.random((9, 11)) * (1 if dtype.endswith("f4") else 200)).astype(dtype)
    mask = rng.random((9, 11)) < 0.2
    expected = np.where(mask, np.nan, pixels / 255 if dtype == "u1" else pixels)
    pixels[mask] = 255
    flags = 8 * mask.astype("i2")
    for picture in (
        np.ma.array(pixels, mask=mask), CCDData(pixels, unit="adu", mask=mask),
        NDData(pixels, mask=mask), NDDataArray(pixels, mask=mask), NDData(pixels, mask=flags),
        Masked(pixels, mask=mask), Masked(units.Quantity(pixels, units.adu, dtype=None), mask=mask),
    ):  # fmt: skip
        found = as_picture(picture)
        assert found.dtype == (np.float32 if dtype in ("u1", "f4", ">f4") else np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    pixels[mask] = 1
    assert as_picture(np.ma.array(pixels)).dtype == as_picture(pixels).dtype  # none is masked
    with pytest.raises(UnusableImageError, match="a mask of another shape"):
        as_picture(NDData(pixels, mask=mask[1:]))


@pytest.mark.parametrize(("low", "high"), [(-0.3, 1), (0, 1.3), (0, 5e4)])
def test_float32_that_is_no_light_is_refused(low, high, rng, tmp_path):
    """It would be cut off at 1, and shown as linear light."""
    image = rng.uniform(low, high, (40, 50)).astype("f4")
    image[0, :2] = low, high
    with pytest.raises(UnusableImageError, match=r"float32 with numbers far from 0\.\.1; give"):
        cut_out(image, Settings())
    assert as_picture(image.astype("f8")).dtype == np.float64
    light = image.clip(-0.25, 1.25)
    light[1, :4] = np.nan, np.inf, -np.inf, -3.4e38  # mark bad pixels
    np.testing.assert_array_equal(as_picture(light), light)
