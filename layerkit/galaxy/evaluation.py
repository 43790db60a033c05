"""How good a galaxy model is, on images that training never saw, beside what is used today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from layerkit.galaxy.baselines import (
    PCABaseline,
    fit_gaussians,
    shared_variance_log_likelihood,
    squared_errors,
)
from layerkit.galaxy.calibration import Calibration, calibrate, rescale
from layerkit.galaxy.model import GalaxyModel
from layerkit.galaxy.morphology import STATISTICS, morphology
from layerkit.galaxy.sersic import fit_sersics

BOUND_SAMPLES = 8  # of z for each image: enough that the bound's sampling error is far below a nat
IMPORTANCE_SAMPLES = 1000
MOST_DRAWN = 1000  # from the prior, for their morphology


@dataclass
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: numbers for metrics.json; wins are counts out of the held-out images.
        mean, variance: f_mu(g_mu(x)) and f_Sigma(g_mu(x)) of the held-out images.
        z_mean: g_mu(x) of the held-out images, (n, latent).
        gaussians: the best Gaussian of each held-out image.
        squared_error, gaussian_squared_error, sersic_squared_error: of each held-out image, (n,).
        log_likelihood, gaussian_log_likelihood, sersic_log_likelihood: of each held-out image,
            (n,), in nats.
        calibration: of the predicted variances.
        rescaled: of the variances rescaled on validation images, or None without any.
        morphology, drawn_morphology: of the held-out images and of as many drawn from the prior,
            (n, 4); see `morphology`.
    """

    metrics: dict[str, Any]
    mean: np.ndarray
    variance: np.ndarray
    z_mean: np.ndarray
    gaussians: np.ndarray
    squared_error: np.ndarray
    gaussian_squared_error: np.ndarray
    sersic_squared_error: np.ndarray
    log_likelihood: np.ndarray
    gaussian_log_likelihood: np.ndarray
    sersic_log_likelihood: np.ndarray
    calibration: Calibration
    rescaled: Calibration | None
    morphology: np.ndarray
    drawn_morphology: np.ndarray


def evaluate(
    model: GalaxyModel, train: np.ndarray, held_out: np.ndarray, progress: bool = False,
    importance_samples: int = IMPORTANCE_SAMPLES, validation: np.ndarray | None = None,
) -> Evaluation:
    """Scores a model on held-out images, against fits to each of them and against PCA.

    Section 4 of Regier et al. (2015): an image is a win by squared error where f_mu(g_mu(x)) is
    closer to it than the scaled bivariate Gaussian fitted to that very image, and by likelihood
    where log N(x; f_mu(g_mu(x)), f_Sigma(g_mu(x))) exceeds that of the Gaussian with the shared
    pixel variance that suits the image best.  The same is counted against the Sersic profile with
    a free index and sky, fitted to that very image too, and against PCA, fitted to the training
    images, with as many components as z has dimensions.

    Args:
        model: the model.
        train: images (n, side, side) it was trained on, for PCA and the bound in training.
        held_out: images (n, side, side) it never saw.
        progress: shows a bar for whatever takes long.
        importance_samples: of z for each image, for the tighter bound on log p(x).
        validation: images neither trained on nor held out, to rescale standard deviations by; see
            `rescale`.  Only the coverages called rescaled make use of it.
    """
    model.net.run.passes = 0  # the same noise, however often the model was used before
    elbo, kl = model.bound(held_out, BOUND_SAMPLES)
    train_elbo, _ = model.bound(train[: len(held_out)], BOUND_SAMPLES)
    mean, variance = model.reconstruct(held_out)
    own_error = squared_errors(held_out, mean)
    own_likelihood = model.log_likelihood(held_out)
    iwae = model.importance_bound(held_out, importance_samples, progress)
    gaussians = fit_gaussians(held_out, progress=progress)
    sersics = fit_sersics(held_out, gaussians.parameters, progress=progress)
    pca = PCABaseline.fit(train, model.latent)
    pca_images = pca.reconstruct(held_out)
    pca_error = squared_errors(held_out, pca_images)
    gaussian_likelihood = shared_variance_log_likelihood(held_out, gaussians.models)
    sersic_likelihood = shared_variance_log_likelihood(held_out, sersics.models)
    pca_likelihood = shared_variance_log_likelihood(held_out, pca_images)
    calibration, rescaled, factors = calibrate(held_out, mean, variance), None, None
    if validation is not None:
        factors = rescale(validation, *model.reconstruct(validation))
        rescaled = calibrate(held_out, mean, factors.variance(mean, variance))
    real = morphology(held_out)
    # Pictures from the prior with the noise the model predicts, and no brighter or darker than a
    # picture can be: means alone would be smoother than any picture.
    drawn = model.sample(min(len(held_out), MOST_DRAWN), noise=True)
    sampled = morphology(np.clip(drawn, 0, 1).reshape(-1, *held_out.shape[1:]))
    train_bound, bound = float(train_elbo.mean()), float(elbo.mean())
    metrics = {
        "train_elbo": train_bound,
        "held_out_elbo": bound,
        "bound_gap_percent": 100 * (train_bound - bound) / abs(train_bound),
        "held_out_kl": float(kl.mean()),
        "held_out_iwae": float(iwae.mean()),
        "iwae_samples": importance_samples,
        "held_out_mse": float(own_error.mean() / held_out[0].size),
        "gaussian_mse": float(gaussians.squared_errors.mean() / held_out[0].size),
        "sersic_mse": float(sersics.squared_errors.mean() / held_out[0].size),
        "pca_mse": float(pca_error.mean() / held_out[0].size),
        "mse_wins": int((own_error < gaussians.squared_errors).sum()),
        "likelihood_wins": int((own_likelihood > gaussian_likelihood).sum()),
        "sersic_mse_wins": int((own_error < sersics.squared_errors).sum()),
        "sersic_likelihood_wins": int((own_likelihood > sersic_likelihood).sum()),
        "pca_components": pca.components,
        "pca_mse_wins": int((own_error < pca_error).sum()),
        "pca_likelihood_wins": int((own_likelihood > pca_likelihood).sum()),
        **calibration.metrics(),
        **(rescaled.metrics("rescaled_") if rescaled else {}),
        **({"sd_factors": factors.factors.tolist()} if factors else {}),
        "morphology": {
            name: {
                "held_out_median": _median(real[:, i]), "sampled_median": _median(sampled[:, i]),
                "ks_distance": _distance(real[:, i], sampled[:, i]),
            }
            for i, name in enumerate(STATISTICS)
        },
    }
    return Evaluation(
        metrics, mean, variance, model.encode(held_out)[0], gaussians.models, own_error,
        gaussians.squared_errors, sersics.squared_errors, own_likelihood, gaussian_likelihood,
        sersic_likelihood, calibration, rescaled, real, sampled,
    )


def _median(values: np.ndarray) -> float | None:
    """Of those that could be measured; None where none could."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Kolmogorov and Smirnov's: the most that two distribution functions differ, 0 to 1."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return float(ks_2samp(a, b).statistic) if len(a) and len(b) else None
