"""Planes beside a picture: which are whose, which of their bits count, and zero points."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from layerkit.galaxy.images.decode.formats import planes
from layerkit.galaxy.images.sources.sources import open_source

CAMBRIDGE = {"MAGZPT": 24.0, "MAGZRR": 0.02, "NIGHTZPT": 24.1}  # of UKIDSS and VISTA


@pytest.mark.parametrize(
    ("header", "magnitude"),
    [
        ({"BUNIT": "nJy"}, 31.4),
        ({"BUNIT": "nJy", "MAGZERO": 27.0}, 31.4),  # a point of the counts that were before
        ({"BUNIT": "uJy"}, 23.9),
        ({"BUNIT": "mJy"}, 16.4),
        ({"BUNIT": "MJy"}, None),  # which is not mJy
        ({"BUNIT": "Jy"}, 8.9),
        ({"BUNIT": "Jy/beam"}, None),
        ({"BUNIT": "nanomaggy"}, 22.5),
        ({"BUNIT": "nanomaggies"}, 22.5),
        ({"MAGZERO": 30.0}, 30.0),
        ({"MAGZERO": -99.0}, None),
        ({"MAGZERO": 99.0, "MAGZP": 25.0}, 25.0),
        ({"MAGZPT": 25.3}, None),  # of a count, or of a count per second
        ({"MAGZPT": 25.3, "EXPTIME": 300.0}, None),
        ({"MAGZPT": 25.3, "EXPTIME": 1.0}, 25.3),
        ({"MAGZPT": 25.3, "BUNIT": "adu/s"}, 25.3),
        (CAMBRIDGE, None),  # in an unknown time
        (CAMBRIDGE | {"EXPTIME": 10.0}, 26.5),
        (CAMBRIDGE | {"EXP_TIME": 10.0, "EXTINCT": 0.05}, 26.5),
        (CAMBRIDGE | {"EXP_TIME": 10.0, "EXTINCT": 0.05, "AMSTART": 1.2, "AMEND": 1.6}, 26.48),
        (
            CAMBRIDGE
            | {"EXPTIME": 10.0, "EXTINCT": 0.05}
            | {"HIERARCH ESO TEL AIRM START": 1.5, "HIERARCH ESO TEL AIRM END": 1.5},
            26.475,
        ),
    ],
)
def test_zero_points(header, magnitude):
    """As the units, and the archives, define them; nothing where more than one reading is left."""
    found = planes.zero_point([fits.Header(header), fits.Header()])
    assert math.isnan(found) if magnitude is None else found == pytest.approx(magnitude, abs=1e-9)
    split = [fits.Header(), fits.Header(header)]
    assert planes.zero_point(split) == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize(
    ("unit", "rate"),
    [(f"{what}{per}", True)
     for what in ("ELECTRONS", "electron", "e-", "counts", "ADU", "DN")
     for per in ("/S", "/SEC", "/second", " / (pix s)", "/s/pixel", " s-1", " s**-1", " s^-1",
                 " per second")]
    + [("cps", True), ("ELECTRONS", False), ("adu/pixel", False), ("e-", False)]
    + [(unit, None) for unit in ("electron s", "counts/(100 s)", "erg/s", "ct/sr", "MJy/sr", "")],
)  # fmt: skip
def test_rates_are_known_however_they_are_spelt(unit, rate):
    """The zero point of a total of 2,028 s is larger by 8.27 mag; another unit has none."""
    assert planes.per_second(unit) is rate
    header = {"BUNIT": unit, "PHOTFLAM": 7.862e-20, "PHOTPLAM": 5921.1, "EXPTIME": 2028.0}
    found = planes.zero_point([fits.Header(header)])
    # STScI's equation: ABMAG = -2.5 log PHOTFLAM - 5 log PHOTPLAM - 2.408
    point = -2.5 * math.log10(7.862e-20) - 5 * math.log10(5921.1) - 2.408
    expected = {True: point, False: point + 2.5 * math.log10(2028), None: math.nan}[rate]
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("header", "gain"),
    [
        ({"GAIN": 2.0}, 2.0),
        ({"EGAIN": 0.25}, 0.25),
        ({"GAIN": 100, "EGAIN": 0.25}, 0.25),  # the first is a setting of the camera
        ({"GAIN": 2.0, "EGAIN": 0.0}, 2.0),
        ({"EGAIN": 0.25, "BUNIT": "nJy"}, None),
    ],
)
def test_electrons_per_count(header, gain):
    for headers in (
        [fits.Header(header)],
        [fits.Header({k: v for k, v in header.items() if k == key}) for key in header],
    ):
        assert planes.gain(headers) == pytest.approx(
            math.nan if gain is None else gain, nan_ok=True
        )


def write(path, *named, **primary):
    """Write extensions (name, array) in this order."""
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(array, name=name) for name, array in named)]
    hdus[0].header.update(primary)
    fits.HDUList(hdus).writeto(path)
    return open_source(path)


@pytest.mark.parametrize("dtype", ["u4", "i4"])
def test_one_bit_of_webb_s_masks_says_that_a_pixel_is_not_to_be_used(dtype, tmp_path):
    """Others tell its story: a jump taken out (4), saturation in the last groups (2), and so on."""
    mask = np.zeros((40, 40), dtype)
    mask[3], mask[5], mask[7], mask[9] = 4, 2, 1, 1 | 2**30
    pixels = np.zeros((40, 40), "f4")
    source = write(tmp_path / "jw.fits", ("SCI", pixels), ("DQ", mask), TELESCOP="JWST")
    np.testing.assert_array_equal(np.flatnonzero(source.planes(0).missing.any(axis=1)), [7, 9])
    other = write(tmp_path / "hst.fits", ("SCI", pixels), ("DQ", mask), TELESCOP="HST")
    found = np.flatnonzero(other.planes(0).missing.any(axis=1))
    np.testing.assert_array_equal(found, [3, 5, 7, 9])


ORDERS = {
    "Euclid": ["1-E.SCI", "1-E.RMS", "1-E.FLG", "2-F.SCI", "2-F.RMS", "2-F.FLG"],
    "in another order": ["2-F.FLG", "1-E.SCI", "2-F.RMS", "1-E.FLG", "1-E.RMS", "2-F.SCI"],
    "numbers": ["SCI1", "ERR1", "DQ1", "SCI2", "ERR2", "DQ2"],
    "no numbers": ["SCI", "ERR", "DQ", "SCI", "ERR", "DQ"],
    "mask first": ["DQ", "ERR", "SCI", "DQ", "ERR", "SCI"],
    "apart": ["SCI", "SCI", "ERR", "ERR", "DQ", "DQ"],
    "with weights": ["SCI", "WHT", "ERR", "DQ", "SCI", "WHT", "ERR", "DQ"],
}


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
def test_planes_of_several_images_are_those_of_each(names, tmp_path):
    seen, arrays = {}, []
    for name in names:
        kind = next(k for k in ("SCI", "ERR", "RMS", "DQ", "FLG", "WHT") if k in name)
        seen[kind] = number = seen.get(kind, 0) + 1
        number = 2 if name.startswith("2-F") else 1 if name.startswith("1-E") else number
        arrays.append(np.full((40, 40), 10.0 * number, "f4"))
        if kind in ("DQ", "FLG"):
            arrays[-1] = np.zeros((40, 40), "i2")
            arrays[-1][number] = 1
    source = write(tmp_path / "a.fits", *zip(names, arrays, strict=True))
    assert len(source) == 2
    for k in range(2):
        number = round(source.read(k)[20, 20] / 10)
        found = source.planes(k)
        assert (found.variance == (10.0 * number) ** 2).all()
        np.testing.assert_array_equal(np.flatnonzero(found.missing.any(axis=1)), [number])


MASKS = {
    "two words": ["SCI", "DQ", "BPM"],
    "of two images": ["SCI", "DQ", "BPM", "SCI", "DQ", "BPM"],
    "numbers": ["SCI1", "SCI2", "DQ2", "DQ1", "BPM1", "BPM2"],
    "another's": ["SCI1", "DQ1", "SCI2", "DQ2", "BPM2"],
}


@pytest.mark.parametrize("names", MASKS.values(), ids=MASKS)
def test_masks_of_several_words_all_count(names, tmp_path):
    """The mask of image n called by a word has row n masked, 10 further for another word."""
    seen, arrays, rows = {}, [], {}
    for name in names:
        word = name.rstrip("12")
        seen[word] = seen.get(word, 0) + 1
        number = int(name[-1]) if name[-1] in "12" else seen[word]
        arrays.append(np.full((40, 40), 10.0 * number, "f4"))
        if word != "SCI":
            arrays[-1] = np.zeros((40, 40), "u1")
            row = number + (10 if word == "BPM" else 0)
            arrays[-1][row] = 1
            rows.setdefault(number, []).append(row)
    source = write(tmp_path / "a.fits", *zip(names, arrays, strict=True))
    for k in range(len(source)):
        number = round(source.read(k)[20, 20] / 10)
        found = np.flatnonzero(source.planes(k).missing.any(axis=1))
        np.testing.assert_array_equal(found, sorted(rows[number]))


@pytest.mark.parametrize("of", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_astropy_says_in_utype_what_it_calls_uncert(of, tmp_path, rng):
    """However the noise is kept, its variance is one."""
    variance = rng.uniform(1, 9, (40, 40))
    kept = of(VarianceUncertainty(variance).represent_as(of).array)
    CCDData(np.zeros((40, 40)), unit="adu", uncertainty=kept).write(tmp_path / "a.fits")
    np.testing.assert_allclose(open_source(tmp_path / "a.fits").planes(0).variance, variance)


@pytest.mark.parametrize("name", ["ERROR", "NOISE", "STAT", "UNC"])
@pytest.mark.parametrize(
    ("kind", "power"), [("MSE", 1), ("RMSE", 0.5), ("INVMSE", -1), ("INVRMSE", -0.5)]
)
def test_eso_s_keyword_says_what_an_error_is(name, kind, power, tmp_path, rng):
    variance = rng.uniform(1, 9, (40, 40))
    error = fits.ImageHDU(variance**power, name=name)
    error.header.update({"HDUCLAS1": "IMAGE", "HDUCLAS2": "ERROR", "HDUCLAS3": kind})
    science = fits.ImageHDU(np.zeros((40, 40)), name="DATA")
    fits.HDUList([fits.PrimaryHDU(), science, error]).writeto(tmp_path / "a.fits")
    np.testing.assert_allclose(open_source(tmp_path / "a.fits").planes(0).variance, variance)


def test_uncertainty_of_no_known_kind_is_not_used(tmp_path):
    kept = fits.ImageHDU(np.full((40, 40), 3.0), name="UNCERT")
    kept.header["UTYPE"] = "UnknownUncertainty"
    fits.HDUList([fits.PrimaryHDU(np.zeros((40, 40))), kept]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path / "a.fits")
    assert len(source) == 1
    assert source.planes(0).variance is None


@pytest.mark.parametrize(("kind", "good"), [("MASKZERO", 0), ("MASKONE", 1), ("FLAG32BIT", 0)])
def test_eso_s_keyword_says_which_pixels_of_a_mask_are_good(kind, good, tmp_path):
    bad = np.zeros((40, 40), bool)
    bad[3] = True
    mask = fits.ImageHDU((bad != good).astype("i4"), name="QUAL")
    mask.header.update({"HDUCLAS2": "QUALITY", "HDUCLAS3": kind})
    science = fits.ImageHDU(np.zeros((40, 40)), name="DATA")
    fits.HDUList([fits.PrimaryHDU(), science, mask]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(open_source(tmp_path / "a.fits").planes(0).missing, bad)
