"""Pictures that a table names: cut from a field at positions, or in files at paths; scales."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from linear_galaxies import PICTURE, ellipse, shapes

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.sources.sources import open_source

SCALE = 0.4  # arcsec per pixel
NAMES = ["north", "south", "east", "west", "far"]
PLACES = [(80, 100), (300, 90), (150, 280), (310, 330), (130, 180)]  # x, y


def sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.2], [200, 200]
    turn = np.radians(30)
    wcs.wcs.cd = (
        SCALE / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    )
    return wcs


@pytest.fixture
def field(rng, tmp_path):
    """A field with five galaxies, and its array."""
    image = rng.normal(100, 2, (400, 420))
    for (x, y), (sigma, ratio, angle) in zip(PLACES, shapes(rng, 5), strict=True):
        one = ellipse(PICTURE, 0.5 * sigma, ratio, angle, peak=2000.0, sky=0.0)
        image[y - 60 : y + 60, x - 60 : x + 60] += one
    header = sky().to_header()
    fits.PrimaryHDU(image.astype("f4"), header).writeto(tmp_path / "field.fits")
    return tmp_path / "field.fits", image.astype("f4")


def test_squares_are_parts_of_the_field(field):
    path, image = field
    xs = [150, 0, 419.4, 420.1, -3, np.nan, 0]
    source = galaxy.open_positions(path, Table({"X": xs, "y": [200, 0, 399, 10, 3, 3, 1e300]}),
        cutout=32)  # fmt: skip
    assert source.ids == [str(k) for k in range(1, 8)]
    np.testing.assert_array_equal(source.read(0), image[185:217, 135:167])
    corner = source.read(1)
    np.testing.assert_array_equal(corner[15:, 15:], image[:17, :17])
    assert np.isnan(corner[:15]).all()
    assert np.isnan(corner[:, :15]).all()
    assert np.isfinite(source.read(2)).any()
    for k, reason in ((3, "outside"), (4, "outside"), (5, "no position"), (6, "outside")):
        with pytest.raises(UnusableImageError, match=reason):
            source.read(k)


def test_distortions_that_are_tables_in_the_file_count(rng, tmp_path):
    """As in Hubble's flc files: their WCS would else be taken for none."""
    from astropy.wcs import DistortionLookupTable

    wcs = WCS(sky().to_header())
    table = np.array([[1.0, 3.0], [2.0, 4.0]], "f4")
    wcs.cpdis1, wcs.cpdis2 = (
        DistortionLookupTable(sign * table, (1, 1), (1, 1), (399, 399)) for sign in (1, -1)
    )
    hdus = wcs.to_fits()
    image = rng.normal(size=(400, 400)).astype("f4")
    fits.HDUList([fits.PrimaryHDU(image, hdus[0].header), *hdus[1:]]).writeto(tmp_path / "f.fits")
    x, y = np.array(PLACES, float).T
    ra, dec = wcs.all_pix2world(x, y, 0)
    assert np.hypot(*(np.array(wcs.wcs_world2pix(ra, dec, 0)) - [x, y])).min() > 1
    source = galaxy.open_positions(tmp_path / "f.fits", Table({"ra": ra, "dec": dec}), cutout=8)
    np.testing.assert_allclose(source.centres, np.column_stack([y, x]), atol=1e-3)
    np.testing.assert_allclose(source.scales, root_of_area(wcs, x, y), rtol=1e-5)


def root_of_area(wcs, x, y):
    """Arcseconds per pixel from separations of neighbours on the sky, and the angle between."""
    here, right, above = (
        SkyCoord(*wcs.all_pix2world(x + dx, y + dy, 0, ra_dec_order=True), unit="deg")
        for dx, dy in ((0, 0), (1, 0), (0, 1))
    )
    turn = np.sin(here.position_angle(right) - here.position_angle(above))
    sides = here.separation(right).arcsec * here.separation(above).arcsec
    return np.sqrt(sides * np.abs(turn.value))


@pytest.mark.parametrize(("projection", "factor"), [("TAN", 1.0), ("CAR", 0.5**0.5), ("MER", 0.5)])
@pytest.mark.parametrize("swapped", [False, True])
def test_scales_are_those_of_the_place(projection, factor, swapped, rng, tmp_path):
    """At declination 60, where CAR shrinks right ascension by cos 60, and MER both."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.cdelt, wcs.wcs.crval = (
        [-SCALE / 3600, SCALE / 3600],
        [150.0, 60.0 * (projection == "TAN")],
    )
    wcs.wcs.set()
    if projection != "TAN":
        wcs.wcs.crpix = -wcs.wcs_world2pix([[150.0, 60.0]], 0)[0] + 20
    if swapped:
        wcs = wcs.sub([2, 1])
    x, y = rng.uniform(0, 40, (2, 5))
    assert root_of_area(wcs, x, y) == pytest.approx(SCALE * factor, rel=1e-3)
    fits.writeto(tmp_path / "f.fits", rng.normal(size=(40, 40)), wcs.to_header())
    assert open_source(tmp_path / "f.fits").scales[0] == pytest.approx(SCALE * factor, rel=1e-3)
    source = galaxy.open_positions(tmp_path / "f.fits", Table({"x": x, "y": y}), cutout=8)
    np.testing.assert_allclose(source.scales, root_of_area(wcs, x, y), rtol=1e-6)


def test_rows_of_positions_follow_the_table_and_know_their_scale(shared, field):
    path, _ = field
    x, y = np.array(PLACES).T + 0.5 - 0.5
    order = [3, 0, 4, 2, 1]
    table = Table({"name": [NAMES[k] for k in order], "x": x[order], "y": y[order]})
    table.add_row(["off", 900.0, 3.0])
    source = galaxy.open_positions(path, table, id_column="name", cutout=100)
    found = galaxy.encode(shared["run"], source, draws=4)
    assert list(found["id"]) == [NAMES[k] for k in order] + ["off"]
    assert list(found["reason"]) == [""] * 5 + ["outside the image"]
    assert set(found["file"]) == {"field.fits"}
    good = found[:5]
    for axis, centre in (("x", x), ("y", y)):
        middle = good[f"crop_{axis}"] + good["crop_side"] / 2
        np.testing.assert_allclose(middle, centre[order], atol=2)
    np.testing.assert_allclose(good["pixel_scale"], SCALE, rtol=1e-6)
    for end in ("", "_sd"):
        expected = SCALE * good[f"half_light_radius{end}"]
        np.testing.assert_allclose(good[f"half_light_radius_arcsec{end}"], expected, rtol=1e-6)
    assert found["half_light_radius_arcsec"].unit == "arcsec"

    # Source Extractor counts from 1; the sky leads to the places that astropy finds.
    ra, dec = sky().pixel_to_world_values(x[order], y[order])
    for other in (
        Table({"X_IMAGE": x[order] + 1, "Y_IMAGE": y[order] + 1}),
        Table({"ra": ra, "dec": dec}),
        Table({"RA": np.radians(ra), "Dec": np.radians(dec)}, units={"RA": "rad", "Dec": "rad"}),
    ):
        same = galaxy.open_positions(path, other, cutout=100)
        np.testing.assert_allclose(same.centres, source.centres[:5], atol=1e-5)


def test_a_position_beside_a_galaxy_is_not_given_that_galaxy(shared, field):
    """Its numbers would be those of another row."""
    (x, y), beside = PLACES[0], [0, 1.5, 14, -14]
    table = Table({"x": [x + d for d in beside], "y": [y] * 4})
    source = galaxy.open_positions(field[0], table, cutout=100)
    found = galaxy.encode(shared["run"], source, draws=0)
    assert list(found["reason"][:2]) == ["", ""]
    assert all(found["reason"][2:])
    assert "not the one at the position" in found["reason"][2]
    assert np.isnan(found["axis_ratio"][2:]).all()


def test_a_given_scale_counts_before_the_wcs(shared, field):
    source = galaxy.open_positions(field[0], Table({"x": [80], "y": [100]}), cutout=100)
    row = galaxy.encode(shared["run"], source, draws=0, pixel_scale=2.5)[0]
    assert row["pixel_scale"] == 2.5
    assert row["half_light_radius_arcsec"] == pytest.approx(2.5 * row["half_light_radius"])
    plain = galaxy.encode(shared["run"], shared["pictures"], limit=3, draws=0)
    assert "pixel_scale" not in plain.colnames
    with pytest.raises(DataError, match="pixel_scale"):
        galaxy.encode(shared["run"], shared["pictures"], pixel_scale=0)


def test_files_at_paths_are_in_the_order_of_the_table(shared, tmp_path):
    names = shared["names"][:4][::-1]
    paths = [str(shared["pictures"] / name) for name in names]
    table = Table({"path": [*paths, "missing.png", ""], "key": [9, 8, 7, 6, 5, 4]})
    table.write(tmp_path / "list.csv", format="ascii.csv")
    source = galaxy.open_paths(tmp_path / "list.csv", id_column="key")
    found = galaxy.encode(shared["run"], source, draws=0)
    assert list(found["id"]) == ["9", "8", "7", "6", "5", "4"]
    assert list(found["reason"])[4:] == ["no such file", "no path"]
    whole = galaxy.encode(shared["run"], shared["pictures"], draws=0)
    for row, name in zip(found, names, strict=False):
        expected = whole[whole["file"] == name][0]
        assert row["squared_error"] == pytest.approx(expected["squared_error"], rel=1e-4)
    Table({"file": names}).write(shared["pictures"].parent / "near.csv", format="ascii.csv",
        overwrite=True)  # fmt: skip
    own = galaxy.open_paths(Table({"file": names}), column="file", folder=shared["pictures"])
    assert own.ids == [name[:-4] for name in names]


def test_tables_and_fields_that_are_none(field, tmp_path):
    path, image = field
    good = Table({"x": [1.0], "y": [1.0]})
    with pytest.raises(DataError, match="no columns x and y"):
        galaxy.open_positions(path, Table({"a": [1]}))
    with pytest.raises(DataError, match="without rows"):
        galaxy.open_positions(path, good[:0])
    with pytest.raises(DataError, match="'a' twice, in row 2"):
        galaxy.open_positions(path, Table({"x": [1, 2], "y": [1, 2], "id": ["a", "a"]}))
    with pytest.raises(DataError, match="plain numbers"):
        galaxy.open_positions(path, Table({"ra": ["10:00:00"], "dec": ["+02:00:00"]}))
    with pytest.raises(DataError, match="no column 'nme'"):
        galaxy.open_positions(path, good, id_column="nme")
    with pytest.raises(DataError, match="cannot be read"):
        galaxy.open_positions(tmp_path / "nothing.fits", good)
    fits.HDUList([fits.PrimaryHDU(image), fits.ImageHDU(image)]).writeto(tmp_path / "two.fits")
    with pytest.raises(DataError, match="2 images"):
        galaxy.open_positions(tmp_path / "two.fits", good)
    np.testing.assert_array_equal(
        galaxy.open_positions(tmp_path / "two.fits", good, hdu=1, cutout=8).read(0)[2:, 2:],
        image[:6, :6],
    )
    with pytest.raises(DataError, match="no celestial WCS"):
        galaxy.open_positions(tmp_path / "two.fits", Table({"ra": [1.0], "dec": [1.0]}), hdu=1)
    (tmp_path / "no.fits").write_bytes(b"no image")
    with pytest.raises(DataError, match="not an image"):
        galaxy.open_positions(tmp_path / "no.fits", good)
    with pytest.raises(DataError, match="no column 'path'"):
        galaxy.open_paths(good)


@pytest.mark.parametrize("swapped", [False, True])
def test_right_ascension_may_be_the_second_axis(swapped, rng, tmp_path):
    wcs = sky()
    if swapped:
        wcs.wcs.ctype, wcs.wcs.crval = ["DEC--TAN", "RA---TAN"], [2.2, 150.0]
        wcs.wcs.cd = wcs.wcs.cd[::-1]
    fits.PrimaryHDU(rng.normal(size=(400, 420)), wcs.to_header()).writeto(tmp_path / "a.fits")
    ra, dec = sky().all_pix2world([80.0, 300.5], [100.0, 90.25], 0)
    source = galaxy.open_positions(tmp_path / "a.fits", Table({"ra": ra, "dec": dec}))
    np.testing.assert_allclose(source.centres, [[100, 80], [90.25, 300.5]], atol=1e-6)


def test_ra_and_dec_are_not_looked_for_in_galactic_images(rng, tmp_path):
    wcs = sky()
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    fits.PrimaryHDU(rng.normal(size=(400, 420)), wcs.to_header()).writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match="its WCS is in GLON and GLAT, not in right ascension"):
        galaxy.open_positions(tmp_path / "a.fits", Table({"ra": [150.0], "dec": [2.2]}))
    assert len(galaxy.open_positions(tmp_path / "a.fits", Table({"x": [1], "y": [2]}))) == 1
