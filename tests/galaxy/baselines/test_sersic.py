"""The Sersic baseline against astropy's profile, finite differences and the Gaussian baseline."""

import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from scipy.optimize import least_squares

from layerkit.errors import DataError
from layerkit.galaxy.baselines.gaussian import fit_gaussians
from layerkit.galaxy.baselines.sersic import (
    SersicObjective,
    fit_sersic,
    fit_sersics,
    index_of,
    parameter_of,
)

SHAPE = (41, 37)


def drawn(column, row, r_e, ratio, angle, n, scale, sky, shape=SHAPE, points=1):
    """astropy's profile; with points > 1 each pixel is the mean of points x points of them."""
    rows, columns = np.mgrid[: shape[0] * points, : shape[1] * points]
    profile = Sersic2D(scale, r_e, n, column, row, 1 - ratio, angle)
    fine = profile((columns + 0.5) / points - 0.5, (rows + 0.5) / points - 0.5)
    return sky + fine.reshape(shape[0], points, shape[1], points).mean(axis=(1, 3))


def random_parameters(rng):
    return np.array(
        [
            *rng.uniform(0.4, 0.6, 2) * SHAPE[::-1],
            rng.uniform(4, 8),
            rng.uniform(0.35, 0.8),
            rng.uniform(0.2, np.pi - 0.2),
            np.exp(rng.uniform(np.log(0.5), np.log(4))),
            rng.uniform(0.1, 0.4),
            rng.uniform(0.0, 0.05),
        ]
    )


@pytest.fixture
def noisy(rng):
    """Galaxies with a companion each, on noise: no Sersic profile describes them exactly."""
    images = []
    for _ in range(4):
        companion = random_parameters(rng)
        companion[[2, 6]] *= 0.3
        image = drawn(*random_parameters(rng), points=3) + drawn(*companion)
        images.append(image + rng.normal(0, 0.02, SHAPE))
    return np.array(images)


def test_the_index_is_bounded():
    for n in (0.31, 0.5, 1.0, 4.0, 7.9):
        assert index_of(parameter_of(n)) == pytest.approx(n, rel=1e-12)
    assert index_of(-1e9) == pytest.approx(0.3)
    assert index_of(1e9) == pytest.approx(8)


def central_differences(function, p, step=1e-7):
    return np.array(
        [(function(p + h) - function(p - h)) / (2 * step) for h in step * np.eye(len(p))]
    ).T


def test_gradient_and_hessian_agree_with_finite_differences(rng):
    objective = SersicObjective(rng.normal(size=SHAPE), 2 / 41)
    for _ in range(10):
        # A centre inside its pixel: the window of fine points moves where it crosses an edge.
        centre = (rng.integers(10, 28, 2) + rng.uniform(0.2, 0.8, 2)) * 2 / 41
        p = np.array([*centre, *rng.normal(-1, 0.4, 2), *(0.3 * rng.normal(size=4))])

        def model(q):
            return q[6] * objective.profile(q)[0] + q[7]

        numeric = central_differences(objective.error, p)
        gradient, hessian = objective.gradient(p), objective.hessian(p)
        np.testing.assert_allclose(gradient, numeric, atol=2e-4 * np.abs(gradient).max())
        jacobian = central_differences(model, p)
        expected = 2 * jacobian.T @ jacobian
        np.testing.assert_allclose(hessian, expected, atol=2e-4 * np.abs(expected).max())


def test_any_step_of_the_search_is_finite(rng):
    objective = SersicObjective(rng.random((9, 9)), 2 / 9)
    for _ in range(50):
        p = rng.normal(size=8) * 10.0 ** rng.integers(0, 200)
        assert all(np.isfinite(x).all() for x in objective.evaluate(p))


def test_astropys_profiles_are_recovered_with_their_parameters(rng):
    converged = []
    for _ in range(5):
        truth = random_parameters(rng)
        # The rest is how pixels are integrated: 5 x 5 points at the centre, one elsewhere.  A cusp
        # leaves more of it, which radius, index and intensity make up for together.
        truth[5] = np.exp(rng.uniform(np.log(0.5), np.log(2)))
        image = drawn(*truth, points=15)
        fit = fit_sersic(image)
        assert fit.squared_error < 1e-4 * np.sum((image - truth[7]) ** 2)
        np.testing.assert_allclose(fit.parameters[:2], truth[:2], atol=0.05)
        np.testing.assert_allclose(fit.parameters[2:7], truth[2:7], rtol=0.08)
        assert fit.parameters[7] == pytest.approx(truth[7], abs=0.01)
        converged.append(fit.converged)
    # Now and then the best centre is on an edge of a pixel, where the fine points move on.
    assert sum(converged) >= 4


def test_the_reported_model_is_astropys_of_the_reported_parameters(noisy):
    for image in noisy:
        fit = fit_sersic(image)
        away = np.ones(SHAPE, bool)  # from the centre, where pixels are means of many points
        column, row = np.round(fit.parameters[:2]).astype(int)
        away[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4] = False
        np.testing.assert_allclose(fit.model[away], drawn(*fit.parameters)[away], atol=1e-8)
        near = drawn(*fit.parameters, points=5)
        centre = slice(row - 1, row + 2), slice(column - 1, column + 2)
        np.testing.assert_allclose(fit.model[centre], near[centre], atol=1e-6)
        assert fit.squared_error == pytest.approx(np.sum((fit.model - image) ** 2))


def test_no_worse_than_another_optimiser_from_random_starts(noisy, rng):
    for image in noisy[:2]:
        objective = SersicObjective(image, 2 / 41)

        def residual(q, objective=objective, image=image):
            q = np.clip(q, -50, 50)
            q[2:4] = np.clip(q[2:4], -9, 9)
            f, _ = objective.profile(q, derivatives=False)
            return q[6] * f + q[7] - image.reshape(-1)

        best = min(
            2
            * least_squares(
                residual,
                [*rng.uniform(0.7, 1.3, 2), *rng.normal(-1.5, 0.3, 2), 0.0, rng.normal(), 0.3, 0.0],
                max_nfev=80,
            ).cost
            for _ in range(3)
        )
        assert fit_sersic(image).squared_error <= best * (1 + 1e-5)


def test_at_least_as_close_as_the_gaussian(noisy, rng):
    """The Gaussian is the profile of n = 1/2 without a sky, but for the centre's fine points."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    gaussian = 0.5 * np.exp(-((columns - 18.2) ** 2) / 30 - (rows - 20.6) ** 2 / 60)
    faint = gaussian * 0.05 + rng.normal(0, 0.02, SHAPE)
    images = np.array([*noisy, gaussian, -gaussian, faint])
    gaussians = fit_gaussians(images, workers=1)
    sersics = fit_sersics(images, gaussians.parameters, workers=1)
    scale = (images**2).sum(axis=(1, 2))
    assert np.all(sersics.squared_errors <= gaussians.squared_errors + 1e-4 * scale)
    assert np.all(sersics.squared_errors[:4] < gaussians.squared_errors[:4])
    assert sersics.parameters[4, 5] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("level", [0.0, 0.3, -0.2])
def test_featureless_images_have_a_fit(level):
    assert fit_sersic(np.full((9, 11), level)).squared_error <= 1e-6


def test_many_images_in_order_whatever_the_number_of_processes(noisy):
    images = np.concatenate([noisy] * 5)[:, 8:32, 8:32].astype("float32")
    gaussians = fit_gaussians(images).parameters
    alone, together = (fit_sersics(images, gaussians, workers=n) for n in (1, 2))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone.models.shape == images.shape
    last = fit_sersic(images[-1])
    np.testing.assert_array_equal(alone.parameters[-1], last.parameters)
    images[3, 2, 1] = np.inf
    with pytest.raises(DataError, match=r"Sersic fits: image 3 .* not finite"):
        fit_sersics(images, gaussians)
    with pytest.raises(DataError, match="finite"):
        fit_sersic(images[3], gaussians[3])
