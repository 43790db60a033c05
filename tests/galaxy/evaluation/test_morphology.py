"""Morphology of profiles whose statistics are known in closed form."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import gammainc

from layerkit.errors import DataError
from layerkit.galaxy.evaluation.morphology import (
    STATISTICS,
    MorphologyComparison,
    evaluate_morphology,
    gini,
    measure_morphology,
)
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.model.model import GalaxyModel

SIDE = 101


def galaxy(rng, index, size, ratio=1.0, noise=0.0, sky=0.02, centre=None):
    """An elliptical Sersic profile by its definition, at a random angle, near the centre."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    row, column = rng.uniform(-2, 2, 2) if centre is None else centre
    y, x = rows - row, columns - column
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / ratio
    image = sky + 0.8 * np.exp(-((np.hypot(u, v) / size) ** (1 / index)))
    return image + noise * rng.standard_normal(image.shape)


def described(images):
    measured = measure_morphology(np.asarray(images).reshape(-1, SIDE, SIDE))
    return dict(zip(STATISTICS, measured.T, strict=True))


def concentration(index, size):
    """5 log10(r80 / r20) of the light within 1.5 Petrosian radii, by incomplete gamma functions."""

    def light(r):
        return gammainc(2 * index, (r / size) ** (1 / index))

    def petrosian(r):  # intensity at r over the mean within r, less a fifth
        step = 1e-4 * r
        ring = (light(r + step) - light(r - step)) / (4 * np.pi * r * step)
        return ring / (light(r) / (np.pi * r**2)) - 0.2

    total = light(1.5 * brentq(petrosian, size * 0.3, size * 20))
    radii = [brentq(lambda r, s=s: light(r) - s * total, 1e-3, 20 * size) for s in (0.2, 0.8)]
    return 5 * np.log10(radii[1] / radii[0])


@pytest.mark.parametrize(("index", "size"), [(0.5, 14.0), (1.0, 8.0)])
def test_concentration_of_gaussians_and_discs(index, size, rng):
    found = described(galaxy(rng, index, size))["concentration"]
    assert found == pytest.approx(concentration(index, size), abs=0.06)


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.4])
def test_ellipticity_is_one_less_the_axis_ratio(ratio, rng):
    found = described(galaxy(rng, 0.5, 14.0, ratio, noise=0.005))["ellipticity"]
    assert found == pytest.approx(1 - ratio, abs=0.03)


def test_asymmetry_is_zero_of_what_is_symmetric_whatever_the_noise(rng):
    # Centres that it can find: it takes them to the nearest half pixel.
    images = np.array(
        [
            galaxy(rng, 1.0, 8.0, 0.7, noise, centre=rng.integers(-4, 5, 2) / 2)
            for noise in (0.0, 0.005, 0.01)
        ]
    )
    np.testing.assert_allclose(described(images)["asymmetry"], 0, atol=0.06)


def test_asymmetry_grows_with_a_companion_on_one_side(rng):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lump = np.exp(-((rows - 62) ** 2 + (columns - 50) ** 2) / 20)
    disc = galaxy(rng, 1.0, 8.0)
    found = described(np.array([disc, disc + 0.2 * lump, disc + 0.6 * lump]))["asymmetry"]
    assert found[0] + 0.02 < found[1] < found[2] - 0.02


def test_gini_in_closed_form(rng):
    assert gini(np.full(50, 0.3)) == pytest.approx(0, abs=1e-12)
    assert gini(np.eye(1, 50)) == pytest.approx(1)
    assert gini(rng.exponential(size=200_000)) == pytest.approx(0.5, abs=0.01)
    assert gini(rng.uniform(size=200_000)) == pytest.approx(1 / 3, abs=0.01)
    differences = np.abs(np.subtract.outer(x := rng.random(30), x)).sum()
    assert gini(x) == pytest.approx(differences / (2 * x.mean() * 30 * 29))


def test_what_cannot_be_measured_is_nan(rng):
    images = np.array([np.full((SIDE, SIDE), 0.2), galaxy(rng, 1.0, 8.0), np.zeros((SIDE, SIDE))])
    images[2, 3, 3] = np.nan
    measured = np.isfinite(measure_morphology(images))
    np.testing.assert_array_equal(measured, [[False] * 4, [True] * 4, [False] * 4])
    with pytest.raises(DataError, match=r"\(N, H, W\)"):
        measure_morphology(images[0])


def test_comparisons_leave_out_what_cannot_be_measured(rng):
    held_out, drawn = rng.random((50, 4)), rng.random((70, 4))
    drawn[:, 1] += 10  # apart
    drawn[:, 2] = np.nan
    held_out[:9, 3] = np.nan
    found = MorphologyComparison(held_out, drawn).metrics()
    assert list(found) == list(STATISTICS)
    assert found["concentration"]["held_out_median"] == np.median(held_out[:, 0])
    grid = np.concatenate([held_out[:, 0], drawn[:, 0]])
    shares = [np.mean(a[:, 0] <= grid[:, None], axis=1) for a in (held_out, drawn)]
    expected = np.abs(shares[0] - shares[1]).max()
    assert found["concentration"]["ks_distance"] == pytest.approx(expected)
    assert found["asymmetry"]["ks_distance"] == 1
    assert found["Gini"]["sampled_median"] is None
    assert found["Gini"]["ks_distance"] is None
    assert found["ellipticity"]["held_out_median"] == np.median(held_out[9:, 3])


@pytest.fixture
def linear(net):
    """A model that was trained on galaxies in linear units, and a function that lets it draw."""
    model = GalaxyModel(net, preparation=Settings(units="linear"))
    model.open()

    def drawing(images):
        drawn = images.reshape(len(images), -1)
        model.sample = lambda count, seed=0, noise=False: drawn[:count]
        return model

    return drawing


def noisy(rng, count, side=SIDE, noise=0.05):
    """Galaxies in linear units: the sky at 0, with noise below it."""
    return np.array(
        [
            galaxy(rng, 1.0, 8.0, rng.uniform(0.4, 1), noise, sky=0)[:side, :side]
            for _ in range(count)
        ]
    )


def test_images_of_linear_units_have_the_morphology_of_themselves(linear, rng):
    """The sky of what is drawn keeps its negative half, as that of real galaxies does."""
    images = noisy(rng, 60)
    images[0, 5, 5] = 12.0  # which preparation cuts off
    found = evaluate_morphology(linear(images), np.clip(images, -10, 10))
    np.testing.assert_array_equal(found.drawn, found.held_out)
    assert {each["ks_distance"] for each in found.metrics().values()} == {0.0}


def test_morphology_of_linear_units_knows_no_steps_of_8_bits(linear, rng):
    """It is that of the same galaxies in any other unit, however faint their outskirts are."""
    core, disc = (noisy(rng, 20, noise=1e-5) for _ in range(2))
    images = core**4 + 2e-3 * disc
    found = evaluate_morphology(linear(images), images)
    np.testing.assert_allclose(found.held_out, measure_morphology(1e6 * images), rtol=1e-9)
    np.testing.assert_array_equal(found.drawn, found.held_out)
