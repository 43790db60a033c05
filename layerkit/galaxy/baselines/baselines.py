"""What the galaxy model is measured against: one bivariate Gaussian per image, and PCA.

Both see exactly the images the model sees, and both get the same likelihood: independent Gaussian
pixels with one variance per image, set to its maximum-likelihood value for that very image
(`shared_variance_log_likelihood`).  That is the most a baseline with one shared variance can get.

Reference: Regier, McAuliffe and Prabhat, "A deep generative model for astronomical images of
galaxies" (2015).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import joblib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from tqdm import tqdm

from layerkit.display import short_repr
from layerkit.errors import DataError
from layerkit.layers.reconstruction import QUANTISATION_VARIANCE
from layerkit.settings import fitting

# The line search may try any step, so the objective holds its parameters inside these limits, in
# half image widths: a standard deviation exp(12) is a constant over the image, exp(-12) lies
# between two pixels, and there is nothing beyond to be found, only overflow.
LIMITS = np.array([1e6, 1e6, 12.0, 12.0, 1e6, 1e6])
MAX_ITERATIONS = 300
IMAGES_PER_TASK = 16


class GaussianFit(NamedTuple):
    """The scaled bivariate Gaussian closest to one image; see `fit_gaussian`."""

    parameters: np.ndarray
    model: np.ndarray
    squared_error: float
    converged: bool

    def __repr__(self) -> str:
        return short_repr(self)


class GaussianFits(NamedTuple):
    """The scaled bivariate Gaussians closest to N images; see `fit_gaussians`."""

    parameters: np.ndarray
    models: np.ndarray
    squared_errors: np.ndarray
    converged: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)


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
    """

    def __init__(self, image: np.ndarray, columns: np.ndarray, rows: np.ndarray):
        self.image, self.columns, self.rows = image, columns, rows
        self.column_basis = np.ones((3, len(columns)))
        self.row_basis = np.ones((3, len(rows)))
        self.quadratic = np.zeros((3, 3))
        self.profile = np.empty_like(image)
        self.residual = np.empty_like(image)

    def render(self, parameters: np.ndarray) -> np.ndarray:
        """The Gaussian with peak 1, (H, W): the model over its scale.  Overwritten by each call."""
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
        """Squared error, and its gradient (6,)."""
        inside = np.clip(parameters, -LIMITS, LIMITS)
        _, _, a, b, c, scale = inside.tolist()
        profile, residual = self.render(inside), self.residual
        np.multiply(profile, scale, out=residual)
        residual -= self.image
        squared_error = float(np.vdot(residual, residual))
        residual *= profile
        # Sums over the pixels of residual * profile * y^i * x^j.
        moments = (self.row_basis @ (residual @ self.column_basis.T)).tolist()
        (m00, m01, m02), (m10, m11, _), (m20, _, _) = moments
        # The same sums of w1, w2, w1^2, w1 w2 and w2^2.
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
def fit_gaussian(image: np.ndarray) -> GaussianFit:
    """The scaled bivariate Gaussian with the least squared error to an image.

    The model of pixel p = (column, row) is ``scale * exp(-(p - m)^T (L L^T)^-1 (p - m) / 2)``: six
    unconstrained parameters and, as in the paper, no sky level.  BFGS with the analytic gradient
    runs from eight starts (`starting_points`) and the best end is kept.

    Args:
        image: (H, W), finite; any unit.

    Returns:
        parameters: (6,), ``(m_column, m_row, a, b, c, scale)`` with the mean in pixels from the
            centre of the first pixel, ``L = [[exp(a), 0], [c, exp(b)]]`` in pixels, and the scale
            (the height at the mean, of either sign) in the image's unit.
        model: (H, W), float64: the Gaussian on the image's pixels.
        squared_error: the sum over pixels of (model - image)^2.
        converged: whether BFGS reached its gradient tolerance on the run that was kept.

    Raises:
        DataError: the image is not two-dimensional, or not finite.
    """
    if image.ndim != 2 or image.size == 0:
        raise DataError(f"fit_gaussian: expected one image (H, W), got an array of {image.shape}")
    if not np.isfinite(image).all():
        raise DataError("fit_gaussian: the image holds values that are not finite; leave it out")
    # Half image widths and an image of norm 1 put every parameter, and the gradient tolerance, on
    # a scale of one.
    height, width = image.shape
    half = max(height, width) / 2
    columns, rows = (np.arange(width) + 0.5) / half, (np.arange(height) + 0.5) / half
    image = np.ascontiguousarray(image, dtype=np.float64)
    norm = float(np.linalg.norm(image)) or 1.0
    objective = GaussianObjective(image / norm, columns, rows)
    best = min(
        (
            minimize(objective, start, method="BFGS", jac=True, options={"maxiter": MAX_ITERATIONS})
            for start in starting_points(objective)
        ),
        key=lambda result: result.fun,
    )
    inside = np.clip(best.x, -LIMITS, LIMITS)
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
    squared_error = float(np.sum((model - image) ** 2))
    return GaussianFit(np.array(pixels), model, squared_error, bool(best.success))


def starting_points(objective: GaussianObjective) -> list[np.ndarray]:
    """Where the search for the best Gaussian starts: up to eight parameter vectors (6,).

    Moments of the whole image and of the parts above 10%, 25% and 50% of the peak; at the peak, a
    point, a small and a very wide round Gaussian; and a round one at the centre of the image.  Each
    takes the scale that fits best, in closed form.
    """
    image, columns, rows = objective.image, objective.columns, objective.rows
    # The peak of the smoothed image: a lone bright pixel is not a galaxy.
    smooth = gaussian_filter(image, 0.02 * max(image.shape))
    starts = []
    for threshold in (0.0, 0.1, 0.25, 0.5):
        weights = np.where(smooth > threshold * smooth.max(), np.maximum(image, 0.0), 0.0)
        if weights.sum() > 0:
            starts.append(moments(weights / weights.sum(), columns, rows))
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


def moments(weights: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The Gaussian with the mean and covariance of pixel weights that sum to one; scale 0."""
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
) -> GaussianFits:
    """`fit_gaussian` for every image, over several processes.

    Args:
        images: (N, H, W), finite.
        workers: processes; None takes one per core.
        progress: whether to show a progress bar.

    Returns:
        parameters (N, 6), models (N, H, W), squared_errors (N,) and converged (N,), in the order of
        the images; the fits do not depend on the number of workers.

    Raises:
        DataError: the images are not (N, H, W), or one is not finite.
    """
    return GaussianFits(*fit_in_processes(fit_gaussian, "Gaussian fits", workers, progress, images))


def fit_in_processes(
    fit: Callable[..., tuple[Any, ...]],
    name: str,
    workers: int | None,
    progress: bool,
    images: np.ndarray,
    *others: np.ndarray,
) -> list[np.ndarray]:
    """Calls fit(image, *its rows of others) for every image, over several processes.

    Args:
        fit: a function of a module; it returns a tuple.
        name: what is fitted, for the progress bar and for errors.
        workers: processes; None takes one per core.
        progress: whether to show a progress bar.
        images: (N, H, W), finite.
        others: further arrays of N rows.

    Returns:
        One array for each member of the tuple, in the order of the images.

    Raises:
        DataError: the images are not (N, H, W), or one is not finite.
    """
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"{name}: expected images (N, H, W), got an array of {images.shape}")
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if len(bad):
        raise DataError(f"{name}: image {bad[0]} holds values that are not finite; leave it out")
    count = len(images)
    spans = [slice(i, i + IMAGES_PER_TASK) for i in range(0, count, IMAGES_PER_TASK)]
    workers = min(workers or joblib.cpu_count(), len(spans))
    # joblib's own processes, not multiprocessing: they neither fork a process with threads nor
    # import the caller's script again.
    run = joblib.Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)
    tasks = (joblib.delayed(_fit_each)(fit, images[s], *(o[s] for o in others)) for s in spans)
    fits: list[tuple[Any, ...]] = []
    with tqdm(total=count, desc=name, unit="image", disable=not progress) as bar:
        for done in run(tasks):
            fits.extend(done)
            bar.update(len(done))
    return [np.array(column) for column in zip(*fits, strict=True)]


def _fit_each(fit: Callable[..., tuple[Any, ...]], *rows: np.ndarray) -> list[tuple[Any, ...]]:
    return [fit(*row) for row in zip(*rows, strict=True)]


def shared_variance_log_likelihood(
    images: np.ndarray, models: np.ndarray, floor: float = QUANTISATION_VARIANCE
) -> np.ndarray:
    """Log likelihood of each image under independent Gaussian pixels with one variance.

    ``-P/2 log(2 pi v) - S / (2 v)`` in nats, with S the squared error over the P pixels of the
    image and v its maximum-likelihood variance, S / P, or the floor if that is larger.  The
    variance is fitted image by image, as the paper fits it with the six parameters.

    Args:
        images, models: (N, ...), of one shape.
        floor: the least variance allowed, in the square of the images' unit; the default is for
            8-bit pictures scaled to 0..1, the same as GaussianReconstruction's.

    Returns:
        (N,), float64.
    """
    errors, pixels = squared_errors(images, models), math.prod(images.shape[1:])
    variance = np.maximum(errors / pixels, floor)
    return -0.5 * (pixels * np.log(2 * np.pi * variance) + errors / variance)


def squared_errors(images: np.ndarray, models: np.ndarray) -> np.ndarray:
    """The sum over pixels of (model - image)^2, for each image: (N, ...) twice to (N,), float64."""
    if images.shape != models.shape:
        raise DataError(f"images {images.shape} and models {models.shape} differ in shape")
    difference = np.subtract(models, images, dtype=np.float64).reshape(len(images), -1)
    return np.einsum("np,np->n", difference, difference)


class PCABaseline:
    """Principal components as a model of galaxies: the best linear one with as many latents.

    Use ``PCABaseline.fit(train_images, components)``, then `reconstruct` held-out images and
    compare by `squared_errors` and `shared_variance_log_likelihood`: the same one variance per
    image as the Gaussian gets, rather than the single noise variance of probabilistic PCA, which
    would be the weaker baseline.

    Attributes:
        components: how many were kept.
        explained: their share of the training images' variance, 0 to 1.
    """

    def __init__(self, model: PCA, shape: tuple[int, ...]):
        self._model, self._shape = model, shape
        self.components = int(model.n_components_)
        self.explained = float(model.explained_variance_ratio_.sum())

    def __repr__(self) -> str:
        return f"PCABaseline({self.components} components, {self.explained:.1%} of the variance)"

    @classmethod
    def fit(cls, images: np.ndarray, components: int) -> Self:
        """Principal components of the training images about their mean.

        Args:
            images: (N, ...) with N at least 2.
            components: how many to keep; N images about their mean have at most N - 1.

        Raises:
            DataError: fewer than two images, or fewer than one component asked for.
        """
        count, pixels = len(images), math.prod(images.shape[1:])
        if count < 2 or components < 1:
            raise DataError(
                f"PCA needs 2 training images and 1 component at least, got {count} images and"
                f" {components} components"
            )
        components = min(components, count - 1, pixels)
        # ARPACK finds a few components to full precision without the (P, P) covariance; it cannot
        # find all of them.
        solver = "arpack" if components < min(count, pixels) else "full"
        model = PCA(components, svd_solver=solver, random_state=0)
        return cls(model.fit(images.reshape(count, pixels)), images.shape[1:])

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Each image projected onto the components and back: (N, ...) to (N, ...).

        Raises:
            DataError: the images are of another shape than those it was fitted to.
        """
        if images.shape[1:] != self._shape:
            raise DataError(
                f"PCA was fitted to images of {self._shape}, got images of {images.shape[1:]}"
            )
        scores = self._model.transform(images.reshape(len(images), -1))
        return self._model.inverse_transform(scores).reshape(images.shape)
