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
        planes = [image, np.full((20, 30), noise), np.full((20, 30), 7)]
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


def test_a_full_disk_is_one_line(rng, tmp_path, monkeypatch):
    scene = measure(make_field(rng.normal(size=(40, 40)), gaussian(3.0), np.ones((40, 40))))

    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("layerkit.galaxy.scene.results.files.write_atomically", full)
    with pytest.raises(DataError, match=r"cannot write into .*: No space left on device"):
        write_scene(scene, tmp_path)
