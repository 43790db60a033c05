"""Sources that overlap: errors, hidden neighbours and pieces, against closed forms and truth."""

from dataclasses import replace

import numpy as np
import pytest
from small_scenes import WIDTH, draw, source

from layerkit.galaxy.scene import make_field, measure
from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.galaxy.scene.inference.choosing import choose, with_owners
from layerkit.galaxy.scene.inference.fitting import fit
from layerkit.galaxy.scene.inference.proposing import hidden, parted
from layerkit.galaxy.scene.model.light import Spergel
from layerkit.galaxy.scene.results.catalogue import with_its_pieces

SIGMA = WIDTH / np.sqrt(8 * np.log(2))  # of the Gaussian PSF


def two_points(apart=1.2, ratio=0.5, flux=600.0):
    away = apart * WIDTH / np.sqrt(2)
    return [source(True, 24.2, 22.4, flux), source(True, 24.2 + away, 22.4 + away, ratio * flux)]


class TestErrors:
    def test_fluxes_of_two_overlapping_gaussians(self):
        # Fisher information of the fluxes alone: integrals of products of two Gaussians.
        sources = two_points()
        pixels, _, _ = draw(sources)
        found = fit(pixels, sources)
        places = np.array([found.layout.starts]).ravel() + 2
        information = np.linalg.inv(found.covariance) - found.layout.prior()[1]
        same = 1 / (4 * np.pi * SIGMA**2)
        other = same * np.exp(-((1.2 * WIDTH) ** 2) / (4 * SIGMA**2))
        expected = np.outer([600, 300], [600, 300]) * np.array([[same, other], [other, same]])
        assert information[np.ix_(places, places)] == pytest.approx(expected, rel=1e-4)

    def test_neighbours_and_free_positions_make_errors_larger(self):
        # The covariance is the inverse of all numbers' information, by derivatives in closed form.
        sources = two_points()
        pixels, _, _ = draw(sources)
        found = fit(pixels, sources)
        y, x = np.mgrid[:48, :52]
        rows = []
        for s in found.sources:
            light = np.exp(-((x - s.x) ** 2 + (y - s.y) ** 2) / (2 * SIGMA**2))
            light *= np.exp(s.log_flux[0]) / (2 * np.pi * SIGMA**2)
            rows += [light * (x - s.x) / SIGMA**2, light * (y - s.y) / SIGMA**2, light]
        jacobian = np.array([*rows, np.ones_like(light)]).reshape(7, -1)
        expected = np.linalg.inv(jacobian @ jacobian.T + found.layout.prior()[1])
        assert found.covariance == pytest.approx(expected, rel=2e-3, abs=1e-8)

    def test_flux_of_a_source_and_its_pieces(self):
        sources = two_points()
        pixels, _, _ = draw(sources)
        found = fit(pixels, [replace(sources[0], pieces=(sources[1],))])
        assert len(found.sources) == 1
        mean, covariance = with_its_pieces(found, 0)
        fluxes = np.exp([s.log_flux[0] for s in found.parts])
        places = np.array(found.layout.starts) + 2
        of_logs = found.covariance[np.ix_(places, places)]
        assert mean[2] == pytest.approx(np.log(fluxes.sum()))
        variance = fluxes @ of_logs @ fluxes / fluxes.sum() ** 2
        assert covariance[2, 2] == pytest.approx(variance)
        # Light that goes from one to the other does not change the sum.
        assert variance < of_logs[0, 0]
        own = found.layout.part(0)
        assert covariance[:2, :2] == pytest.approx(found.covariance[own, own][:2, :2])


class TestHidden:
    def test_the_point_is_that_of_a_linear_fit_of_all_numbers(self, rng):
        pixels, _, _ = draw(two_points())
        pixels.values += rng.normal(size=pixels.values.shape)
        found = fit(pixels, [source(False, 25.0, 23.2, 900.0)])
        point = hidden(pixels, found, 0)
        assert min(np.hypot(point.x - s.x, point.y - s.y) for s in two_points()) < 1.5
        # Least squares over the galaxy's numbers, with their prior as further rows, and the point.
        layout, (rows, columns) = found.layout, found.images.window(0)[0]
        slopes = found.images.jacobian(0, found.mean)[:, 0].reshape(layout.size - 1, -1)
        picture = np.zeros((80, 80))
        y, x = round(point.y) + 12, round(point.x) + 12
        picture[y - 12 : y + 13, x - 12 : x + 13] = gaussian(WIDTH)
        design = np.vstack([slopes, picture[12:60, 12:64][rows, columns].ravel()])
        information = design @ design.T
        own = layout.part(0)
        information[own, own] += layout.prior()[1][own, own]
        residual = (pixels.values - found.image)[0, rows, columns].ravel()
        flux = np.linalg.solve(information, design @ residual)[-1]
        assert np.exp(point.log_flux[0]) == pytest.approx(flux, rel=1e-6)

    def test_a_galaxy_hides_nothing(self, rng):
        sources = [source(False, 25.0, 23.2, 900.0)]
        pixels, _, _ = draw(sources)
        pixels.values += rng.normal(size=pixels.values.shape)
        found = fit(pixels, sources)
        (same,) = parted(pixels, found, 0)
        assert (same.x, same.pieces) == (found.sources[0].x, ())

    @pytest.mark.parametrize(("apart", "ratio"), [(1.2, 0.7), (1.4, 0.3)])
    def test_two_close_points_are_told_apart(self, apart, ratio, rng):
        sources = two_points(apart, ratio)
        pixels, _, _ = draw(sources)
        pixels.values += rng.normal(size=pixels.values.shape)
        found = parted(pixels, fit(pixels, [source(False, 25.0, 23.2, 900.0)]), 0)
        assert len(found) == 2
        for s in sources:
            assert min(np.hypot(s.x - f.x, s.y - f.y) for f in found) < 1


class TestPieces:
    def test_a_knot_is_a_piece_of_its_galaxy(self, rng):
        # A bright galaxy with a hundredth of its light in a knot, far above the noise.
        galaxy, knot = source(False, 24.2, 22.4, 2e4), source(True, 28.0, 24.0, 250.0)
        scene = measured([galaxy, knot], rng)
        assert len(scene.table) == 1
        assert scene.table["flux"][0] == pytest.approx(2.025e4, rel=0.01)

    def test_bulge_and_disk_of_other_colours_are_one_galaxy(self, rng):
        # Its radius is that within which half of the two profiles' light is, per band and band.
        bulge = source(False, 24.2, 22.4, 9e3, 3e3, radius=1.0, shear=(0, 0), latent=-1.5)
        disk = source(False, 24.2, 22.4, 6e3, 9e3, radius=4.0, shear=(0, 0))
        scene = measured([bulge, disk], rng)
        assert len(scene.table) == 1
        for band, flux in (("0", 1.5e4), ("1", 1.2e4)):
            assert scene.table[f"flux_{band}"][0] == pytest.approx(flux, rel=0.02)
        assert scene.chi_square == pytest.approx(1, abs=0.1)
        radius, light = scene.table["half_light_radius"][0], Spergel()

        def within(latent, radii):
            return light.within(np.array([[latent]]), np.array([radii])).item()

        inside = 12 * within(-1.5, radius / 1.0) + 15 * within(-0.5, radius / 4.0)
        assert inside / 27 == pytest.approx(0.5, abs=0.03)

    def test_a_wide_galaxy_without_a_peak_is_a_piece(self):
        # Lopsided light beside a bright galaxy is its own; a wide galaxy further off is not.
        bright = source(False, 30.0, 32.0, 2e4, radius=2.5)
        for away, count in ((5.0, 1), (24.0, 2)):
            wide = source(False, 30.0 + away, 32.0, 6e3, radius=6.0, shear=(0, 0))
            pixels, _, _ = draw([bright, wide], height=64, width=76)
            known = fit(pixels, [bright, wide])
            choices = [choose(pixels, known, i) for i in range(2)]
            known, choices = with_owners(pixels, known, choices)
            assert len(known.sources) == len(choices) == count
            assert len(known.parts) == 2


def measured(sources, rng):
    """Return the scene of sources with noise of deviation 1."""
    pixels, _, _ = draw(sources, len(sources[0].log_flux))
    images = pixels.values + rng.normal(size=pixels.values.shape)
    return measure(make_field(images, pixels.psfs, np.ones_like(images)), subtract=False)


def test_variances_of_the_model_give_the_poisson_solution(rng):
    # A star of unknown flux and nothing else: where the Gaussian's variance is the model itself,
    # its solution is that of Poisson's likelihood.
    pixels, _, _ = draw([source(True, 24.0, 22.0, 1500.0)])
    counts = rng.poisson(pixels.values + 4.0).astype(float)
    scene = measure(
        make_field(counts - 4.0, pixels.psfs, np.full(counts.shape, 4.0)), gain=1, subtract=False
    )
    at = (float(scene.table[axis][0]) for axis in "xy")
    picture = draw([source(True, *at, 1.0)])[0].values
    rate = 4.0 + scene.model
    error = 1 / np.sqrt((picture**2 / rate).sum())
    score = (picture * (counts / rate - 1)).sum()
    assert abs(score * error) < 0.05  # deviations that the Poisson solution lies away
