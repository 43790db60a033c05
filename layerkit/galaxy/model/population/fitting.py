"""Fitting a population: the prior and the noise that the galaxies of a training set ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerkit.data.arrays import data_of
from layerkit.errors import DataError, NetError
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.population.noise import PixelNoise, learn_noise
from layerkit.galaxy.model.population.prior import COMPONENTS, MixturePrior, fit_mixture
from layerkit.galaxy.model.posterior.posterior import Posterior, check_images
from layerkit.settings import Whole, accept, fitting

FEWEST = 100  # galaxies that a population is fitted to


@fitting(NetError)
@np.errstate(under="ignore")
def fit_population(
    model: GalaxyModel,
    images: np.ndarray,
    watched: np.ndarray,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
) -> tuple[MixturePrior, PixelNoise]:
    """Fit the prior of a trained model, and its correlated pixel noise, to galaxies.

    The galaxies are turned and mirrored, as in training.  The net does not change, and nothing that
    is inferred from images does, other than the bound: see GalaxyModel.  Set the model's `prior`
    and `noise`, or give them to GalaxyModel, to make use of the results.

    Args:
        model: the model; it does not change.
        images: galaxies that it was trained on, (n, side, side), 100 or more.
        watched: other galaxies, by which the number of Gaussians is chosen, (m, side, side); not
            those that the model is evaluated on.
        components: numbers of Gaussians that are tried.
        seed: of draws.

    Returns:
        the prior and the noise.

    Raises:
        NetError: no GalaxyModel.
        DataError: too few images, or images that the model does not take.
    """
    checked_model(model, "fit_population")
    images = check_images(images, model.pixels)
    watched = check_images(watched, model.pixels)
    seed = accept(Whole(), seed, "seed", "fit_population")
    if len(images) < FEWEST or not len(watched):
        raise DataError(
            f"fit_population: {len(images)} galaxies and {len(watched)} to choose by; "
            f"give {FEWEST} or more, and some others"
        )
    prior = fit_mixture(_turned(model, images), _turned(model, watched), components, seed)
    mean, sd = model.encode(images, tempered=False)
    rng = np.random.default_rng(seed)
    drawn = Posterior(mean + sd * rng.standard_normal(mean.shape), np.full_like(sd, 1e-6))
    side = round(model.pixels**0.5)
    found = np.ma.filled(model.scores(images, drawn), 0).reshape(-1, side, side)
    return prior, learn_noise(found, seed=seed)


def _turned(model: GalaxyModel, images: np.ndarray) -> Posterior:
    """Encode images in their eight positions, turned by quarters and mirrored."""
    side = round(model.pixels**0.5)
    square = data_of(images).reshape(-1, side, side)
    parts = [
        model.encode(np.ascontiguousarray(np.rot90(view, turns, (1, 2))), tempered=False)
        for view in (square, square[:, :, ::-1])
        for turns in range(4)
    ]
    return Posterior(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
