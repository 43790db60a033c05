"""Fluxes of pictures in physical units: of galaxies whose light, noise and masks are known."""

import math
import pickle

import numpy as np
import pytest
from astropy.io import fits
from galaxy_runs import quicken
from linear_galaxies import NET, PICTURE, ellipse, fitted
from PIL import Image

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.catalogue.photometry.flux import FLUXES
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.sources.sources import open_source

SIDE, SKY, NOISE, ZERO = 33, 200.0, 3.0, 27.5


def light(rng, count):
    """Elliptical Gaussians without sky and noise, (count, PICTURE, PICTURE), and their fluxes."""
    found, fluxes = [], []
    for _ in range(count):
        sigma, ratio, angle = rng.uniform([5, 0.5, 0], [8, 0.9, 180])
        peak = rng.uniform(300, 1500)
        found.append(ellipse(PICTURE, sigma, ratio, angle, rng.uniform(-3, 3, 2), peak, sky=0.0))
        fluxes.append(2 * math.pi * sigma**2 * ratio * peak)
    return np.array(found), np.array(fluxes)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that projects galaxies in linear units onto their principal components."""
    rng = np.random.default_rng(11)
    pictures = light(rng, 150)[0] + SKY + rng.normal(0, NOISE, (150, PICTURE, PICTURE))
    settings = Settings(size=SIDE, units="linear")
    images = np.stack([cut_out(picture, settings)[0] for picture in pictures])
    return galaxy.GalaxyModel(fitted(tmp_path_factory.mktemp("linear"), images))


def write(folder, pictures, *planes, **header):
    """Write a FITS file for each picture, with extensions (name, arrays) beside it."""
    folder.mkdir()
    for k, picture in enumerate(pictures):
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(picture.astype("f4"), name="SCI")])
        hdus[1].header.update(header)
        for name, arrays in planes:
            hdus.append(fits.ImageHDU(np.asarray(arrays[k]), name=name))
        hdus.writeto(folder / f"g{k:02d}.fits")
    return folder


def encode(model, source, **options):
    found = galaxy.encode(model, source, units="linear", **{"draws": 0, "workers": 1, **options})
    assert list(found["reason"]) == [""] * len(found)
    return found


def test_linear_units_keep_the_light(rng):
    """Sky is 0, and the picture comes back by one number; a stretch would have bent it."""
    (clean,), _ = light(rng, 1)
    picture = clean + SKY + rng.normal(0, NOISE, clean.shape)
    image, cut = cut_out(picture, Settings(size=SIDE, units="linear"))
    assert cut.spread == 0
    again = galaxy.unstretch(image, np.array([cut.sky, cut.spread, cut.white]))
    np.testing.assert_allclose(again, cut.sky + (cut.white - cut.sky) * image, rtol=1e-6)
    assert abs(cut.sky - SKY) < 3 * NOISE / 10
    assert 0.3 < image.max() <= 1.5
    twice, other = cut_out(2 * picture, Settings(size=SIDE, units="linear"))
    np.testing.assert_allclose(twice, image, atol=1e-5)
    assert other.white - other.sky == pytest.approx(2 * (cut.white - cut.sky), rel=1e-5)
    bent, same = cut_out(picture, Settings(size=SIDE))
    assert (same.y0, same.x0, same.side, same.white) == (cut.y0, cut.x0, cut.side, cut.white)
    assert same.spread > 0
    assert np.abs(bent - image).max() > 0.1


@pytest.mark.parametrize("plane", ["VAR", "ERR", "IVAR", None])
def test_fluxes_and_their_errors(model, rng, tmp_path, plane):
    clean, truth = light(rng, 24)
    gain = 2.0
    variance = NOISE**2 + clean / gain
    pictures = clean + SKY + rng.normal(0, 1, clean.shape) * np.sqrt(variance)
    planes = {"VAR": variance, "ERR": np.sqrt(variance), "IVAR": 1 / variance}
    beside = [(plane, planes[plane].astype("f4"))] if plane else []
    header = {"MAGZERO": ZERO} | ({} if plane else {"GAIN": gain, "BUNIT": "adu"})
    found = encode(model, write(tmp_path / "f", pictures, *beside, **header))
    np.testing.assert_allclose(found["flux"], truth, rtol=0.05)
    # The best that anybody can do who knows the shape.
    best = 1 / np.sqrt((clean**2 / variance).sum(axis=(1, 2))) * clean.sum(axis=(1, 2))
    np.testing.assert_allclose(found["flux_sd"], best, rtol=0.1)
    np.testing.assert_allclose(found["noise"], NOISE, rtol=0.25)
    np.testing.assert_allclose(found["magnitude"], ZERO - 2.5 * np.log10(found["flux"]))
    np.testing.assert_allclose(
        found["magnitude_sd"], 2.5 / math.log(10) * found["flux_sd"] / found["flux"]
    )
    assert (found["missing"] == 0).all()
    assert found.meta["UNITS"] == "linear"


def test_a_sky_that_slopes_changes_neither_size_nor_flux(model, rng, tmp_path):
    """As it would if the slope passed for noise: this one rises by 60 deviations of it."""
    clean, truth = light(rng, 8)
    y, x = np.mgrid[:PICTURE, :PICTURE] - PICTURE / 2
    sky = SKY + rng.normal(0, NOISE, clean.shape)
    flat = encode(model, write(tmp_path / "flat", clean + sky))
    for k, tilt in enumerate((0.03 * x, -0.5 * x + 0.3 * y)):
        found = encode(model, write(tmp_path / f"tilted{k}", clean + sky + NOISE * tilt))
        np.testing.assert_allclose(found["crop_side"], flat["crop_side"], rtol=0.03)
        np.testing.assert_allclose(found["noise"], flat["noise"], rtol=0.1)
        np.testing.assert_allclose(found["flux"], truth, rtol=0.03)
        np.testing.assert_allclose(found["flux_sd"], flat["flux_sd"], rtol=0.1)
        for shape, most in (("axis_ratio", 0.02), ("half_light_radius", 0.3)):
            np.testing.assert_allclose(found[shape], flat[shape], atol=most)


def test_sky_noise_alone_where_nothing_else_is_known(model, rng, tmp_path):
    clean, truth = light(rng, 12)
    pictures = clean + SKY + rng.normal(0, NOISE, clean.shape)
    found = encode(model, write(tmp_path / "f", pictures))
    best = NOISE / np.sqrt((clean**2).sum(axis=(1, 2))) * clean.sum(axis=(1, 2))
    np.testing.assert_allclose(found["flux"], truth, rtol=0.03)
    np.testing.assert_allclose(found["flux_sd"], best, rtol=0.25)
    assert np.isnan(found["magnitude"]).all()
    given = encode(model, tmp_path / "f", zero_point=25.0, gain=0.5)
    np.testing.assert_allclose(given["magnitude"], 25.0 - 2.5 * np.log10(given["flux"]))
    assert (given["flux_sd"] > found["flux_sd"]).all()
    wide = encode(model, tmp_path / "f", draws=8)
    assert (wide["flux_sd"] > found["flux_sd"]).all()


@pytest.mark.parametrize("how", ["NaN", "MASK", "DQ", "VAR"])
def test_masked_pixels_are_left_out_and_pictures_are_not(model, rng, tmp_path, how):
    """A dead column and a cosmic ray through the galaxy change neither its flux nor its z."""
    clean, truth = light(rng, 10)
    sky = SKY + rng.normal(0, NOISE, clean.shape)
    whole = encode(model, write(tmp_path / "whole", clean + sky))
    bad = np.zeros(clean.shape, bool)
    bad[:, :, PICTURE // 2 + 3] = True
    bad[:, 52:56, 55:66] = True
    pictures = np.where(bad, 60_000.0, clean + sky)
    planes = {
        "MASK": ("MASK", bad.astype(np.uint8)),
        "DQ": ("DQ", 64 * bad.astype(np.int16)),
        "VAR": ("VAR", np.where(bad, 0, NOISE**2).astype("f4")),
    }
    if how in ("NaN", "VAR"):
        pictures = np.where(bad, np.nan, pictures)
    beside = [planes[how]] if how in planes else []
    found = encode(model, write(tmp_path / "masked", pictures, *beside))
    assert (found["missing"] > 0.02).all()
    np.testing.assert_allclose(found["flux"], truth, rtol=0.05)
    noise = NOISE if how == "VAR" else found["noise"]
    assert (found["flux_sd"] / noise > whole["flux_sd"] / whole["noise"]).all()
    np.testing.assert_allclose(found["crop_side"], whole["crop_side"], rtol=0.05)
    np.testing.assert_allclose(found["half_light_radius"], whole["half_light_radius"], rtol=0.05)
    np.testing.assert_allclose(found["axis_ratio"], whole["axis_ratio"], atol=0.05)
    # Stretched units leave such pictures out where they know.
    if how == "NaN":
        left_out = galaxy.encode(model, tmp_path / "masked", draws=0)
        assert set(left_out["reason"]) <= {"bad pixels", "reaches into blank border"}


def test_bits_of_rubin_masks_that_say_what_is_there_count_for_nothing(rng, tmp_path):
    (clean,), _ = light(rng, 1)
    mask = np.zeros(clean.shape, np.int32)
    mask[40:80, 40:80] = 1 << 5  # detected
    mask[10] = 1 << 0  # bad
    hdus = fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(clean), fits.ImageHDU(mask), fits.ImageHDU(clean * 0 + 4)]
    )
    for hdu, kind in zip(hdus[1:], ("IMAGE", "MASK", "VARIANCE"), strict=True):
        hdu.header["EXTTYPE"] = kind
    hdus[2].header.update({"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5})
    hdus[0].header["FLUXMAG0"] = 10 ** (0.4 * 31.4)
    hdus.writeto(tmp_path / "calexp.fits")
    source = open_source(tmp_path / "calexp.fits")
    assert len(source) == 1
    found = source.planes(0)
    np.testing.assert_array_equal(found.missing, mask == 1)
    np.testing.assert_array_equal(found.variance, np.full(clean.shape, 4.0))
    assert found.zero_point == pytest.approx(31.4)


HUBBLE = {"PHOTFLAM": 7.0178e-20, "PHOTPLAM": 5919.46, "PHOTZPT": -21.1}  # of ACS, F606W


def ab_magnitude(rate):
    """A rate in electrons per second as a magnitude, by way of the flux in erg/s/cm^2/Hz."""
    by_frequency = rate * HUBBLE["PHOTFLAM"] * HUBBLE["PHOTPLAM"] ** 2 / 2.99792458e18
    return -2.5 * math.log10(by_frequency) - 48.6


@pytest.mark.parametrize(
    ("header", "magnitude"),
    [
        (HUBBLE | {"BUNIT": "ELECTRONS/S"}, ab_magnitude(1)),
        (HUBBLE | {"BUNIT": "electron / s", "EXPTIME": 100.0}, ab_magnitude(1)),
        (HUBBLE | {"BUNIT": "e-/sec"}, ab_magnitude(1)),
        (HUBBLE | {"BUNIT": "ELECTRONS", "EXPTIME": 100.0}, ab_magnitude(0.01)),
        (HUBBLE | {"BUNIT": "ELECTRONS"}, None),  # in an unknown time
        (HUBBLE | {"EXPTIME": 100.0}, None),  # of an unknown unit
        (HUBBLE | {"BUNIT": "MJy/sr"}, None),
        (HUBBLE | {"BUNIT": "MJy/sr", "MAGZERO": 25.0}, 25.0),
        ({"PHOTZPT": -21.1, "BUNIT": "ELECTRONS/S"}, None),
    ],
)
def test_zero_points_of_hubble(header, magnitude, tmp_path):
    """PHOTZPT is -21.1 in each of its files, whatever the filter."""
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((40, 40), "f4"), name="SCI")]
    hdus[1].header.update(header)
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    found = open_source(tmp_path / "a.fits").planes(0).zero_point
    assert math.isnan(found) if magnitude is None else found == pytest.approx(magnitude, abs=1e-3)


def test_one_plane_beside_a_cube_describes_every_band(tmp_path):
    cube = np.arange(3 * 40 * 44, dtype="f4").reshape(3, 40, 44)
    mask = (cube[0] < 100).astype("u1")
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(cube, name="SCI"), fits.ImageHDU(mask, name="MASK")]
    hdus += [fits.ImageHDU(cube[0] + 1, name="VAR"), fits.ImageHDU(cube + 5, name="VAR")]
    fits.HDUList(hdus[:4]).writeto(tmp_path / "one.fits")
    found = open_source(tmp_path / "one.fits", hdu="SCI[2]").planes(0)
    np.testing.assert_array_equal(found.missing, mask == 1)
    np.testing.assert_array_equal(found.variance, cube[0] + 1)
    assert open_source(tmp_path / "one.fits").planes(0).missing is None  # of the mean of bands
    fits.HDUList(hdus).writeto(tmp_path / "each.fits")
    found = open_source(tmp_path / "each.fits", hdu="SCI[2]").planes(0)
    np.testing.assert_array_equal(found.variance, cube[2] + 5)


@pytest.mark.parametrize("shape", [(40, 44), (1, 40, 44), (1, 1, 40, 44), (40, 1, 44)])
@pytest.mark.parametrize("own", [(1, 40, 44), (40, 44), (1, 1, 40, 44)])
def test_planes_may_lack_axes_of_size_one(own, shape, tmp_path):
    picture = np.arange(40 * 44, dtype="f4").reshape(40, 44)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(picture.reshape(own), name="SCI")]
    hdus.append(fits.ImageHDU((picture + 1).reshape(shape), name="VAR"))
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(open_source(tmp_path / "a.fits").planes(0).variance, picture + 1)


def test_planes_of_stacks_may_lack_axes_of_size_one(tmp_path):
    stack = np.arange(5 * 40 * 44, dtype="f4").reshape(5, 40, 44)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(stack[:, None], name="SCI")]
    hdus.append(fits.ImageHDU(stack + 1, name="VAR"))
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path / "a.fits")
    for k in range(5):
        np.testing.assert_array_equal(source.planes(k).variance, stack[k] + 1)


@pytest.mark.parametrize("whole", [True, False])
def test_a_part_of_the_variance_is_not_all_of_it(whole, tmp_path):
    """As in Webb's files, in another order, or without the whole."""
    parts = {"VAR_POISSON": 4.0, "VAR_RNOISE": 9.0, "VAR_FLAT": 3.0} | (
        {"ERR": 4.0} if whole else {}
    )
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((40, 40), "f4"), name="SCI")]
    hdus += [fits.ImageHDU(np.full((40, 40), v, "f4"), name=name) for name, v in parts.items()]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    found = open_source(tmp_path / "a.fits").planes(0).variance
    assert (found == 16).all() if whole else found is None


@pytest.mark.parametrize("hdu", [None, "SCI"])
def test_planes_of_the_total_intensity(hdu, tmp_path):
    stokes = np.random.default_rng(0).uniform(1, 2, (4, 40, 44)).astype("f4")
    hdus = [fits.ImageHDU(stokes, name="SCI"), fits.ImageHDU(stokes + 1, name="VAR")]
    for one in hdus:
        one.header.update({"CTYPE3": "STOKES", "CRVAL3": 1.0, "CDELT3": 1.0, "CRPIX3": 2.0})
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path / "a.fits", hdu=hdu)
    np.testing.assert_array_equal(source.planes(0).variance, stokes[1] + 1)  # I is the second


def test_positions_in_a_field_have_their_planes(model, rng, tmp_path):
    """Squares cut from a field, one of them over its edge, with its variance and mask."""
    clean, truth = light(rng, 2)
    field = np.full((PICTURE, 2 * PICTURE), SKY) + rng.normal(0, NOISE, (PICTURE, 2 * PICTURE))
    field += np.hstack(list(clean))
    mask = np.zeros(field.shape, np.uint8)
    mask[:, 63] = 1
    field[mask == 1] = -1e4
    variance = np.full(field.shape, NOISE**2, "f4")
    hdus = [fits.PrimaryHDU(field.astype("f4")), fits.ImageHDU(variance, name="VAR")]
    hdus[0].header.update(MAGZERO=ZERO)
    fits.HDUList([*hdus, fits.ImageHDU(mask, name="MASK")]).writeto(tmp_path / "field.fits")
    from astropy.table import Table

    middle = (PICTURE - 1) / 2
    places = Table({"id": ["a", "b"], "x": [middle, middle + PICTURE], "y": [middle, middle]})
    source = galaxy.open_positions(tmp_path / "field.fits", places, cutout=128)
    found = encode(model, source)
    np.testing.assert_allclose(found["flux"], truth, rtol=0.05)
    np.testing.assert_allclose(found["magnitude"], ZERO - 2.5 * np.log10(found["flux"]))
    assert found["missing"][0] > 0.005
    assert found["missing"][1] == 0


def test_compressed_cubes_and_scaled_integers(model, rng, tmp_path):
    """Rice-compressed tiles, BZERO and BSCALE, and planes of another shape, as Astropy has them."""
    (clean,), (truth,) = light(rng, 1)
    picture = clean + SKY + rng.normal(0, NOISE, clean.shape)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(picture.astype("f4"), name="SCI")])
    hdus[1].scale("int16", bzero=1000.0, bscale=0.1)
    hdus.append(fits.ImageHDU(np.ones((7, 7)), name="VAR"))  # of another shape: not its variance
    hdus.writeto(tmp_path / "scaled.fits")
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.CompImageHDU(picture.astype("f4"), name="SCI"),
            fits.CompImageHDU(np.full(picture.shape, NOISE**2, "f4"), name="VAR"),
        ]
    ).writeto(tmp_path / "tiles.fits.fz")
    for name in ("scaled.fits", "tiles.fits.fz"):
        found = encode(model, tmp_path / name)
        assert found["flux"][0] == pytest.approx(truth, rel=0.03)


def test_a_run_in_linear_units_encodes_in_them(rng, tmp_path, monkeypatch):
    """Also from its file alone, and from a small one; a prepared set knows its units, too."""
    quicken(monkeypatch)
    clean, _ = light(rng, 30)
    pictures = clean + SKY + rng.normal(0, NOISE, clean.shape)
    pictures[:, 60, 64] = np.nan  # every galaxy has a hole
    folder = write(tmp_path / "f", pictures, MAGZERO=ZERO)
    net = tmp_path / "linear.py"
    net.write_text(NET)
    options = {"iterations": 3, "held_out": 6, "batch": 8, "refine": 1, "importance_samples": 1}
    with pytest.raises(DataError, match="bad pixels"):
        galaxy.train(folder, tmp_path / "no", net=net, **options)
    galaxy.train(folder, tmp_path / "run", net=net, units="linear", **options)
    assert 'units = "linear"' in (tmp_path / "run" / "run.toml").read_text()
    galaxies = galaxy.load(tmp_path / "run" / "galaxies.h5")
    assert (galaxies.stretches[:, 1] == 0).all()
    np.testing.assert_allclose(galaxies.stretches[:, 0], SKY, atol=NOISE)
    galaxy.export_model(tmp_path / "run", tmp_path / "small.h5")
    for model in ("run", "small.h5"):
        found = galaxy.encode(tmp_path / model, folder, draws=0)
        assert found.meta["UNITS"] == "linear"
        assert (found["missing"] > 0).all()
        assert np.isfinite(found["bound"]).all()
        loaded = galaxy.load_model(tmp_path / model)
        assert loaded.preparation == pickle.loads(pickle.dumps(loaded)).preparation
        alike = galaxy.encode(loaded, folder, draws=0)
        assert alike.meta["UNITS"] == "linear"
        for column in ("flux", "bound", "z_mean_0"):
            np.testing.assert_array_equal(alike[column], found[column])
    with pytest.raises(DataError, match="prepared in units 'linear'"):
        galaxy.gather(tmp_path / "run" / "galaxies.h5", tmp_path / "again.h5")
    # Light in 0..1 is nothing that such a model has seen, nor are galaxies that were stretched.
    write_light(folder / "h.png", rng)
    found = galaxy.encode(tmp_path / "run", folder, draws=0)
    assert [i for i, reason in zip(found["id"], found["reason"], strict=True) if reason] == ["h"]
    assert "linear units" in found["reason"][-1]
    source = galaxy.open_source(folder / "h.png")
    galaxy.prepare(source, tmp_path / "light.h5", size=galaxies.size, progress=False)
    with pytest.raises(DataError, match="prepared in units 'stretched', and 'linear' are asked"):
        galaxy.encode(tmp_path / "run", tmp_path / "light.h5", draws=0)
    with pytest.raises(DataError, match=r"no usable galaxy .*linear units"):
        galaxy.prepare(source, tmp_path / "no.h5", units="linear", progress=False)


def write_light(path, rng):
    """Write a picture of 8 bits."""
    picture = ellipse(PICTURE, 7, 0.7, 20.0) + rng.normal(0, 0.005, (PICTURE, PICTURE))
    Image.fromarray(np.uint8(255 * picture.clip(0, 1))).save(path)


def test_light_has_no_flux(model, tmp_path, rng):
    write_light(tmp_path / "g.png", rng)
    found = galaxy.encode(model, tmp_path / "g.png", draws=0)
    assert not set(FLUXES) & set(found.colnames)


@pytest.mark.parametrize(
    "options", [{"gain": 0}, {"zero_point": math.inf}, {"units": "magnitudes"}, {"gain": "2"}]
)
def test_options_out_of_range(model, tmp_path, options):
    with pytest.raises(DataError, match=next(iter(options))):
        galaxy.encode(model, tmp_path, **options)
