"""FITS: the science images, with the values that were written."""

import bz2
import gzip
import io
import itertools

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from picture_files import check_all, fits_file, one, reason

from layerkit import galaxy
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.decode.formats.fits import datasum
from layerkit.galaxy.images.sources.sources import open_source


def test_fits(rng, tmp_path):
    data = rng.gamma(1, 100, (12, 14)).astype(np.float32)
    first = fits_file(fits.PrimaryHDU(data))
    counts = data.astype(np.int32)
    unsigned = fits.PrimaryHDU(data.astype(np.uint16))  # BZERO is 32768
    blank = fits.PrimaryHDU(data.astype(np.int16))
    blank.header["BLANK"] = int(data.astype(np.int16)[3, 4])
    for name, content, expected in [
        ("a.fits", first, data),
        ("b.fits.gz", gzip.compress(first), data),
        ("b.bz2", bz2.compress(first), data),
        ("c.fit", fits_file(fits.PrimaryHDU(), fits.ImageHDU(data[None])), data),
        ("d.flt", first, data),
        ("d", first, data),
        ("d.jpg", first, data),
        ("e.img", fits_file(unsigned), data.astype(np.uint16)),
        ("f.fz", fits_file(fits.PrimaryHDU(), fits.CompImageHDU(counts)), counts),
        ("g.fits", fits_file(fits.PrimaryHDU(), fits.CompImageHDU(
            data, compression_type="GZIP_2", quantize_level=0)), data),
    ]:  # fmt: skip
        image = one(tmp_path, name, content)
        assert image.dtype == np.float64
        np.testing.assert_array_equal(image, expected, name)
    holed = one(tmp_path, "h.fits", fits_file(blank))
    assert np.isnan(holed[3, 4])
    (tmp_path / "table.fits").write_bytes(fits_file(fits.PrimaryHDU()))
    (tmp_path / "cut.fits").write_bytes(first[:2900])
    assert reason(open_source(tmp_path / "table.fits"), 0) == "not an image"
    assert reason(open_source(tmp_path / "cut.fits"), 0) == "unreadable"


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
@pytest.mark.parametrize("tile", [None, (5, 14), (12, 14)])
@pytest.mark.parametrize("whole", [True, False])
def test_tiles_in_a_file_that_is_not_padded_to_full_blocks(kind, tile, whole, rng, tmp_path):
    """Some programs leave the last block of 2,880 bytes short."""
    if kind == "HCOMPRESS_1":
        tile = (12, 14)
    data = rng.normal(0, 1e3, (12, 14)).astype("i4" if whole else "f4")
    image = fits.CompImageHDU(data, compression_type=kind, quantize_level=16, tile_shape=tile)
    content = fits_file(fits.PrimaryHDU(), image)
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        header, start = hdus[1].header, hdus[1].fileinfo()["datLoc"]
    end = start + header["NAXIS1"] * header["NAXIS2"] + header["PCOUNT"]
    assert set(content[end:]) == {0}
    with fits.open(io.BytesIO(content)) as hdus:
        expected = hdus[1].data  # noise is quantised, and so not what it was
    if whole:
        np.testing.assert_array_equal(expected, data)
    for short in (content[:end], content[: end + 9]):
        for name, packed in (("a.fits.fz", short), ("a.fits.gz", gzip.compress(short))):
            np.testing.assert_array_equal(one(tmp_path, name, packed), expected)
    (tmp_path / "cut.fits.fz").write_bytes(content[: start + 2])
    assert reason(open_source(tmp_path / "cut.fits.fz"), 0) == "unreadable"


def test_science_extensions_come_first(rng, tmp_path):
    science, weight = rng.normal(0, 1, (2, 12, 14))
    path = tmp_path / "a.fits"

    def check(expected, *hdus, **settings):
        path.write_bytes(fits_file(*hdus))
        source = open_source(path, **settings)
        assert len(source) == 1
        np.testing.assert_array_equal(source.read(0), expected)

    def image(name, data=weight):
        return fits.ImageHDU(data, name=name)

    first = fits.PrimaryHDU()
    for name in ("WHT", "ERR", "weight_map", "VAR_POISSON", "DQ", "IVAR", "MASK", "SIGMA"):
        check(science, first, image(name), image("SCI", science))
        check(science, first, image(name), image("", science))
        check(science, fits.PrimaryHDU(science), image(name))
    check(science, fits.PrimaryHDU(weight), image("IMAGE", science))
    flags = fits.CompImageHDU(np.zeros((12, 14), np.int32), name="BPM")
    check(science, first, flags, fits.CompImageHDU(science, name="SCI", quantize_level=0,
          compression_type="GZIP_1"))  # fmt: skip
    every = (first, image("WHT"), image("SCI", science))
    check(weight, *every, hdu=1)
    check(weight, *every, hdu="wht")
    assert reason(open_source(path, hdu=7), 0) == "no image in HDU 7"
    path.write_bytes(fits_file(first, image("WHT")))
    assert reason(open_source(path), 0) == (
        "only weights, masks, models or the like; choose an image with hdu"
    )


@pytest.mark.parametrize("names", [
    ("DATA", "STAT", "DQ"), ("DATA", "ERRMAP", "NMAP"), ("COADD", "NIMAGE"), ("", "RESIDUAL"),
    ("COADD", "DEPTH", "CHI2", "MASKBITS"), ("FLUX", "CONF"), ("BGSUB", "BGMOD"),
    ("COUNTS", "COUNTSERR", "DQMASK"), ("STAMP", "WEIGHTIMAGE"), ("FLUX", "FLUXERR", "INVVARIANCE"),
    ("SCI", "ERR", "CON", "VAR_FLAT", "SCI_BKSUB", "BKGD", "BKGMASK"), ("SCI_BKSUB", "ERR"),
    ("IMAGE_BGSUB", "BKGD"), ("GIMG", "GPSF", "LSFPOST", "LSFPRE", "DISP", "PREDISP"),
    ("R", "RIVAR", "RMASK", "RSIGMA"),
    ("DATA", "PSFIMAGE", "NEXP"), ("COADD", "NEPOCHS", "BADMASK", "EXPOSUREMAP"), ("R", "WEI"),
])  # fmt: skip
def test_planes_of_other_observatories_that_are_no_picture(names, rng, tmp_path):
    planes = rng.random((len(names), 20, 30))
    images = [fits.ImageHDU(p, name=n) for p, n in zip(planes, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path)
    assert source.ids == ["a"]
    np.testing.assert_array_equal(source.read(0), planes[0])


@pytest.mark.parametrize("names", [("", "", ""), ("I", "J", "K"), ("CHIP1.INT1", "CHIP2", "CHIP3")])
@pytest.mark.parametrize(("key", "kinds"), [
    ("EXTTYPE", ("IMAGE", "MASK", "VARIANCE")),  # of the Vera Rubin Observatory and Subaru's HSC
    ("DES_EXT", ("IMAGE", "MASK", "WEIGHT")),
    ("IMTYPE", ("image", "maskbits", "nexp")),  # of the Legacy Surveys
    ("PRODTYPE", ("image", "dqmask", "wtmap")),  # of NOIRLab
    ("HDUCLAS2", ("DATA", "ERROR", "QUALITY")),  # of the European Southern Observatory
])  # fmt: skip
def test_keywords_tell_what_planes_are(names, key, kinds, rng, tmp_path):
    planes = rng.random((3, 20, 30))
    images = [fits.ImageHDU(p, name=n) for p, n in zip(planes, names, strict=True)]
    for order in ((0, 1, 2), (2, 1, 0)):
        for image, kind in zip(images, kinds, strict=True):
            image.header[key] = kind
        hdus = [fits.PrimaryHDU(), *(images[k] for k in order)]
        fits.HDUList(hdus).writeto(tmp_path / "a.fits", overwrite=True)
        check_all(tmp_path / "a.fits", planes[:1])
    np.testing.assert_array_equal(open_source(tmp_path / "a.fits", 2).read(0), planes[1])


@pytest.mark.parametrize("card", ["CTYPE1  = RA---TAN", "BLANK   = 'none'", "BSOFTEN = x",
                                  "BSOFTEN = 'x'", "EXTTYPE = a, b"])  # fmt: skip
def test_keywords_that_are_not_of_fits_cost_no_picture(card, rng, tmp_path):
    pixels = rng.random((20, 30))
    content = fits_file(fits.PrimaryHDU(pixels))
    end = content.index(b"END" + b" " * 77)
    bad = content[:end] + card.encode().ljust(80) + content[end : end + 80] + content[end + 160 :]
    (tmp_path / "a.fits").write_bytes(bad)
    check_all(tmp_path / "a.fits", [pixels])


def test_the_number_of_an_hdu_may_be_a_string(rng, tmp_path):
    pixels = rng.random((20, 30))
    images = [fits.ImageHDU(x, name=n) for x, n in ((pixels, "SCI"), (pixels + 1, "WHT"))]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path, "2")
    assert source.name == open_source(tmp_path, 2).name
    np.testing.assert_array_equal(source.read(0), pixels + 1)


@pytest.mark.parametrize(
    ("kind", "packed"),  # Astropy refuses signed bytes with BLANK that are compressed
    [*itertools.product(["i2", "i4", "u2", "u1"], [False, True]), ("i1", False)],
)
@pytest.mark.parametrize("blank", [99, 0])
def test_the_blank_of_fits_integers(kind, packed, blank, rng, tmp_path):
    values = rng.integers(100, 120, (20, 30)).astype(kind)
    values[3, 4] = blank
    hdu = fits.CompImageHDU(values) if packed else fits.PrimaryHDU(values)
    hdu.header["BLANK"] = blank - {"u2": 32768, "i1": -128}.get(kind, 0)
    hdus = [fits.PrimaryHDU(), hdu] if packed else [hdu]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    expected = values.astype("f8")
    expected[3, 4] = np.nan
    check_all(tmp_path / "a.fits", [expected])


@pytest.mark.parametrize("blank", [0, 7])
@pytest.mark.parametrize("packed", [False, True])
def test_the_blank_of_scaled_integers_is_that_before_scaling(blank, packed, rng, tmp_path):
    values = rng.integers(100, 3000, (20, 30)).astype("i2")
    values[3, 4] = blank
    header = fits.Header({"BSCALE": 0.25, "BZERO": 10.0, "BLANK": blank})
    hdu = fits.CompImageHDU(values) if packed else fits.PrimaryHDU(values)
    hdu.header.update(header)
    hdus = [fits.PrimaryHDU(), hdu] if packed else [hdu]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    expected = 0.25 * values + 10.0
    expected[3, 4] = np.nan
    check_all(tmp_path / "a.fits", [expected])


def galfit(rng, **more):
    planes = rng.random((3, 20, 30))
    hdus = [fits.ImageHDU(plane) for plane in planes]
    for hdu, name in zip(hdus, ("NGC 1", "model", "residual map"), strict=True):
        hdu.header.update({"OBJECT": name, **more})
    hdus[1].header.update({
        "LOGFILE": "galfit.01", "FITSECT": "[1:30,1:20]", "COMP_1": "sersic", "1_XC": "15.1 +/- 0.1"
    })  # fmt: skip
    return planes, fits.HDUList([fits.PrimaryHDU(), *hdus])


@pytest.mark.parametrize("more", [{}, {"EXTNAME": "SCI"}])
def test_models_and_residuals_of_galfit_are_no_pictures(more, rng, tmp_path):
    planes, hdus = galfit(rng, **more)
    path = tmp_path / "imgblock.fits"
    hdus.writeto(path)
    check_all(path, planes[:1])
    np.testing.assert_array_equal(open_source(path, 2).read(0), planes[1])
    for hdu in hdus[1:]:
        hdu.header.remove("COMP_1", ignore_missing=True)
        hdu.header.remove("1_XC", ignore_missing=True)
    hdus.writeto(path, overwrite=True)  # of somebody who calls galaxies so
    assert len(open_source(path)) == 3


def test_stacks_of_pan_starrs_are_in_asinh_magnitudes(rng, tmp_path):
    flux = rng.normal(10, 5, (20, 30))
    hdu = fits.PrimaryHDU(2.5 / np.log(10) * np.arcsinh((flux - 0.5) / (2 * 120)))
    hdu.header.update({"BSOFTEN": 120.0, "BOFFSET": 0.5})
    hdu.writeto(tmp_path / "a.fits")
    check_all(tmp_path / "a.fits", [flux])


@pytest.mark.parametrize("names", [
    ("FLUX", "SNR"), ("FLUX", "S/N"), ("COADD", "MAGLIM"), ("INTENSITY", "OFFSETS"),
    ("PHOT", "APERTURE"),
])  # fmt: skip
def test_planes_that_are_no_picture_beside_one(names, rng, tmp_path):
    """Alone, a picture may well be called so."""
    planes = rng.random((2, 20, 30))
    images = [fits.ImageHDU(p, name=n) for p, n in zip(planes, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    check_all(tmp_path / "a.fits", planes[:1])
    fits.HDUList([fits.PrimaryHDU(), images[1]]).writeto(tmp_path / "b.fits")
    check_all(tmp_path / "b.fits", planes[1:])


@pytest.mark.parametrize(
    ("start", "step", "at", "index"),
    [(1, 1, 1, 0), (4, -1, 1, 3), (2, 1, 2, 0), (None, None, None, 0), (-1, -1, 1, None),
     (2, 1, 1, None)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(4, 1, 12, 14), (4, 12, 14), (4, 3, 12, 14)])
@pytest.mark.parametrize("packed", [False, True])
def test_of_the_stokes_parameters_the_total_intensity_is_taken(
    start, step, at, index, shape, packed, rng, tmp_path
):
    """Astropy's WCS says which plane that is; Q, U and V are no light, and XX and YY half of it."""
    data = rng.normal(0, 1, shape)
    hdu = fits.CompImageHDU(data, quantize_level=0, compression_type="GZIP_1") if packed else None
    hdu = hdu or fits.ImageHDU(data)
    axis = len(shape)
    hdu.header[f"CTYPE{axis}"] = "STOKES"
    if start is not None:
        for key, value in (("CRVAL", start), ("CDELT", step), ("CRPIX", at)):
            hdu.header[f"{key}{axis}"] = float(value)
        numbers = WCS(hdu.header, naxis=[axis]).all_pix2world(np.arange(4.0)[:, None], 0)[:, 0]
        assert numbers.tolist().index(1.0) == index if index is not None else 1.0 not in numbers
    path = tmp_path / "a.fits"
    path.write_bytes(fits_file(fits.PrimaryHDU(), hdu))
    if index is None:
        assert reason(open_source(path), 0).startswith("Stokes parameters without the total")
    else:
        expected = data[index].mean(axis=0) if data.ndim > 3 else data[index]
        check_all(path, [expected])


@pytest.mark.parametrize("kind", ["WAVE", "AWAV", "WAVE-LOG", "FREQ", "VRAD", "VELO-LSR", "TIME"])
@pytest.mark.parametrize("packed", [False, True])
def test_wavelengths_and_times_of_one_object_are_no_galaxies(kind, packed, rng, tmp_path):
    """A cube of MUSE would be 3,681 galaxies; bands and single planes are as ever."""
    path = tmp_path / "a.fits"
    settings = {"quantize_level": 0, "compression_type": "GZIP_1"}
    for shape, count in (((30, 12, 14), 0), ((2, 12, 14), 0), ((1, 12, 14), 1), ((3, 12, 14), 1)):
        data = rng.normal(size=shape)
        cube = fits.CompImageHDU(data, **settings) if packed else fits.ImageHDU(data)
        cube.header["CTYPE3"] = kind
        weight = fits.ImageHDU(data[0], name="STAT")
        path.write_bytes(fits_file(fits.PrimaryHDU(), cube, weight))
        if count:
            check_all(path, [data.mean(axis=0)])
        else:
            assert reason(open_source(path), 0).startswith("a cube of wavelengths or times, which")
            assert reason(open_source(path, 1), 0).startswith("a cube of wavelengths or times")
    cube.header["CTYPE3"] = "LINEAR"
    path.write_bytes(fits_file(fits.PrimaryHDU(), fits.ImageHDU(rng.normal(size=(30, 12, 14)))))
    assert len(open_source(path)) == 30


@pytest.mark.parametrize("kind", ["f8", "u2", "i4 packed", "f4 packed"])
def test_data_without_the_checksum_of_their_header(kind, rng, tmp_path):
    """Astropy computes it; data that were damaged on their way would be other galaxies."""
    path = tmp_path / "a.fits"
    data = rng.normal(1000, 100, (30, 40)).astype(kind[:2])
    packed = kind.endswith("packed")
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(data)] if packed else [fits.PrimaryHDU(data)]
    fits.HDUList(hdus).writeto(path, checksum=True)
    content = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as file:
        place, told = file[-1].fileinfo(), int(file[-1].header["DATASUM"])
        assert file[-1].verify_datasum() == 1
    raw = content[place["datLoc"] : place["datLoc"] + place["datSpan"]]
    assert datasum(raw) == told % (2**32 - 1)
    assert open_source(path).read(0).shape == (30, 40)
    damaged = bytearray(content)
    damaged[place["datLoc"] + 1700] ^= 1
    path.write_bytes(damaged)
    assert reason(open_source(path), 0).startswith("damaged: its data do not have the checksum")
    path.write_bytes(bytes(damaged).replace(b"DATASUM", b"OLDSUM "))
    assert open_source(path).read(0).shape == (30, 40)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("count", [3, 5])
def test_a_band_of_a_cube_is_chosen(tmp_path, rng, last, count):
    """3 bands, whose mean is the picture otherwise, and 5, each of which is a picture."""
    cube = rng.normal(100, 9, (count, 40, 44))
    variance = rng.uniform(1, 2, cube.shape)
    arrays = [np.moveaxis(a, 0, -1) if last else a for a in (cube, variance)]
    hdus = [fits.ImageHDU(a, name=name) for a, name in zip(arrays, ("SCI", "VAR"), strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "cube.fits")
    assert len(open_source(tmp_path / "cube.fits")) == (1 if count == 3 else count)
    for chosen in ("[1]", "SCI[1]", "1[1]"):
        source = open_source(tmp_path / "cube.fits", chosen)
        assert source.ids == ["cube"]
        np.testing.assert_array_equal(source.read(0), cube[1])
        np.testing.assert_allclose(source.planes(0).variance, variance[1])
    table = Table({"x": [20.0], "y": [19.0]})
    square = galaxy.open_positions(tmp_path / "cube.fits", table, cutout=8, hdu="SCI[2]")
    np.testing.assert_array_equal(square.read(0), cube[2, 16:24, 17:25])
    np.testing.assert_allclose(square.planes(0).variance, variance[2, 16:24, 17:25])
    source = open_source(tmp_path / "cube.fits", f"[{count}]")
    with pytest.raises(UnusableImageError, match=f"no band {count}; there are {count}"):
        source.read(0)
