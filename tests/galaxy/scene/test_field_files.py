"""Fields in the FITS files that surveys write, and what is written of a measured field."""

import errno

import astropy.wcs
import numpy as np
import pytest
from astropy.io import fits

from layerkit.errors import DataError
from layerkit.galaxy.scene import make_field, measure, read_field, write_scene
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.results.catalogue import Row, table_of


def extension(name, values, **keywords):
    hdu = fits.ImageHDU(values, name=name)
    hdu.header.update(keywords)
    return hdu


def row(x, y, x_err, y_err):
    one = np.ones(1)
    return Row(
        (0, 0), x, y, x_err, y_err, one, one, 0.5, (1, 1), (0, 1), (0, 1), 0, np.empty((0, 0))
    )


class TestReadsFits:
    """Files as surveys have them, read by the rules for pictures of galaxies."""

    @pytest.fixture
    def written(self, tmp_path):
        def write(*hdus):
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits", overwrite=True)
            return tmp_path / "a.fits"

        return write

    @pytest.mark.parametrize("hdu", ["SCI[1]", "[1]", "1[1]"])
    def test_one_band_of_a_cube(self, hdu, rng, written):
        cube = rng.normal(size=(5, 20, 30))
        path = written(extension("SCI", cube), extension("OTHER", np.zeros((4, 4))))
        np.testing.assert_array_equal(read_field(path, hdu=hdu).images, cube[1:2])
        with pytest.raises(DataError, match="no band 7; there are"):
            read_field(path, hdu=hdu.replace("[1]", "[7]"))

    @pytest.mark.parametrize("name", ["ERR", "IVAR", "VAR"])
    def test_noise_that_is_not_positive_masks(self, name, rng, written):
        noise = np.full((20, 30), 2.0)
        noise[3], noise[5] = -2, 0
        field = read_field(
            written(extension("SCI", rng.normal(size=(20, 30))), extension(name, noise))
        )
        assert field.usable[0].sum() == 18 * 30
        assert not field.usable[0, [3, 5]].any()

    @pytest.mark.parametrize(
        ("key", "said", "power"),
        [("HDUCLAS3", "MSE", 1), ("HDUCLAS3", "INVRMSE", -0.5), ("UTYPE", "InverseVariance", -1)],
    )
    def test_keywords_say_what_noise_is(self, key, said, power, rng, written):
        variance = rng.uniform(1, 9, (20, 30))
        noise = extension("UNCERT", variance**power)
        noise.header[key] = said
        field = read_field(written(extension("SCI", rng.normal(size=(20, 30))), noise))
        np.testing.assert_allclose(field.variance[0], variance)

    def test_bits_of_data_quality_are_those_that_the_telescope_says(self, rng, written):
        """Webb's DO_NOT_USE alone, any of others', or those that are chosen."""
        image, mask = rng.normal(size=(20, 30)), np.zeros((20, 30), "u4")
        mask[3], mask[5] = 4, 1
        for telescope, bits, rows in (("JWST", None, [5]), ("HST", None, [3, 5]), ("JWST", 4, [3])):
            path = written(extension("SCI", image), extension("DQ", mask))
            fits.setval(path, "TELESCOP", value=telescope)
            field = read_field(path, use_bits=bits)
            np.testing.assert_array_equal(np.flatnonzero(~field.usable[0].all(axis=1)), rows)
            np.save(path.parent / "b.npy", image)
            path = written(extension("DQ", mask))
            fits.setval(path, "TELESCOP", value=telescope)
            field = read_field(path.parent / "b.npy", mask=path, use_bits=bits)
            np.testing.assert_array_equal(np.flatnonzero(~field.usable[0].all(axis=1)), rows)

    @pytest.mark.parametrize("hdu", [None, "SCI", 1, "B.SCI", "B.SCI[1]"])
    def test_a_chosen_image_has_its_own_noise_and_mask(self, hdu, rng, written):
        image, mask = rng.normal(size=(20, 30)), np.zeros((20, 30), "i2")
        mask[3] = 1
        hdus = [extension("SCI", image), extension("ERR", 2 + 0 * image), extension("DQ", mask)]
        if hdu is not None:
            cube = np.stack([image, image, image])
            hdus += [
                extension("B.SCI", cube), extension("B.DQ", np.stack([mask] * 3)[:, ::-1]),
                extension("B.ERR", 5 + 0 * cube),
            ]  # fmt: skip
        second = str(hdu).startswith("B")
        field = read_field(written(*hdus), hdu=hdu)
        assert len(field.images) == (3 if hdu == "B.SCI" else 1)
        assert set(field.variance[field.usable]) == {25.0 if second else 4.0}
        rows = np.flatnonzero(~field.usable[0].all(axis=1))
        np.testing.assert_array_equal(rows, [16 if second else 3])
        assert not any("not used" in note for note in field.notes)

    @pytest.mark.parametrize("hdu", [None, "SCI"])
    def test_a_second_mask_is_told(self, hdu, rng, written):
        hdus = [extension(name, np.zeros((20, 30), "i2")) for name in ("DQ", "BPM")]
        field = read_field(written(extension("SCI", rng.normal(size=(20, 30))), *hdus), hdu=hdu)
        assert any("extensions not used: BPM" in note for note in field.notes)

    @pytest.mark.parametrize("bits", ["3", 1.5, -1, 2**70, True])
    def test_bits_of_a_mask_are_a_whole_number(self, bits, rng):
        with pytest.raises(DataError, match="use_bits must be a whole number"):
            make_field(rng.normal(size=(20, 30)), mask=np.full((20, 30), 2), use_bits=bits)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    @pytest.mark.parametrize(("names", "key", "noise", "variance"), [
        (("SCI", "WHT", "CTX"), "EXTNAME", 3.0, None),  # HST, drizzled
        (("SCI", "ERR", "DQ"), "EXTNAME", 3.0, 9.0),  # JWST: the deviation
        (("DATA", "STAT", "DQ"), "EXTNAME", 3.0, 3.0),  # ESO: the variance
        (("COADD", "INVVAR", "NEXP"), "EXTNAME", 4.0, 0.25),
        (("IMAGE", "VARIANCE", "PSFEX"), "EXTTYPE", 3.0, 3.0),  # HSC, without an EXTNAME
    ])  # fmt: skip
    def test_the_image_whatever_comes_first(self, names, key, noise, variance, order, rng, written):
        image = rng.normal(size=(20, 30))
        planes = [image, np.full((20, 30), noise), np.full((20, 30), 0 if "DQ" in names else 7)]
        named = key == "EXTNAME"
        hdus = [
            extension(names[i] if named else "", planes[i], **({} if named else {key: names[i]}))
            for i in order
        ]
        field = read_field(written(*hdus))
        np.testing.assert_array_equal(field.images[0], image)
        assert field.usable.all()
        if variance is None:
            assert field.variance is None
            assert any("extensions not used: " in n and "WHT" in n for n in field.notes)
        else:
            np.testing.assert_allclose(field.variance[0], variance)

    def test_a_mask_of_bit_planes_beside_it(self, rng, written):
        image, mask = rng.normal(size=(20, 30)), np.zeros((20, 30), np.int32)
        mask[2, 3], mask[4, 5] = 1 << 1, 1 << 5  # saturated; and detected, which is no fault
        field = read_field(written(extension("MASK", mask), extension("IMAGE", image)))
        assert np.argwhere(~field.usable[0]).tolist() == [[2, 3]]

    def test_several_images_are_to_be_chosen_from(self, rng, written):
        images = rng.normal(size=(2, 20, 30))
        path = written(*(extension("SCI", image) for image in images))
        with pytest.raises(DataError, match="2 images, in extensions 1, 2; choose one with --hdu"):
            read_field(path)
        np.testing.assert_array_equal(read_field(path, hdu=2).images[0], images[1])
        with pytest.raises(DataError, match="only weights, masks"):
            read_field(written(extension("WHT", images[0])))
        # As the plane that it is, it can be given.
        np.save(path.parent / "b.npy", images[0])
        field = read_field(
            path.parent / "b.npy", variance=written(extension("ERR", abs(images[1])))
        )
        np.testing.assert_allclose(field.variance[0], images[1] ** 2)

    def test_numbers_are_what_keywords_make_of_them(self, rng, written):
        flux = rng.normal(10, 5, (20, 30))
        packed = 2.5 / np.log(10) * np.arcsinh((flux - 0.5) / 240)
        field = read_field(written(extension("", packed, BSOFTEN=120.0, BOFFSET=0.5)))
        np.testing.assert_allclose(field.images[0], flux)
        stokes = np.stack([flux, flux + 1, flux + 2, flux + 3])[:, None]
        field = read_field(written(extension("", stokes, CTYPE4="STOKES", CRVAL4=1.0)))
        np.testing.assert_array_equal(field.images, flux[None])

    def test_pixels_without_data_are_masked(self, rng, written):
        image = rng.normal(size=(40, 50))
        image[:, :20] = 0  # beyond the survey
        image[9, 30] = -99
        field = read_field(written(extension("", image)))
        assert not field.usable[0, :, :20].any()
        assert np.argwhere(~field.usable[0, :, 20:]).tolist() == [[9, 10]]

    @pytest.mark.parametrize("names", [("RA---TAN", "DEC--TAN"), ("DEC--TAN", "RA---TAN"),
                                       ("GLON-TAN", "GLAT-TAN")])  # fmt: skip
    def test_places_and_errors_on_the_sky(self, names, rng, written):
        """Errors are those of the columns, so that of a right ascension grows towards the pole."""
        wcs = astropy.wcs.WCS(naxis=2)
        north = names[0].startswith("DEC")
        wcs.wcs.ctype, wcs.wcs.crpix = names, [11.0, 16.0]
        wcs.wcs.crval = [60.0, 360 - 1e-7] if north else [360 - 1e-7, 60.0]
        wcs.wcs.cd = 1e-4 * np.array([[-0.8, 0.6], [0.6, 0.8]])
        image = extension("", rng.normal(size=(30, 40)), **wcs.to_header())
        field = read_field(written(image))
        rows = [row(x, y, x_err=0.1, y_err=0.2) for x, y in ((10.0, 15.0), (30.0, 20.0))]
        table, _ = table_of(rows, field, 3.0)
        here = wcs.all_pix2world([[10.0, 15.0], [30.0, 20.0]], 0)[:, :: -1 if north else 1]
        lon, lat = ("glon", "glat") if names[0].startswith("GL") else ("ra", "dec")
        np.testing.assert_allclose(np.column_stack([table[lon], table[lat]]), here, atol=1e-9)
        drawn = np.column_stack([rng.normal(10, 0.1, 4000), rng.normal(15, 0.2, 4000)])
        sky = wcs.all_pix2world(drawn, 0)[:, :: -1 if north else 1]
        sky[:, 0] = (sky[:, 0] + 180) % 360
        found = [table[f"{lon}_err"][0], table[f"{lat}_err"][0]]
        np.testing.assert_allclose(found, sky.std(axis=0), rtol=0.05)


def test_the_light_of_a_psf_is_in_its_middle(rng):
    """Else every position is off by as much, and nothing in a residual shows it."""
    images, psf = rng.normal(size=(40, 40)), gaussian(3.0)
    assert not make_field(images, psf).notes
    with pytest.raises(DataError, match=r"the PSF is centred 2\.0 pixels from its middle pixel"):
        make_field(images, np.roll(psf, 2, axis=1))
    half = (psf + np.roll(psf, 1, axis=0)) / 2
    (note,) = make_field(images, half).notes
    assert "centred 0.5 pixels from its middle pixel" in note
    cornered = psf + np.roll(psf, (8, 8), (0, 1)) / 10  # a faint ghost far from the core
    assert not make_field(images, cornered).notes


def test_distortions_are_in_what_is_written(rng, tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRPIX1": 20.0})
    header.update(CRPIX2=20.0, CRVAL1=150.0, CRVAL2=2.0, CD1_1=-1e-4, CD1_2=0.0, CD2_1=0.0)
    header.update(CD2_2=1e-4, A_ORDER=2, B_ORDER=2, A_2_0=1e-2, B_0_2=-2e-2, A_1_1=3e-3, B_1_1=0.0)
    fits.PrimaryHDU(rng.normal(size=(40, 40)), header).writeto(tmp_path / "sip.fits")
    field = read_field(tmp_path / "sip.fits", variance=None)
    field.psfs, field.variance = gaussian(3.0)[None], np.ones((1, 40, 40))
    write_scene(measure(field), tmp_path / "out")
    places = np.array([[0.0, 0.0], [39.0, 0.0], [12.0, 33.0]])
    expected = astropy.wcs.WCS(header).all_pix2world(places, 0)
    assert abs(expected - astropy.wcs.WCS(header).wcs_pix2world(places, 0)).max() > 1e-4
    for name in ("model.fits", "residual.fits"):
        found = astropy.wcs.WCS(fits.getheader(tmp_path / "out" / name)).all_pix2world(places, 0)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_full_disk_is_one_line(rng, tmp_path, monkeypatch):
    scene = measure(make_field(rng.normal(size=(40, 40)), gaussian(3.0), np.ones((40, 40))))

    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("layerkit.galaxy.scene.results.files.write_atomically", full)
    with pytest.raises(DataError, match=r"cannot write into .*: No space left on device"):
        write_scene(scene, tmp_path)


@pytest.mark.parametrize(
    ("option", "name", "value", "expected"),
    [
        ("variance", "UNCERT", 3.0, 9.0),
        ("variance", "NOISE", 3.0, 9.0),
        ("variance", "IVAR", 4.0, 0.25),
        ("variance", "VARMAP", 4.0, 4.0),
        ("variance", "", 4.0, 4.0),
        ("variance", "WHT", 4.0, "called WHT, which is no variance"),
        ("variance", "MASK", 4.0, "called MASK, which is no variance"),
        ("variance", "PSF", 4.0, "called PSF, which is no variance"),
        ("mask", "VAR", 4.0, "called VAR, which is no mask"),
        ("mask", "MSK", 32, "every pixel is masked"),
        ("psf", "ERR", 1.0, "called ERR, which is no PSF"),
    ],
)
def test_planes_are_what_they_are_called(option, name, value, expected, rng, tmp_path):
    """A weight is no variance, and a deviation is not one yet."""
    np.save(tmp_path / "a.npy", rng.normal(size=(25, 25)))
    hdu = extension(name, np.full((25, 25), value))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "b.fits")
    given = {option: tmp_path / "b.fits"}
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_field(tmp_path / "a.npy", **given)
    else:
        assert (read_field(tmp_path / "a.npy", **given).variance == expected).all()


def test_filters_of_any_language_are_written(rng, tmp_path):
    images = rng.normal(size=(2, 40, 40))
    scene = measure(make_field(images, gaussian(3.0), images * 0 + 1, filters=["é", "g"]))
    write_scene(scene, tmp_path)
    assert fits.getheader(tmp_path / "model.fits")["BAND1"] == "\\xe9"
