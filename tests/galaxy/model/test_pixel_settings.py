"""The distribution of pixels around their means: scores and draws, for each likelihood layer."""

import numpy as np
import pytest
from cases import skewed_student
from scipy import integrate, stats

from layerkit import layers as L
from layerkit.galaxy.model import pixels

GAUSSIAN = L.GaussianReconstruction("y", "x", "mean", "log_variance")


@pytest.fixture
def student(rng):
    return L.StudentReconstruction(
        "y", "x", "mean", "log_variance", "skew", degrees=float(rng.uniform(4.5, 20))
    )


def test_scores_of_a_gaussian_are_its_residuals(rng):
    residual = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(pixels.scores(GAUSSIAN, residual), residual)


def test_scores_are_those_of_the_distribution_function(student, rng):
    skew = float(rng.normal(scale=0.7))
    residuals = np.concatenate([rng.normal(size=4), [-3.0, 5.0]])
    density, mean, sd = skewed_student(student.degrees, skew)
    for residual, found in zip(residuals, pixels.scores(student, residuals, skew), strict=True):
        share = integrate.quad(density, -np.inf, min(0, mean + sd * residual))[0]
        if mean + sd * residual > 0:
            share += integrate.quad(density, 0, mean + sd * residual)[0]
        assert stats.norm.cdf(found) == pytest.approx(share, abs=1e-7)


def test_scores_far_out_are_finite_and_in_order(student):
    found = pixels.scores(student, np.array([-1e4, -50, -5, 0, 5, 50, 1e4]), 0.3)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("kind", ["Gaussian", "Student"])
def test_draws_have_the_mean_and_variance_asked_for_and_normal_scores(kind, student, rng):
    count = 200_000
    layer = GAUSSIAN if kind == "Gaussian" else student
    mean, variance = rng.normal(size=2), rng.uniform(0.5, 2, 2)
    skew = rng.normal(scale=0.5, size=2) if kind == "Student" else 0.0
    drawn = pixels.draw(
        layer, rng, *(np.broadcast_to(a, (count, 2)) for a in (mean, variance, skew))
    )
    residual = (drawn - mean) / np.sqrt(variance)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=6 / np.sqrt(count))
    spread = (residual**2).std(axis=0) / np.sqrt(count)
    assert np.all(np.abs((residual**2).mean(axis=0) - 1) < 6 * spread)
    for scores in pixels.scores(layer, residual, skew).T:
        assert stats.kstest(scores, "norm").pvalue > 1e-6
