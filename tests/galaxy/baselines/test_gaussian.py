"""The Gaussian baseline against finite differences, scipy and another optimiser."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, least_squares
from scipy.stats import multivariate_normal

from layerkit.errors import DataError
from layerkit.galaxy.baselines.gaussian import (
    GaussianObjective,
    fit_gaussian,
    fit_gaussians,
    starting_points,
)


def gaussian_image(shape, mean, factor, scale):
    """A scaled Gaussian drawn pixel by pixel by scipy; mean (column, row), Cholesky factor."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    density = multivariate_normal(mean, factor @ factor.T)
    peak = density.pdf(mean)
    return scale * density.pdf(np.stack([columns, rows], axis=-1)) / peak


def random_gaussian(rng, shape=(33, 29)):
    factor = np.array([[rng.uniform(1.5, 5), 0], [rng.normal(0, 2), rng.uniform(1.5, 5)]])
    mean = rng.uniform(0.35, 0.65, 2) * shape[::-1]
    scale = rng.uniform(0.2, 0.9)
    return gaussian_image(shape, mean, factor, scale), mean, factor, scale


def galaxy_image(rng, shape=(33, 33)):
    """An exponential disc, off centre and inclined, with a companion, on noise: no Gaussian."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(0, 0.01, shape)
    for height, size, spread in ((1.0, 4.0, 2.0), (0.2, 2.0, 9.0)):
        x = columns - shape[1] / 2 - rng.uniform(-spread, spread)
        y = rows - shape[0] / 2 - rng.uniform(-spread, spread)
        angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.3, 1)
        u = x * np.cos(angle) + y * np.sin(angle)
        v = (y * np.cos(angle) - x * np.sin(angle)) / ratio
        image += height * np.exp(-np.hypot(u, v) / size)
    return image


def test_objective_is_the_squared_error_of_the_written_formula(rng):
    image, mean, factor, scale = random_gaussian(rng)
    noise = rng.normal(size=image.shape)
    objective = GaussianObjective(noise, np.arange(29.0), np.arange(33.0))
    (l11, _), (c, l22) = factor
    parameters = np.array([*mean, np.log(l11), np.log(l22), c, scale])
    assert objective(parameters)[0] == pytest.approx(np.sum((image - noise) ** 2), rel=1e-12)
    np.testing.assert_allclose(objective.render(parameters) * scale, image, atol=1e-14)


def test_gradient_agrees_with_finite_differences(rng):
    columns, rows = np.linspace(-1, 1, 13), np.linspace(-1, 1, 17)
    objective = GaussianObjective(rng.normal(size=(17, 13)), columns, rows)
    for _ in range(10):
        parameters = rng.normal(size=6) * [0.5, 0.5, 0.5, 0.5, 0.5, 2.0]
        gradient = objective(parameters)[1]
        numeric = approx_fprime(parameters, lambda p: objective(p)[0], 1e-7)
        np.testing.assert_allclose(gradient, numeric, atol=1e-4 * np.abs(gradient).max())


def test_any_step_of_the_line_search_is_finite(rng):
    objective = GaussianObjective(rng.random((9, 9)), np.linspace(0, 2, 9), np.linspace(0, 2, 9))
    for _ in range(50):
        error, gradient = objective(rng.normal(size=6) * 10.0 ** rng.integers(0, 200))
        assert np.isfinite(error)
        assert np.isfinite(gradient).all()


def test_known_parameters_are_recovered(rng):
    for _ in range(5):
        image, mean, factor, scale = random_gaussian(rng)
        fit = fit_gaussian(image)
        (l11, _), (c, l22) = factor
        truth = [*mean, np.log(l11), np.log(l22), c, scale]
        np.testing.assert_allclose(fit.parameters, truth, atol=1e-3)
        assert fit.squared_error < 1e-6 * np.sum(image**2)
        assert fit.converged


def test_a_negative_scale_is_found(rng):
    image, *_ = random_gaussian(rng)
    assert fit_gaussian(-image).squared_error < 1e-6 * np.sum(image**2)


def test_reported_error_and_model_belong_to_the_parameters(rng):
    image = galaxy_image(rng)
    fit = fit_gaussian(image)
    m_column, m_row, a, b, c, scale = fit.parameters
    factor = np.array([[np.exp(a), 0], [c, np.exp(b)]])
    np.testing.assert_allclose(
        fit.model, gaussian_image(image.shape, [m_column, m_row], factor, scale), atol=1e-10
    )
    assert fit.squared_error == pytest.approx(np.sum((fit.model - image) ** 2))


def test_no_worse_than_levenberg_marquardt_from_many_random_starts(rng):
    """Another optimiser, another parametrisation, starts spread over the whole image."""
    for _ in range(6):
        image = galaxy_image(rng)
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]

        def residual(q, image=image, columns=columns, rows=rows):
            x, y = columns - q[0], rows - q[1]
            sd = np.exp(np.clip(q[2:4], -20, 20))
            u = (x * np.cos(q[4]) + y * np.sin(q[4])) / sd[0]
            v = (y * np.cos(q[4]) - x * np.sin(q[4])) / sd[1]
            return (q[5] * np.exp(-(u**2 + v**2) / 2) - image).ravel()

        best = min(
            2 * least_squares(residual, start, method="lm", max_nfev=1000).cost
            for start in (
                [*rng.uniform(0, 33, 2), *rng.uniform(0, 3, 2), rng.uniform(0, 3), rng.random()]
                for _ in range(8)
            )
        )
        assert fit_gaussian(image).squared_error <= best * (1 + 1e-6)


def test_every_start_begins_below_the_error_of_an_empty_model(rng):
    image = galaxy_image(rng)
    objective = GaussianObjective(image, np.arange(33) / 16.5, np.arange(33) / 16.5)
    starts = starting_points(objective)
    assert len(starts) == 8
    assert all(objective(start)[0] < np.sum(image**2) for start in starts)


@pytest.mark.parametrize("level", [0.0, 0.3, -0.2])
def test_featureless_images_have_a_fit(level):
    fit = fit_gaussian(np.full((9, 11), level))
    assert fit.squared_error <= 1e-3 * max(level**2 * 99, 1e-12)


def test_many_images_in_order_whatever_the_number_of_processes(rng):
    images = np.stack([galaxy_image(rng, (15, 17)) for _ in range(20)]).astype(np.float32)
    alone, together = fit_gaussians(images, workers=1), fit_gaussians(images, workers=2)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone.models.shape == images.shape
    errors = ((alone.models - images) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(alone.squared_errors, errors)
    last = fit_gaussian(images[-1])
    np.testing.assert_array_equal(alone.parameters[-1], last.parameters)


def test_images_that_cannot_be_fitted_are_named():
    images = np.zeros((3, 5, 5))
    images[1, 2, 2] = np.nan
    with pytest.raises(DataError, match="Gaussian fits: image 1 has pixels that are not finite"):
        fit_gaussians(images)
    with pytest.raises(DataError, match="not finite"):
        fit_gaussian(images[1])
    with pytest.raises(DataError, match=r"\(H, W\)"):
        fit_gaussian(images)
