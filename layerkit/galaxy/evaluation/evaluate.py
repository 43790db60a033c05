"""How good a galaxy model is, on images that training never saw, beside what is used today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from layerkit.display import short_repr
from layerkit.errors import DataError
from layerkit.galaxy.baselines.gaussian import fit_gaussians
from layerkit.galaxy.baselines.likelihood import shared_variance_log_likelihood, squared_errors
from layerkit.galaxy.baselines.pca import PCABaseline
from layerkit.galaxy.baselines.sersic import fit_sersics
from layerkit.galaxy.evaluation.calibration import Calibration, calibrate
from layerkit.galaxy.evaluation.morphology import STATISTICS, morphology
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.refinement import closest, refine
from layerkit.settings import fitting

BOUND_SAMPLES = 8  # of z for each image: enough that the bound's sampling error is far below a nat
IMPORTANCE_SAMPLES = 1000
REFINE_STEPS = 100
MOST_SEEN = 500  # training images of which the bound is taken
MOST_DRAWN = 1000  # from the prior, for their morphology


@dataclass
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: numbers for metrics.json; wins are counts out of the held-out images.
        mean, variance: f_mu and f_Sigma of the held-out images, at the mean of q(z | x).
        z_mean: g_mu(x) of the held-out images, (n, latent).
        gaussians: the best Gaussian of each held-out image.
        squared_error, gaussian_squared_error, sersic_squared_error: of each held-out image, (n,).
        log_likelihood, gaussian_log_likelihood, sersic_log_likelihood: of each held-out image,
            (n,), in nats.
        calibration: of the predicted noise.
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
    morphology: np.ndarray
    drawn_morphology: np.ndarray

    __repr__ = short_repr


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate(
    model: GalaxyModel,
    train: np.ndarray,
    held_out: np.ndarray,
    progress: bool = False,
    importance_samples: int = IMPORTANCE_SAMPLES,
    refine_steps: int = REFINE_STEPS,
) -> Evaluation:
    """Scores a model on held-out images, against fits to each of them and against PCA.

    Section 4 of Regier et al. (2015): an image is a win by squared error where the model's mean is
    closer to it than the scaled bivariate Gaussian fitted to that very image, and by likelihood
    where log p(x | z) exceeds that of the Gaussian with the shared pixel variance that suits the
    image best.  The same is counted against the Sersic profile with a free index and sky, fitted to
    that very image too, and against PCA, fitted to the training images, with as many components as
    z has dimensions.

    Here z is the mean of q(z | x), which `refine` has moved from g(x) to where the bound is higher.
    Metrics whose names begin with `encoded_` are of g(x) itself, as in the paper; those with
    `closest_`, of the z whose mean has the least squared error (`closest`), which is how the
    Gaussian, the profile and PCA are fitted.

    Args:
        model: the model.
        train: images (n, side, side) it was trained on, for PCA and the bound in training.
        held_out: images (n, side, side) it never saw.
        progress: shows a bar for whatever takes long.
        importance_samples: of z for each image, for the tighter bound on log p(x).
        refine_steps: see `refine`; 0 evaluates g(x) alone.
    """
    model.net.run.passes = 0  # the same noise, however often the model was used before
    encoded_elbo, _ = model.bound(held_out, BOUND_SAMPLES)
    encoded_error = squared_errors(held_out, model.reconstruct(held_out)[0])
    encoded_likelihood = model.log_likelihood(held_out)
    posterior = refine(model, held_out, refine_steps, progress, tempered=False)
    elbo, kl = model.bound(held_out, BOUND_SAMPLES, posterior)
    seen = train[: min(len(held_out), MOST_SEEN)]
    seen_posterior = refine(model, seen, refine_steps, progress, tempered=False)
    train_elbo, _ = model.bound(seen, BOUND_SAMPLES, seen_posterior)
    mean, variance = model.reconstruct(held_out, posterior)
    own_error = squared_errors(held_out, mean)
    own_likelihood = model.log_likelihood(held_out, posterior)
    closest_means, _ = model.decode(closest(model, held_out, progress=progress))
    closest_error = squared_errors(held_out, closest_means.reshape(held_out.shape))
    iwae = model.importance_bound(held_out, importance_samples, progress, posterior)
    gaussians = fit_gaussians(held_out, progress=progress)
    sersics = fit_sersics(held_out, gaussians.parameters, progress=progress)
    pca = PCABaseline.fit(train, model.latent)
    pca_images = pca.reconstruct(held_out)
    pca_error = squared_errors(held_out, pca_images)
    gaussian_likelihood = shared_variance_log_likelihood(held_out, gaussians.models)
    sersic_likelihood = shared_variance_log_likelihood(held_out, sersics.models)
    pca_likelihood = shared_variance_log_likelihood(held_out, pca_images)
    calibration = calibrate(model.scores(held_out, posterior), mean)
    real = morphology(held_out)
    # Pictures from the prior with the noise the model predicts, and no brighter or darker than a
    # picture can be: means alone would be smoother than any picture.
    drawn = model.sample(min(len(held_out), MOST_DRAWN), noise=True)
    sampled = morphology(np.clip(drawn, 0, 1).reshape(-1, *held_out.shape[1:]))
    train_bound, bound = float(train_elbo.mean()), float(elbo.mean())
    size = held_out[0].size
    errors = {"": own_error, "encoded_": encoded_error, "closest_": closest_error}
    baselines = {"": gaussians.squared_errors, "sersic_": sersics.squared_errors, "pca_": pca_error}
    metrics = {
        "refine_steps": refine_steps,
        "latent_temperature": model.temperature.tolist(),
        "train_elbo": train_bound,
        "held_out_elbo": bound,
        "encoded_held_out_elbo": float(encoded_elbo.mean()),
        "bound_gap_percent": 100 * (train_bound - bound) / abs(train_bound),
        "held_out_kl": float(kl.mean()),
        "held_out_iwae": float(iwae.mean()),
        "iwae_samples": importance_samples,
        **{f"{own}held_out_mse": float(e.mean() / size) for own, e in errors.items()},
        "gaussian_mse": float(gaussians.squared_errors.mean() / size),
        "sersic_mse": float(sersics.squared_errors.mean() / size),
        "pca_mse": float(pca_error.mean() / size),
        **{
            f"{own}{other}mse_wins": int((own_errors < other_errors).sum())
            for own, own_errors in errors.items()
            for other, other_errors in baselines.items()
        },
        "likelihood_wins": int((own_likelihood > gaussian_likelihood).sum()),
        "encoded_likelihood_wins": int((encoded_likelihood > gaussian_likelihood).sum()),
        "sersic_likelihood_wins": int((own_likelihood > sersic_likelihood).sum()),
        "pca_components": pca.components,
        "pca_likelihood_wins": int((own_likelihood > pca_likelihood).sum()),
        **calibration.metrics(),
        "morphology": {
            name: {
                "held_out_median": _median(real[:, i]),
                "sampled_median": _median(sampled[:, i]),
                "ks_distance": _distance(real[:, i], sampled[:, i]),
            }
            for i, name in enumerate(STATISTICS)
        },
    }
    return Evaluation(
        metrics,
        mean,
        variance,
        model.encode(held_out).mean,
        gaussians.models,
        own_error,
        gaussians.squared_errors,
        sersics.squared_errors,
        own_likelihood,
        gaussian_likelihood,
        sersic_likelihood,
        calibration,
        real,
        sampled,
    )


def _median(values: np.ndarray) -> float | None:
    """Of those that could be measured; None where none could."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Kolmogorov and Smirnov's: the most that two distribution functions differ, 0 to 1."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return float(ks_2samp(a, b).statistic) if len(a) and len(b) else None
