"""The scaled bivariate Gaussian closest to an image: the paper's baseline.

Reference: Regier, McAuliffe and Prabhat, "A deep generative model for astronomical images of
galaxies" (2015), section 4.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from layerkit.data.arrays import numbers
from layerkit.errors import DataError
from layerkit.galaxy.baselines.fitting import ProfileFit, ProfileFits, fit_profiles
from layerkit.settings import fitting

# The line search may try any step, so the objective clips its parameters to these limits, in half
# image widths: a standard deviation exp(12) is constant over the image, exp(-12) lies between two
# pixels, and beyond them nothing can be found except overflow.
GAUSSIAN_LIMITS = np.array([1e6, 1e6, 12.0, 12.0, 1e6, 1e6])
BFGS_ITERATIONS = 300


class GaussianObjective:
    """Squared error of a scaled bivariate Gaussian against one image, with its gradient.

    The model of pixel p = (column, row) is ``scale * exp(-|w|^2 / 2)`` with ``w = L^-1 (p - m)``,
    and the six unconstrained parameters are ``(m_column, m_row, a, b, c, scale)`` with
    ``L = [[exp(a), 0], [c, exp(b)]]``.  The scale may be negative.

    Calling it with parameters (6,) gives ``sum((model - image)^2)`` and its gradient (6,).

    The exponent is a polynomial in column and row, and so is everything the gradient needs to sum
    over pixels: each is one product of an (H, W) matrix with a three-column basis
    (1, offset, offset^2), so that an evaluation costs one exp and a few passes over the pixels.

    Args:
        image: (H, W), float64.
        columns: (W,), the coordinate of each column.
        rows: (H,), the coordinate of each row.
        mask: True for pixels that count for nothing, (H, W), or None.
    """

    def __init__(
        self,
        image: np.ndarray,
        columns: np.ndarray,
        rows: np.ndarray,
        mask: np.ndarray | None = None,
    ):
        self.image, self.columns, self.rows, self.mask = image, columns, rows, mask
        self.column_basis = np.ones((3, len(columns)))
        self.row_basis = np.ones((3, len(rows)))
        self.quadratic = np.zeros((3, 3))
        self.profile = np.empty_like(image)
        self.residual = np.empty_like(image)

    def render(self, parameters: np.ndarray) -> np.ndarray:
        """Return the Gaussian with peak 1, (H, W), in memory that each call overwrites."""
        m_column, m_row, a, b, c, _ = parameters.tolist()
        l11, l22 = math.exp(a), math.exp(b)
        x, x_squared = self.column_basis[1:]
        y, y_squared = self.row_basis[1:]
        np.subtract(self.columns, m_column, out=x)
        np.subtract(self.rows, m_row, out=y)
        np.multiply(x, x, out=x_squared)
        np.multiply(y, y, out=y_squared)
        # log profile = -(w1^2 + w2^2) / 2 with w1 = x / l11, w2 = (y - c w1) / l22
        slope = c / (l11 * l22)
        quadratic = self.quadratic
        quadratic[0, 2] = -0.5 * (1 / l11**2 + slope**2)
        quadratic[1, 1] = slope / l22
        quadratic[2, 0] = -0.5 / l22**2
        np.dot(self.row_basis.T, quadratic @ self.column_basis, out=self.profile)
        # Rounding can lift the sum of the three terms above its true maximum, 0.
        np.minimum(self.profile, 0.0, out=self.profile)
        return np.exp(self.profile, out=self.profile)

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the squared error and its gradient, (6,)."""
        inside = np.clip(parameters, -GAUSSIAN_LIMITS, GAUSSIAN_LIMITS)
        _, _, a, b, c, scale = inside.tolist()
        profile, residual = self.render(inside), self.residual
        np.multiply(profile, scale, out=residual)
        residual -= self.image
        if self.mask is not None:
            residual[self.mask] = 0
        squared_error = float(np.vdot(residual, residual))
        residual *= profile
        # Sums over the pixels of residual * profile * y^i * x^j.
        moments = (self.row_basis @ (residual @ self.column_basis.T)).tolist()
        (m00, m01, m02), (m10, m11, _), (m20, _, _) = moments
        # These sums in terms of w1, w2, w1^2, w1 w2 and w2^2.
        l11, l22 = math.exp(a), math.exp(b)
        k = c / l11
        w1, w2 = m01 / l11, (m10 - k * m01) / l22
        w11 = m02 / l11**2
        w12 = (m11 - k * m02) / (l11 * l22)
        w22 = (m20 - 2 * k * m11 + k**2 * m02) / l22**2
        # d(log profile) = (L^-T w).dm + (L^-T w w^T).dL
        gradient = np.array(
            [
                scale * (w1 - c * w2 / l22) / l11,
                scale * w2 / l22,
                scale * (w11 - c * w12 / l22),
                scale * w22,
                scale * w12 / l22,
                m00,
            ]
        )
        gradient *= 2.0 * (inside == parameters)
        return squared_error, gradient


@fitting(DataError)
@np.errstate(under="ignore")
def fit_gaussian(image: np.ndarray, *, mask: np.ndarray | None = None) -> ProfileFit:
    """Fit the scaled bivariate Gaussian with the least squared error to an image.

    The model of pixel p = (column, row) is ``scale * exp(-(p - m)^T (L L^T)^-1 (p - m) / 2)``: six
    unconstrained parameters and, as in the paper, no sky level.  BFGS with the analytic gradient
    runs from eight starts (`starting_points`), and the best result is kept.

    Args:
        image: (H, W), finite; any unit.
        mask: True for pixels whose error counts for nothing, (H, W); by default all count.

    Returns:
        The fit, with parameters (6,), ``(m_column, m_row, a, b, c, scale)``: the mean in pixels
        from the centre of the first pixel, ``L = [[exp(a), 0], [c, exp(b)]]`` in pixels, and the
        scale (the height at the mean, of either sign) in the image's unit.

    Raises:
        DataError: the image is not two-dimensional, or not finite.
    """
    image = numbers(image, "fit_gaussian: the image", DataError)
    if image.ndim != 2 or image.size == 0:
        raise DataError(f"fit_gaussian: expected one image (H, W), got an array of {image.shape}")
    if not np.isfinite(image).all():
        raise DataError("fit_gaussian: the image has pixels that are not finite; leave it out")
    # Half image widths and an image of norm 1 put every parameter, and the gradient tolerance, on
    # a scale of one.
    height, width = image.shape
    half = max(height, width) / 2
    columns, rows = (np.arange(width) + 0.5) / half, (np.arange(height) + 0.5) / half
    image = np.ascontiguousarray(image, dtype=np.float64)
    norm = float(np.linalg.norm(image)) or 1.0
    objective = GaussianObjective(image / norm, columns, rows, mask)
    best = min(
        (
            minimize(
                objective, start, method="BFGS", jac=True, options={"maxiter": BFGS_ITERATIONS}
            )
            for start in starting_points(objective)
        ),
        key=lambda result: result.fun,
    )
    inside = np.clip(best.x, -GAUSSIAN_LIMITS, GAUSSIAN_LIMITS)
    model = objective.render(inside) * (inside[5] * norm)
    m_column, m_row, a, b, c, scale = inside
    shift = math.log(half)
    pixels = [
        m_column * half - 0.5,
        m_row * half - 0.5,
        a + shift,
        b + shift,
        c * half,
        scale * norm,
    ]
    squared_error = float(np.sum((model - image) ** 2, where=True if mask is None else ~mask))
    return ProfileFit(np.array(pixels), model, squared_error, bool(best.success))


def starting_points(objective: GaussianObjective) -> list[np.ndarray]:
    """Return up to eight starts for the search, parameter vectors (6,).

    They are the moments of the whole image and of the parts above 10%, 25% and 50% of the peak; a
    point, a small and a very wide round Gaussian at the peak; and a round one at the centre of the
    image.  Each takes the scale that fits best, in closed form.
    """
    image, columns, rows = objective.image, objective.columns, objective.rows
    # The peak of the smoothed image: a lone bright pixel is not a galaxy.
    smooth = gaussian_filter(image, 0.02 * max(image.shape))
    starts = []
    for threshold in (0.0, 0.1, 0.25, 0.5):
        weights = np.where(smooth > threshold * smooth.max(), np.maximum(image, 0.0), 0.0)
        if weights.sum() > 0:
            starts.append(gaussian_from_moments(weights / weights.sum(), columns, rows))
    peak_row, peak_column = np.unravel_index(smooth.argmax(), smooth.shape)
    for sd in (0.05, 0.15, 1.0):
        log_sd = math.log(sd)
        starts.append(np.array([columns[peak_column], rows[peak_row], log_sd, log_sd, 0.0, 0.0]))
    log_sd = math.log(0.3)
    starts.append(np.array([columns.mean(), rows.mean(), log_sd, log_sd, 0.0, 0.0]))
    for start in starts:
        profile = objective.render(start)
        start[5] = np.vdot(profile, image) / np.vdot(profile, profile)
    return starts


def gaussian_from_moments(weights: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the Gaussian with the mean and covariance of pixel weights, and a scale of 0.

    Args:
        weights: (H, W), summing to one.
        columns: (W,), the coordinate of each column.
        rows: (H,), the coordinate of each row.

    Returns:
        Parameters as of GaussianObjective, (6,).
    """
    over_columns, over_rows = weights.sum(axis=0), weights.sum(axis=1)
    m_column, m_row = over_columns @ columns, over_rows @ rows
    x, y = columns - m_column, rows - m_row
    # A single pixel has no extent, but the Gaussian that starts there must.
    pixel = columns[0] ** 2
    l11 = math.sqrt(over_columns @ x**2 + pixel)
    c = (y @ weights @ x) / l11
    l22 = math.sqrt(max(over_rows @ y**2 - c**2, 0.0) + pixel)
    return np.array([m_column, m_row, math.log(l11), math.log(l22), c, 0.0])


@fitting(DataError)
@np.errstate(under="ignore")
def fit_gaussians(
    images: np.ndarray, workers: int | None = None, progress: bool = False
) -> ProfileFits:
    """Fit a Gaussian to every image (`fit_gaussian`), over several processes.

    Args:
        images: (N, H, W), finite; masked pixels count for nothing.
        workers: processes; None takes one per core.
        progress: shows a bar.

    Returns:
        The fits in the order of the images; they do not depend on the number of workers.

    Raises:
        DataError: the images are not (N, H, W), or one is not finite.
    """
    return fit_profiles(fit_gaussian, "Gaussian fits", workers, progress, images)
