"""Fields: what is drawn, fitted and written, against direct sums, finite differences and truth."""

import re
from types import SimpleNamespace

import astropy.table
import numpy as np
import pytest
from astropy.io import fits
from scipy.special import gamma, kv
from small_scenes import WIDTH, blend, draw, source

import layerkit as lk
from layerkit.errors import DataError
from layerkit.galaxy.scene import make_field, measure, read_field, write_scene
from layerkit.galaxy.scene.images.background import background
from layerkit.galaxy.scene.images.detection import detect
from layerkit.galaxy.scene.images.psf import estimate_psf, gaussian, width_of
from layerkit.galaxy.scene.inference.fitting import build, curvature, fit
from layerkit.galaxy.scene.inference.tiles import tiles_of
from layerkit.galaxy.scene.model.light import LEAST, MOST, Spergel
from layerkit.galaxy.scene.results.catalogue import ellipticity_of
from layerkit.galaxy.scene.results.page import scales_of


class TestLight:
    def test_half_of_the_light_is_within_the_unit_radius(self):
        # In real space the profile is (r/r0)^nu K_nu(r/r0), integrated here directly.
        for latent in (-2.0, -0.9, 1.0):
            nu = LEAST + (MOST - LEAST) / (1 + np.exp(-latent))
            latents, small = np.array([[latent]]), np.array([[1e-3]])
            value = Spergel().transform(np, latents, small, 0 * small)[0]
            c = np.sqrt(small**2 / (value ** (-1 / (1 + nu)) - 1)).item()
            r = np.linspace(1e-7, 60 / c, 2_000_001)
            light = (c * r / 2) ** nu * kv(nu, c * r) / gamma(nu + 1) * r
            total = np.cumsum(light)
            assert r[np.searchsorted(total, total[-1] / 2)] == pytest.approx(1, rel=5e-3)
            for radius in (0.3, 2.0):
                inside = Spergel().within(latents, np.array([radius])).item()
                expected = total[np.searchsorted(r, radius)] / total[-1]
                assert inside == pytest.approx(expected, abs=5e-3)

    def test_exponential_disk_is_index_one_half(self):
        # The transform of exp(-r/h) is (1 + (h k)^2)^-1.5, and h = 1 / 1.67835.
        latent = -np.log((MOST - LEAST) / (0.5 - LEAST) - 1)
        k = np.linspace(0, 8, 30)[None]
        value = Spergel().transform(np, np.array([[latent]]), k, 0 * k)[0]
        assert value == pytest.approx((1 + (k / 1.6783470) ** 2) ** -1.5, rel=1e-4)


class TestImages:
    def test_fluxes_and_centres_are_those_given(self):
        pixels, _, _ = draw([source(False, 25.3, 22.4, 800.0, radius=1.5)])
        y, x = np.mgrid[:48, :52]
        image = pixels.values[0]
        assert image.sum() == pytest.approx(800, rel=2e-3)
        assert (image * x).sum() / image.sum() == pytest.approx(25.3, abs=0.02)
        assert (image * y).sum() / image.sum() == pytest.approx(22.4, abs=0.02)

    def test_star_is_the_psf(self):
        pixels, _, _ = draw([source(True, 24.0, 23.0, 100.0)])
        assert pixels.values[0, 11:36, 12:37] == pytest.approx(100 * gaussian(WIDTH), abs=1e-10)

    def test_axis_ratio_and_angle_are_those_of_the_shear(self):
        # A nearly Gaussian light, wide against the PSF: second moments say both.
        shear = (0.5 * np.cos(0.8), 0.5 * np.sin(0.8))
        pixels, _, _ = draw(
            [source(False, 40.0, 40.0, 1e3, radius=6.0, shear=shear, latent=5.0)], 1, 81, 81
        )
        y, x = np.mgrid[:81, :81] - 40.0
        own = pixels.values[0]
        smear = (WIDTH / 2.3548) ** 2
        xx, yy, xy = ((own * a).sum() / own.sum() for a in (x * x, y * y, x * y))
        least, most = np.linalg.eigvalsh([[xx - smear, xy], [xy, yy - smear]])
        assert np.sqrt(least / most) == pytest.approx(np.exp(-0.5), rel=0.02)
        assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(0.4, abs=0.01)

    def test_gradients(self, rng):
        pixels, net, layout = draw(blend(), 2)
        pixels.values += rng.normal(size=pixels.values.shape)
        net = build(pixels, layout)
        net.statistics["theta/centre"].data[...] = layout.values()
        net.statistics["theta/root"].data[...] = 0.03 * np.eye(layout.size)
        lk.check_gradients(net, noise=rng.normal(size=(1, layout.size)), **pixels.inputs())

    def test_curvature_is_that_of_finite_differences(self):
        pixels, net, layout = draw(blend(), 2)
        theta, images = layout.values(), net.layers["image"]
        step, columns = 1e-5, []
        for k in range(layout.size):
            ends = []
            for sign in (1, -1):
                net.statistics["theta/centre"].data[...] = (
                    theta + sign * step * np.eye(len(theta))[k]
                )
                net.forward(noise=np.zeros((1, layout.size)), **pixels.inputs())
                ends.append(net.blobs["image"].data[0].copy())
            columns.append((ends[0] - ends[1]).ravel() / (2 * step))
        expected = np.array(columns) @ np.array(columns).T
        found = curvature(images, theta, np.ones_like(pixels.values))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-4 * np.abs(expected).max())

    def test_curvature_of_errors_that_go_together(self):
        # Against J^T sqrt(w) G sqrt(w) J with the matrix G of all pairs of pixels.
        pixels, net, layout = draw([source(False, 14.2, 15.1, 900.0)], 1, 30, 30)
        theta, images = layout.values(), net.layers["image"]
        (rows, columns), _ = images.window(0)
        weights = 0.2 + np.abs(pixels.values) / 50
        jacobian = np.zeros((layout.size, 30, 30))
        jacobian[layout.part(0), rows, columns] = images.jacobian(0, theta)[:, 0]
        jacobian[layout.sky] = images.sky[0]
        flat = (jacobian * np.sqrt(weights[0])).reshape(layout.size, -1)
        y, x = (a.ravel() for a in np.mgrid[:30, :30])
        square = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
        expected = flat @ np.exp(-square / (2 * 2.5**2)) @ flat.T
        found = curvature(images, theta, weights, 2.5)
        # The window's edge cuts off what two Gaussians would exchange beyond it.
        own = layout.part(0)
        assert found[own, own] == pytest.approx(
            expected[own, own], rel=0.02, abs=0.02 * np.abs(expected[own, own]).max()
        )


class TestFit:
    def test_finds_a_blend_within_its_errors(self, rng):
        sources = blend()
        pixels, _, layout = draw(sources, 2)
        pixels.values += rng.normal(size=pixels.values.shape)
        start = [source(s.star, s.x + 0.4, s.y - 0.3, *1.3 * np.exp(s.log_flux)) for s in sources]
        found = fit(pixels, start)
        off = found.mean - layout.values()
        origins = (found.layout.origins - layout.origins).ravel()
        for i in range(3):
            off[layout.starts[i] : layout.starts[i] + 2] += origins[2 * i : 2 * i + 2]
        pulls = off / np.sqrt(np.diag(found.covariance))
        assert np.abs(pulls).max() < 4.5
        assert 0.5 < pulls.std() < 1.6

    def test_tiles_cover_a_field_once(self):
        count = np.zeros((300, 500), int)
        for tile in tiles_of(300, 500, 128, 20):
            count[tile.core] += 1
            assert tile.owns(tile.core[1].start, tile.core[0].start)
        assert (count == 1).all()


class TestImageSteps:
    def test_background_and_noise(self, rng):
        x = np.mgrid[:256, :256][1]
        slope = 50 + 0.02 * x
        level, noise = background(slope + rng.normal(0, 2, slope.shape), np.ones(slope.shape, bool))
        assert np.abs(level - slope).max() < 1.5
        assert noise == pytest.approx(2, rel=0.05)

    def test_detects_two_and_no_noise(self, rng):
        pixels, _, _ = draw([source(True, 15.2, 20.7, 60.0), source(True, 24.3, 20.1, 90.0)])
        values = pixels.values + rng.normal(size=pixels.values.shape)
        found = detect(values, pixels.weights, pixels.psfs, WIDTH)
        assert len(found) == 2
        assert (found[0].x, found[0].y) == (
            pytest.approx(24.3, abs=0.6),
            pytest.approx(20.1, abs=0.6),
        )

    def test_psf_is_found_in_stars(self, rng):
        sources = [
            source(True, 25 + 40 * i, 25 + 40 * j + 0.3 * i, 2e3)
            for i in range(3)
            for j in range(3)
        ]
        pixels, _, _ = draw(sources, 1, 140, 140)
        psfs, note = estimate_psf(
            pixels.values + rng.normal(size=pixels.values.shape), pixels.weights
        )
        assert "stars" in note
        assert width_of(psfs[0]) == pytest.approx(WIDTH, rel=0.06)


@pytest.fixture
def measured(rng):
    pixels, _, _ = draw(blend(), 2)
    images = pixels.values * 3 + rng.normal(size=pixels.values.shape)
    images[0, 5, 5] = np.nan
    return measure(
        make_field(images, pixels.psfs, np.ones(images.shape), filters=["g", "i"]), samples=5
    )


class TestMeasure:
    def test_catalogue(self, measured, tmp_path):
        names = write_scene(measured, tmp_path / "out")
        assert {"catalogue.fits", "catalogue.ecsv", "model.fits", "report.html"} <= set(names)
        table = astropy.table.Table.read(tmp_path / "out" / "catalogue.fits")
        assert len(table) == 3
        assert measured.chi_square == pytest.approx(1, abs=0.1)
        assert any("1 pixels are not numbers" in note for note in measured.notes)
        for s in blend():
            row = table[np.hypot(table["x"] - s.x, table["y"] - s.y).argmin()]
            assert abs(row["x"] - s.x) < 5 * row["x_err"]
            assert (row["p_star"] > 0.5) == s.star
            for b, band in enumerate("gi"):
                off = row[f"flux_{band}"] - 3 * np.exp(s.log_flux[b])
                assert abs(off) < 5 * row[f"flux_err_{band}"]
        total = fits.getdata(tmp_path / "out" / "model.fits") + fits.getdata(
            tmp_path / "out" / "residual.fits"
        )
        assert np.isnan(total[0, 5, 5])
        assert total.shape == (2, 48, 52)
        with np.load(tmp_path / "out" / "samples.npz") as draws:
            assert draws["source_1"].shape == (5, 9)

    def test_table_of_the_page_shows_each_number_and_its_error(self, measured, tmp_path):
        write_scene(measured, tmp_path)
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        head = re.findall(r"<th>(.*?)</th>", text)
        rows = [re.findall(r"<td>(.*?)</td>", r) for r in re.findall(r"<tr>(<td>.*?)</tr>", text)]
        assert [len(row) for row in rows] == [len(head)] * 3
        row = dict(zip(head, rows[0], strict=True))
        assert row["id"] == "1"
        value, error = row["flux g"].removesuffix("</small>").split("<small>&plusmn; ")
        assert float(value) == pytest.approx(measured.table["flux_g"][0], rel=0.01)
        assert float(error) == pytest.approx(measured.table["flux_err_g"][0], rel=0.1)

    def test_bands_of_a_page_are_shown_alike(self):
        model = np.array([1.0, 2.0, 3.0])[:, None, None] * np.ones((3, 8, 8))
        scene = SimpleNamespace(model=model, weights=np.full(model.shape, 4.0))
        shown = (model / scales_of(scene)[:, None, None]).sum(axis=(1, 2))
        assert shown == pytest.approx(shown[0])
        scene.model[0] /= 1000  # next to nothing in a band: its noise is not blown up
        assert scales_of(scene)[0] > 0.1

    def test_empty_field(self, rng, tmp_path):
        scene = measure(make_field(rng.normal(size=(40, 40)), gaussian(3.0), np.ones((40, 40))))
        write_scene(scene, tmp_path)
        assert len(scene.table) == 0


def test_a_light_that_is_none():
    field = make_field(np.zeros((20, 20)), gaussian(3.0), np.ones((20, 20)))
    with pytest.raises(DataError, match="light: one of learned, spergel"):
        measure(field, light="sersic")


def test_nearly_round_galaxies_are_not_made_elongated(rng):
    # Truths and noise as the prior that the weights stand for has them: on average, no bias.
    true = rng.uniform(0, 1, 400)
    found = []
    for size in true:
        centre = np.array([size, 0]) + rng.normal(0, 0.15, 2)
        found.append(ellipticity_of(centre + rng.normal(0, 0.15, (1000, 2))))
    mean, error = np.array(found).T
    off = mean - (1 - np.exp(-true))
    assert abs(off[mean < 0.25].mean()) < 0.03
    assert abs(off.mean()) < 0.02
    assert 0.6 < (np.abs(off) < error).mean() < 0.78


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": np.zeros((4, 4))}, "16 pixels a side or more"),
        ({"images": np.full((20, 20), np.nan)}, "every pixel is masked"),
        ({"images": np.zeros((20, 20)), "mask": np.ones((20, 20))}, "every pixel is masked"),
        ({"images": np.zeros((20, 20)), "psfs": np.ones((4, 4))}, "odd number"),
        ({"images": np.zeros((20, 20)), "psfs": np.ones((2, 5, 5))}, "expected a PSF of shape"),
        ({"images": np.zeros((20, 20)), "variance": np.ones((9, 20))}, "the variance has shape"),
        ({"images": np.zeros((20, 20)), "filters": ["g", "r"]}, "2 filters for 1 bands"),
        ({"images": np.array([["a"] * 20] * 20)}, "an array of numbers"),
        ({"images": np.zeros((2, 20, 20)), "filters": ["g", "err_g"]}, "columns that are called"),
        ({"images": np.zeros((2, 20, 20)), "filters": ["g", "G"]}, "columns that are called alike"),
    ],
)
def test_errors_say_what_is_wrong(settings, message):
    with pytest.raises(DataError, match=message):
        make_field(**settings)


def test_files_that_are_not_there_or_damaged(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_field(tmp_path / "none.fits")
    (tmp_path / "bad.fits").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable"):
        read_field(tmp_path / "bad.fits")
    np.savez(tmp_path / "other.npz", pictures=np.zeros((20, 20)))
    with pytest.raises(DataError, match="an array called images"):
        read_field(tmp_path / "other.npz")


@pytest.mark.parametrize("filters", ["g", np.array("g"), np.array([b"g"]), np.array([["g"]])])
def test_one_filter_however_it_is_stored(filters, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 20)), filters=filters)
    assert read_field(tmp_path / "a.npz").filters == ["g"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("star", "0.3"),
        ("star", None),
        ("star", 1),
        ("star", np.nan),
        ("workers", "2"),
        ("workers", 0),
        ("workers", 2.5),
        ("light", 3),
        ("light", None),
        ("light", Spergel),
        ("subtract", "no"),
        ("tell", None),
    ],
)
def test_settings_that_make_no_sense_are_told_before_the_work(setting, value):
    field = make_field(np.zeros((20, 20)))
    with pytest.raises(DataError, match=setting):
        measure(field, **{setting: value})
