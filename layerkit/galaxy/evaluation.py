"""How good a galaxy model is, on images that training never saw, beside what is used today."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerkit.galaxy.baselines import (
    PCABaseline,
    fit_gaussians,
    shared_variance_log_likelihood,
    squared_errors,
)
from layerkit.galaxy.model import GalaxyModel

BOUND_SAMPLES = 8  # of z for each image: enough that the bound's sampling error is far below a nat


@dataclass
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: numbers for metrics.json; wins are counts out of the held-out images.
        mean, variance: f_mu(g_mu(x)) and f_Sigma(g_mu(x)) of the held-out images.
        z_mean: g_mu(x) of the held-out images, (n, latent).
        gaussians: the best Gaussian of each held-out image.
        squared_error, gaussian_squared_error: of each held-out image, (n,).
        log_likelihood, gaussian_log_likelihood: of each held-out image, (n,), in nats.
    """

    metrics: dict[str, float | int]
    mean: np.ndarray
    variance: np.ndarray
    z_mean: np.ndarray
    gaussians: np.ndarray
    squared_error: np.ndarray
    gaussian_squared_error: np.ndarray
    log_likelihood: np.ndarray
    gaussian_log_likelihood: np.ndarray


def evaluate(
    model: GalaxyModel, train: np.ndarray, held_out: np.ndarray, progress: bool = False
) -> Evaluation:
    """Scores a model on held-out images, against the best Gaussian of each and against PCA.

    Section 4 of Regier et al. (2015): an image is a win by squared error where f_mu(g_mu(x)) is
    closer to it than the scaled bivariate Gaussian fitted to that very image, and by likelihood
    where log N(x; f_mu(g_mu(x)), f_Sigma(g_mu(x))) exceeds that of the Gaussian with the shared
    pixel variance that suits the image best.  PCA has as many components as z has dimensions.

    Args:
        model: the model.
        train: images (n, side, side) it was trained on, for PCA and the bound in training.
        held_out: images (n, side, side) it never saw.
        progress: shows a bar while Gaussians are fitted.
    """
    model.net.run.passes = 0  # the same noise, however often the model was used before
    elbo, kl = model.bound(held_out, BOUND_SAMPLES)
    train_elbo, _ = model.bound(train[: len(held_out)], BOUND_SAMPLES)
    mean, variance = model.reconstruct(held_out)
    own_error = squared_errors(held_out, mean)
    own_likelihood = model.log_likelihood(held_out)
    gaussians = fit_gaussians(held_out, progress=progress)
    pca = PCABaseline.fit(train, model.latent)
    pca_images = pca.reconstruct(held_out)
    pca_error = squared_errors(held_out, pca_images)
    gaussian_likelihood = shared_variance_log_likelihood(held_out, gaussians.models)
    pca_likelihood = shared_variance_log_likelihood(held_out, pca_images)
    metrics = {
        "train_elbo": float(train_elbo.mean()),
        "held_out_elbo": float(elbo.mean()),
        "held_out_kl": float(kl.mean()),
        "held_out_mse": float(own_error.mean() / held_out[0].size),
        "gaussian_mse": float(gaussians.squared_errors.mean() / held_out[0].size),
        "pca_mse": float(pca_error.mean() / held_out[0].size),
        "mse_wins": int((own_error < gaussians.squared_errors).sum()),
        "likelihood_wins": int((own_likelihood > gaussian_likelihood).sum()),
        "pca_components": pca.components,
        "pca_mse_wins": int((own_error < pca_error).sum()),
        "pca_likelihood_wins": int((own_likelihood > pca_likelihood).sum()),
    }
    return Evaluation(
        metrics, mean, variance, model.encode(held_out)[0], gaussians.models, own_error,
        gaussians.squared_errors, own_likelihood, gaussian_likelihood,
    )
