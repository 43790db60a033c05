"""The Sersic profile, which astronomers fit to galaxies today and which a model has to beat.

    I(r) = sky + I_e exp(-b_n [(r / r_e)^(1/n) - 1])

with r the elliptical radius, r_e the effective radius, within which half of the light lies, I_e the
intensity there, and b_n the solution of gamma(2n, b_n) = Gamma(2n) / 2.  n = 1/2 is a Gaussian,
n = 1 an exponential disc, n = 4 de Vaucouleurs' law for ellipticals.

Eight parameters are fitted: centre (2), effective radius, axis ratio, angle, index n, intensity and
a constant sky.  The paper's Gaussian has no sky; but the images do, and a fit with a sky can only
be closer, and so harder to beat.  There is no point spread function: an image alone does not tell
what it was.

References: Sersic (1963); Graham and Driver, "A concise reference to (projected) Sersic R^(1/n)
quantities" (2005); Ciotti and Bertin (1999) for b_n.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, gammaincinv

from layerkit.data.arrays import numbers
from layerkit.errors import DataError
from layerkit.galaxy.baselines.fitting import ProfileFit, ProfileFits, fit_profiles
from layerkit.galaxy.baselines.gaussian import fit_gaussian, gaussian_from_moments
from layerkit.settings import fitting

LEAST_INDEX, MOST_INDEX = 0.3, 8.0
STARTING_INDICES = (0.5, 1.0, 2.5)
# In half image widths, as in `gaussian`; the index is unbounded behind its logistic function.
SERSIC_LIMITS = np.array([1e3, 1e3, 9.0, 9.0, 1e3, 15.0, 1e6, 1e6])
TRUST_REGION_ITERATIONS = 100
# A profile with a cusp is far from flat within a pixel: each of FINE_PIXELS x FINE_PIXELS pixels
# about the centre is the mean of FINE_POINTS x FINE_POINTS points.  The others are one point each.
FINE_PIXELS, FINE_POINTS = 5, 5
LEAST_SQUARED_RADIUS = 1e-6  # in r_e^2; the profile is flat within it, as a cusp has no slope


def index_of(v: float) -> float:
    """Return the index, in 0.3..8, of an unbounded parameter: logistic in log n."""
    low, high = math.log(LEAST_INDEX), math.log(MOST_INDEX)
    return math.exp(low + (high - low) * float(expit(v)))


def parameter_of(index: float) -> float:
    """Return the unbounded parameter of an index; the inverse of `index_of`."""
    low, high = math.log(LEAST_INDEX), math.log(MOST_INDEX)
    done = (math.log(index) - low) / (high - low)
    return math.log(done / (1 - done))


class SersicObjective:
    """Squared error of a Sersic profile against one image, its gradient and Gauss-Newton Hessian.

    The eight unconstrained parameters are ``(m_column, m_row, a, b, c, v, scale, sky)``: with
    ``L = [[exp(a), 0], [c, exp(b)]]`` and ``w = L^-1 (p - m)`` the elliptical radius r / r_e of
    pixel p is ``|w|``, n is ``index_of(v)`` and the scale is I_e.

    Args:
        image: (H, W), float64.
        pixel: the side of a pixel; the first one spans 0..pixel in both coordinates.
        mask: True for pixels that count for nothing, (H, W), or None.
    """

    def __init__(self, image: np.ndarray, pixel: float, mask: np.ndarray | None = None):
        height, width = image.shape
        self.image, self.pixel = image, pixel
        self.masked = None if mask is None else np.flatnonzero(mask)
        self.fine = np.array([min(FINE_PIXELS, width), min(FINE_PIXELS, height)])
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        rows_fine, columns_fine = np.mgrid[: self.fine[1], : self.fine[0]].reshape(2, -1, 1)
        inside = (np.arange(FINE_POINTS) + 0.5) / FINE_POINTS
        y, x = (grid.reshape(1, -1) for grid in np.meshgrid(inside, inside, indexing="ij"))
        self.columns, self.rows = (columns + 0.5) * pixel, (rows + 0.5) * pixel
        self.window = rows_fine[:, 0] * width + columns_fine[:, 0]
        self.fine_columns = ((columns_fine + x) * pixel).reshape(-1)
        self.fine_rows = ((rows_fine + y) * pixel).reshape(-1)
        self._last: tuple[bytes, tuple[float, np.ndarray, np.ndarray]] | None = None

    def profile(
        self, parameters: np.ndarray, derivatives: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the profile with scale 1 and no sky, (H * W,), and its derivatives, (6, H * W).

        Args:
            parameters: (6,) or more, of which the first six count.
            derivatives: computes them, by the first six parameters; without it there are none.
        """
        m_column, m_row, a, b, c, v = parameters[:6].tolist()
        height, width = self.image.shape
        corner = np.floor(np.array([m_column, m_row]) / self.pixel) - self.fine // 2
        column, row = np.clip(corner, 0, [width, height] - self.fine).astype(int).tolist()
        window = self.window + (row * width + column)
        x = np.concatenate([self.columns, self.fine_columns + column * self.pixel]) - m_column
        y = np.concatenate([self.rows, self.fine_rows + row * self.pixel]) - m_row
        l11, l22, n = math.exp(a), math.exp(b), index_of(v)
        w1 = x / l11
        w2 = (y - c * w1) / l22
        # Beyond this the profile is zero, whatever n is; and powers of it must not overflow.
        t = np.clip(w1 * w1 + w2 * w2, LEAST_SQUARED_RADIUS, 1e30)
        log_t = np.log(t)
        power = np.exp(log_t / (2 * n))
        b_n = float(gammaincinv(2 * n, 0.5))
        f = np.exp(np.maximum(-b_n * (power - 1), -700.0))
        points = f[None]
        if derivatives:
            # df = -b_n / (2 n) * f * power / t * dt and dt = -2 (L^-T w).dm - 2 (L^-T w w^T).dL
            by_t = np.where(t > LEAST_SQUARED_RADIUS, (b_n / n) * f * power / t, 0.0)
            along1, along2 = by_t * w1, by_t * w2
            step = 1e-5 * n
            slope = float(gammaincinv(2 * (n + step), 0.5) - gammaincinv(2 * (n - step), 0.5))
            by_n = f * (b_n * power * log_t / (2 * n * n) - slope / (2 * step) * (power - 1))
            share = float(expit(v))
            dn_dv = n * math.log(MOST_INDEX / LEAST_INDEX) * share * (1 - share)
            slanted = along1 - (c / l22) * along2
            points = np.stack(
                [
                    f,
                    slanted / l11,
                    along2 / l22,
                    slanted * w1,
                    along2 * w2,
                    along2 * w1 / l22,
                    by_n * dn_dv,
                ]
            )
        pixels = points[:, : height * width].copy()
        fine = points[:, height * width :].reshape(len(points), len(window), -1)
        pixels[:, window] = fine.mean(axis=2)
        return pixels[0], pixels[1:]

    def evaluate(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Compute the squared error, its gradient (8,) and 2 J^T J (8, 8), J = d model / d p."""
        key = parameters.tobytes()
        if self._last is None or self._last[0] != key:
            held = np.clip(parameters, -SERSIC_LIMITS, SERSIC_LIMITS)
            free = held == parameters
            f, by_shape = self.profile(held)
            jacobian = np.empty((8, f.size))
            np.multiply(by_shape, held[6], out=jacobian[:6])
            jacobian[6], jacobian[7] = f, 1.0
            jacobian[~free] = 0.0
            residual = held[6] * f + held[7] - self.image.reshape(-1)
            if self.masked is not None:
                residual[self.masked], jacobian[:, self.masked] = 0.0, 0.0
            found = (float(residual @ residual), 2 * jacobian @ residual, 2 * jacobian @ jacobian.T)
            self._last = key, found
        return self._last[1]

    def error(self, parameters: np.ndarray) -> float:
        """Compute the squared error."""
        return self.evaluate(parameters)[0]

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        """Compute the gradient of the squared error, (8,)."""
        return self.evaluate(parameters)[1]

    def hessian(self, parameters: np.ndarray) -> np.ndarray:
        """Compute the Gauss-Newton approximation of the second derivatives, (8, 8)."""
        return self.evaluate(parameters)[2]

    def with_best_scale(self, shape: np.ndarray) -> np.ndarray:
        """Append the scale and sky that fit best to the six parameters of a shape, (8,)."""
        f, _ = self.profile(shape, derivatives=False)
        basis, values = np.stack([f, np.ones_like(f)], axis=1), self.image.reshape(-1)
        if self.masked is not None:
            basis, values = (np.delete(array, self.masked, axis=0) for array in (basis, values))
        linear, *_ = np.linalg.lstsq(basis, values, rcond=None)
        return np.concatenate([shape, linear])


@fitting(DataError)
@np.errstate(under="ignore")
def fit_sersic(
    image: np.ndarray, gaussian: np.ndarray | None = None, *, mask: np.ndarray | None = None
) -> ProfileFit:
    """Fit the Sersic profile with a constant sky that has the least squared error to an image.

    A trust region method with the Gauss-Newton Hessian runs from several starts (the best Gaussian
    with three indices, and the moments of the bright parts), and the best result is kept.  Pixels
    near the centre are averaged over 5 x 5 points, as the profile may have a cusp there.

    Args:
        image: (H, W), finite; any unit.
        gaussian: parameters of its best Gaussian (`fit_gaussian`), fitted first if not given.
        mask: see `fit_gaussian`.

    Returns:
        The fit, with parameters (8,), ``(m_column, m_row, r_e, axis_ratio, angle, n, scale, sky)``:
        the centre in pixels from the centre of the first pixel, r_e along the major axis in pixels,
        the axis ratio in 0..1, the angle of the major axis from the direction of columns towards
        that of rows in 0..pi, n in 0.3..8, and I_e and the sky in the image's unit.

    Raises:
        DataError: the image is not two-dimensional, or not finite.
    """
    image = numbers(image, "fit_sersic: the image", DataError)
    if gaussian is None:
        gaussian = fit_gaussian(image, mask=mask).parameters
    elif image.ndim != 2 or not np.isfinite(image).all():
        raise DataError(f"fit_sersic: expected one finite image (H, W), got {image.shape}")
    half = max(image.shape) / 2
    image = np.ascontiguousarray(image, dtype=np.float64)
    norm = float(np.linalg.norm(image)) or 1.0
    objective = SersicObjective(image / norm, 1 / half, mask)
    best = min(
        (
            minimize(
                objective.error,
                start,
                jac=objective.gradient,
                hess=objective.hessian,
                method="trust-exact",
                options={"maxiter": TRUST_REGION_ITERATIONS, "gtol": 1e-6},
            )
            for start in _starts(objective, gaussian, half)
        ),
        key=lambda result: result.fun,
    )
    held = np.clip(best.x, -SERSIC_LIMITS, SERSIC_LIMITS)
    model = (held[6] * objective.profile(held, derivatives=False)[0] + held[7]) * norm
    model = model.reshape(image.shape)
    m_column, m_row, a, b, c, v, scale, sky = held.tolist()
    axes, sizes, _ = np.linalg.svd(np.array([[math.exp(a), 0.0], [c, math.exp(b)]]))
    parameters = [
        m_column * half - 0.5,
        m_row * half - 0.5,
        sizes[0] * half,
        sizes[1] / sizes[0],
        math.atan2(axes[1, 0], axes[0, 0]) % math.pi,
        index_of(v),
        scale * norm,
        sky * norm,
    ]
    squared_error = float(np.sum((model - image) ** 2, where=True if mask is None else ~mask))
    return ProfileFit(np.array(parameters), model, squared_error, bool(best.success))


def _starts(objective: SersicObjective, gaussian: np.ndarray, half: float) -> list[np.ndarray]:
    """Return up to five starts for the search, parameter vectors (8,)."""
    m_column, m_row, a, b, c, _ = gaussian.tolist()
    # Half of a Gaussian's light lies within sqrt(2 log 2) standard deviations.
    effective = math.sqrt(2 * math.log(2)) / half
    shift = math.log(effective)
    shape = [(m_column + 0.5) / half, (m_row + 0.5) / half, a + shift, b + shift, c * effective]
    shapes = [np.array([*shape, parameter_of(n)]) for n in STARTING_INDICES]
    height, width = objective.image.shape
    columns, rows = (np.arange(width) + 0.5) / half, (np.arange(height) + 0.5) / half
    image = objective.image - np.median(objective.image)
    for threshold, n in ((0.1, 1.0), (0.5, 3.0)):
        weights = np.where(image > threshold * image.max(), np.maximum(image, 0.0), 0.0)
        if weights.sum() > 0:
            start = gaussian_from_moments(weights / weights.sum(), columns, rows)
            shapes.append(np.array([*start[:5], parameter_of(n)]))
    return [
        objective.with_best_scale(np.clip(s, -SERSIC_LIMITS[:6], SERSIC_LIMITS[:6])) for s in shapes
    ]


@fitting(DataError)
@np.errstate(under="ignore")
def fit_sersics(
    images: np.ndarray, gaussians: np.ndarray, workers: int | None = None, progress: bool = False
) -> ProfileFits:
    """Fit a Sersic profile to every image (`fit_sersic`), over several processes.

    Args:
        images: (N, H, W), finite; masked pixels count for nothing.
        gaussians: (N, 6), the parameters that `fit_gaussians` found.
        workers: processes; None takes one per core.
        progress: shows a bar.

    Returns:
        The fits in the order of the images; they do not depend on the number of workers.

    Raises:
        DataError: the images are not (N, H, W), or one is not finite.
    """
    return fit_profiles(fit_sersic, "Sersic fits", workers, progress, images, gaussians)
