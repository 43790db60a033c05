"""The model against what is used today, on the same held-out images: squared errors and wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.baselines.gaussian import fit_gaussians
from layerkit.galaxy.baselines.likelihood import shared_variance_log_likelihood, squared_errors
from layerkit.galaxy.baselines.pca import PCABaseline
from layerkit.galaxy.baselines.sersic import fit_sersics
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.model.posterior.refinement import closest
from layerkit.inspection.display import short_repr
from layerkit.layers.likelihoods.reconstruction import QUANTISATION_VARIANCE
from layerkit.settings import fitting


@dataclass
class Reconstructions:
    """Images that one method makes of n held-out images.

    Attributes:
        images: (n, side, side).
        squared_errors: the sum over pixels for each image, (n,).
        log_likelihoods: of each image, (n,), in nats.
    """

    images: np.ndarray
    squared_errors: np.ndarray
    log_likelihoods: np.ndarray

    __repr__ = short_repr


@dataclass
class ModelReconstructions(Reconstructions):
    """Images that the model makes, f_mu; their likelihoods are log p(x | z).

    Attributes:
        variances: of the pixels, f_Sigma, (n, side, side).
    """

    variances: np.ndarray

    __repr__ = short_repr


@dataclass
class Baselines:
    """Reconstructions by methods that need no model.

    Attributes:
        gaussian: the scaled bivariate Gaussian fitted to each image.
        sersic: the Sersic profile with a free index and sky fitted to each image.
        pca: projections onto principal components of the training images.
        components: number of these components.
    """

    gaussian: Reconstructions
    sersic: Reconstructions
    pca: Reconstructions
    components: int

    __repr__ = short_repr


class Wins(NamedTuple):
    """Counts of the held-out images on which the model beats one baseline.

    Attributes:
        squared_error: images to which f_mu at the refined posterior is closer.
        encoded_squared_error: images to which f_mu at the encoder's posterior is closer.
        closest_squared_error: images to which the closest image of the model is closer.
        likelihood: images that are likelier under the model at the refined posterior.
        encoded_likelihood: images that are likelier under the model at the encoder's posterior.
    """

    squared_error: int
    encoded_squared_error: int
    closest_squared_error: int
    likelihood: int
    encoded_likelihood: int


@dataclass
class Comparison:
    """The model and the baselines on the same held-out images.

    Attributes:
        encoded: the model at the encoder's posterior, as in the paper.
        refined: the model at the refined posterior.
        closest_errors: the squared error of the closest image that the model can make, (n,).
        baselines: fitted to each image, as the closest image is.
        pixels: that count in an image, on average; None stands for all.
    """

    encoded: ModelReconstructions
    refined: ModelReconstructions
    closest_errors: np.ndarray
    baselines: Baselines
    pixels: float | None = None

    __repr__ = short_repr

    def wins(self) -> dict[str, Wins]:
        """Count the images on which the model wins, for each baseline by its name."""
        named = {
            "Gaussian": self.baselines.gaussian,
            "Sersic": self.baselines.sersic,
            "PCA": self.baselines.pca,
        }
        return {
            name: Wins(
                squared_error=_count(self.refined.squared_errors < baseline.squared_errors),
                encoded_squared_error=_count(self.encoded.squared_errors < baseline.squared_errors),
                closest_squared_error=_count(self.closest_errors < baseline.squared_errors),
                likelihood=_count(self.refined.log_likelihoods > baseline.log_likelihoods),
                encoded_likelihood=_count(self.encoded.log_likelihoods > baseline.log_likelihoods),
            )
            for name, baseline in named.items()
        }

    def metrics(self) -> dict[str, Any]:
        """Return mean squared errors per pixel, and counts of wins, for metrics.json."""
        errors = {
            "held_out_mse": self.refined.squared_errors,
            "encoded_held_out_mse": self.encoded.squared_errors,
            "closest_held_out_mse": self.closest_errors,
            "gaussian_mse": self.baselines.gaussian.squared_errors,
            "sersic_mse": self.baselines.sersic.squared_errors,
            "pca_mse": self.baselines.pca.squared_errors,
        }
        pixels = self.pixels or self.refined.images[0].size
        wins = self.wins()
        gaussian, sersic, pca = wins["Gaussian"], wins["Sersic"], wins["PCA"]
        return {
            **{name: float(each.mean() / pixels) for name, each in errors.items()},
            "mse_wins": gaussian.squared_error,
            "sersic_mse_wins": sersic.squared_error,
            "pca_mse_wins": pca.squared_error,
            "encoded_mse_wins": gaussian.encoded_squared_error,
            "encoded_sersic_mse_wins": sersic.encoded_squared_error,
            "encoded_pca_mse_wins": pca.encoded_squared_error,
            "closest_mse_wins": gaussian.closest_squared_error,
            "closest_sersic_mse_wins": sersic.closest_squared_error,
            "closest_pca_mse_wins": pca.closest_squared_error,
            "likelihood_wins": gaussian.likelihood,
            "encoded_likelihood_wins": gaussian.encoded_likelihood,
            "sersic_likelihood_wins": sersic.likelihood,
            "pca_components": self.baselines.components,
            "pca_likelihood_wins": pca.likelihood,
        }


@fitting(DataError)
@np.errstate(under="ignore")
def reconstruct(
    model: GalaxyModel, images: np.ndarray, posterior: Posterior | None = None
) -> ModelReconstructions:
    """Reconstruct images at the mean of q(z | x).

    Args:
        model: the model.
        images: (n, side, side).
        posterior: q(z | x) of the images; None, the default, takes the encoder's.
    """
    checked_model(model, "reconstruct")
    means, variances = model.reconstruct(images, posterior)
    likelihoods = model.log_likelihood(images, posterior)
    return ModelReconstructions(means, squared_errors(images, means), likelihoods, variances)


@fitting(DataError)
@np.errstate(under="ignore")
def closest_errors(model: GalaxyModel, images: np.ndarray, progress: bool = False) -> np.ndarray:
    """Compute the squared error of the closest image that the model can make, (n,).

    Args:
        model: the model.
        images: (n, side, side).
        progress: shows a bar.
    """
    checked_model(model, "closest_errors")
    means, _ = model.decode(closest(model, images, progress=progress))
    return squared_errors(images, means.reshape(images.shape))


@fitting(DataError)
@np.errstate(under="ignore")
def fit_baselines(
    train: np.ndarray,
    held_out: np.ndarray,
    components: int,
    progress: bool = False,
    floor: float = QUANTISATION_VARIANCE,
) -> Baselines:
    """Fit a Gaussian and a Sersic profile to each held-out image, and PCA to the training images.

    Each gets the likelihood of independent Gaussian pixels with one variance per image, fitted to
    that image; see `shared_variance_log_likelihood`.

    Args:
        train: images (m, side, side), for PCA.
        held_out: images (n, side, side).
        components: of PCA; the comparison is fair with as many as z has dimensions.
        progress: shows bars.
        floor: of their variances; the comparison is fair with that of the model's likelihood.
    """
    profiles = fit_profiles(held_out, progress, floor)
    return Baselines(*profiles, *project(train, held_out, components, floor))


def fit_profiles(
    images: np.ndarray, progress: bool, floor: float
) -> tuple[Reconstructions, Reconstructions]:
    """Fit a Gaussian and a Sersic profile to each image."""
    gaussians = fit_gaussians(images, progress=progress)
    sersics = fit_sersics(images, gaussians.parameters, progress=progress)
    gaussian, sersic = (
        Reconstructions(
            fits.models,
            fits.squared_errors,
            shared_variance_log_likelihood(images, fits.models, floor),
        )
        for fits in (gaussians, sersics)
    )
    return gaussian, sersic


def project(
    train: np.ndarray, held_out: np.ndarray, components: int, floor: float
) -> tuple[Reconstructions, int]:
    """Project images onto principal components of others; return also how many there are."""
    pca = PCABaseline.fit(train, components)
    projections = pca.reconstruct(held_out)
    found = Reconstructions(
        projections,
        squared_errors(held_out, projections),
        shared_variance_log_likelihood(held_out, projections, floor),
    )
    return found, pca.components


def _count(wins: np.ndarray) -> int:
    return int(wins.sum())
