"""MixturePrior: a prior of z fitted to the posteriors of galaxies.

Training pulls every q(z | x) towards N(0, I), yet their mean over galaxies, the aggregate
posterior, keeps a shape of its own: axes that go together, tails, gaps.  Galaxies drawn from
N(0, I) are then unlike those observed.  Once the net is trained, the prior that raises the bound
the most is the one that maximises E_q[log p(z)] averaged over galaxies, which the aggregate
posterior itself would do (Hoffman and Johnson, 2016).  A mixture of Gaussians is fitted to draws
from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from layerkit.data.arrays import numbers
from layerkit.errors import NetError, brief
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.inspection.display import short_repr

COMPONENTS = (1, 8, 16, 32)  # numbers of Gaussians that are tried
DRAWS = 100_000  # from the aggregate posterior, about
RIDGE = 1e-4  # added to variances, of which the old prior has 1
ITERATIONS = 100  # of expectation and maximisation


class MixturePrior:
    """A prior of z: a mixture of Gaussians, sum_k w_k N(z; m_k, C_k).

    Args:
        weights: w, (K,), above 0; they are divided by their sum.
        means: m, (K, latent).
        covariances: C, (K, latent, latent), symmetric and positive definite.

    Raises:
        NetError: other shapes, or values that are no mixture.
    """

    __repr__ = short_repr

    def __init__(self, weights: Any, means: Any, covariances: Any):
        given = {"weights": weights, "means": means, "covariances": covariances}
        w, m, c = (
            np.asarray(numbers(array, f"prior: {name}"), "float64") for name, array in given.items()
        )
        if w.ndim != 1 or m.ndim != 2 or len(m) != len(w) or c.shape != (*m.shape, m.shape[1]):
            raise NetError(
                "prior: expected K weights, means (K, latent) and covariances (K, latent, latent), "
                f"got shapes {w.shape}, {m.shape} and {c.shape}"
            )
        if not (w.size and (w > 0).all() and all(np.isfinite(a).all() for a in (w, m, c))):
            raise NetError("prior: weights must be above 0, and all numbers finite")
        if not np.allclose(c, c.swapaxes(1, 2), rtol=1e-3, atol=1e-6):
            raise NetError("prior: covariances must be symmetric")
        try:
            self._factors = np.linalg.cholesky(c)
        except np.linalg.LinAlgError:
            raise NetError("prior: covariances must be positive definite") from None
        self.weights, self.means, self.covariances = w / w.sum(), m, c
        self._inverses = np.linalg.inv(self._factors).swapaxes(1, 2)
        diagonals = np.diagonal(self._factors, axis1=1, axis2=2)
        self._logs = np.log(self.weights) - np.log(diagonals).sum(axis=1)

    @property
    def latent(self) -> int:
        """The number of dimensions of z."""
        return self.means.shape[1]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw z, (count, latent)."""
        k = rng.choice(len(self.weights), count, p=self.weights)
        noise = rng.standard_normal((count, self.latent))
        return self.means[k] + np.einsum("nij,nj->ni", self._factors[k], noise)

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Compute log p(z) of each row of z, (n,), in nats.

        Args:
            z: (n, latent).
        """
        # Products so small that no BLAS shares them among threads, which wait for each other: on a
        # busy machine solving by the factors took a hundred times as long.
        white = np.matmul(z - self.means[:, None], self._inverses)
        terms = self._logs[:, None] - 0.5 * (white**2).sum(axis=2)
        return logsumexp(terms, axis=0) - 0.5 * self.latent * math.log(2 * math.pi)

    def gain(self, z: np.ndarray) -> np.ndarray:
        """Compute log p(z) - log N(z; 0, I) of each row of z, (n,), in nats.

        Its mean over draws from q(z | x) is how much this prior raises the bound of x above that
        with N(0, I), which the net was trained with.
        """
        z = np.asarray(z, "float64")
        normal = -0.5 * (z**2).sum(axis=1) - 0.5 * self.latent * math.log(2 * math.pi)
        return self.log_density(z) - normal


def check_prior(prior: Any, latent: int) -> MixturePrior | None:
    """Return a prior given for z of so many dimensions, or None for N(0, I).

    Raises:
        NetError: it is something else, or of other dimensions.
    """
    if prior is not None and not isinstance(prior, MixturePrior):
        raise NetError(f"prior: expected a MixturePrior, or None for N(0, I), got {brief(prior)}")
    if prior is not None and prior.latent != latent:
        raise NetError(
            f"prior: it has {prior.latent} dimensions, and z has {latent}; fit one to this model "
            "with fit_population"
        )
    return prior


def fit_mixture(
    posterior: Posterior, watched: Posterior, components: Sequence[int] = COMPONENTS, seed: int = 0
) -> MixturePrior:
    """Fit a mixture of Gaussians to the aggregate posterior of galaxies.

    Expectation and maximisation run on draws from q(z | x), so that variances of posteriors count
    as their means do.  The number of Gaussians is the one that suits other galaxies best.

    Args:
        posterior: q(z | x) of the galaxies to fit to, not tempered.
        watched: q(z | x) of others, by which the number of Gaussians is chosen.
        components: numbers of Gaussians that are tried; those are left out for which there are
            fewer than 20 galaxies for each dimension of each Gaussian.
        seed: of the draws and of the start.
    """
    from sklearn.mixture import GaussianMixture  # slow to import

    rng = np.random.default_rng(seed)
    count, latent = posterior.mean.shape
    draws = _draw(posterior, max(1, round(DRAWS / count)), rng)
    others = _draw(watched, max(1, round(DRAWS / 10 / len(watched.mean))), rng)
    best, best_score = None, -math.inf
    for k in components:
        if best is not None and 20 * latent * k > count:
            break
        found = GaussianMixture(
            k, max_iter=ITERATIONS, reg_covar=RIDGE, init_params="k-means++", random_state=seed
        )
        found.fit(draws)
        prior = MixturePrior(found.weights_, found.means_, found.covariances_)
        score = float(prior.log_density(others).mean())
        if score > best_score:
            best, best_score = prior, score
    assert best is not None
    return best


def _draw(posterior: Posterior, times: int, rng: np.random.Generator) -> np.ndarray:
    """Draw z from each q(z | x) so many times, (times * n, latent)."""
    mean, sd = (np.tile(np.asarray(a, "float64"), (times, 1)) for a in posterior)
    return mean + sd * rng.standard_normal(mean.shape)
