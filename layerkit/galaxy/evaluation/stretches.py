"""Held-out images, measured one by one: by this process, or by workers that share them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.galaxy.evaluation.bounds import BOUND_SAMPLES
from layerkit.galaxy.evaluation.comparison import (
    ModelReconstructions,
    Reconstructions,
    closest_errors,
    fit_profiles,
    reconstruct,
)
from layerkit.galaxy.images.parts.working import checked_workers, shared_out
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.model.posterior.refinement import BATCH, refine


@dataclass
class Measured:
    """Results of n neighbouring images; see Evaluation.

    Attributes:
        first: number of the first of them.
    """

    first: int
    encoded_bound: np.ndarray
    bound: np.ndarray
    kl: np.ndarray
    importance: np.ndarray
    closest_errors: np.ndarray
    posterior: Posterior
    encoded: ModelReconstructions
    refined: ModelReconstructions
    gaussian: Reconstructions
    sersic: Reconstructions


def measured(
    model: GalaxyModel,
    images: np.ndarray,
    refine_steps: int,
    samples: int,
    workers: int | None,
    scheduler: str | None,
    progress: bool,
) -> list[Measured]:
    """Measure all images, in stretches that are disjoint and in order.

    The numbers do not depend on how many workers share them.

    Raises:
        DataError: no package distributed, or workers that cannot be had.
    """
    workers = checked_workers(workers, scheduler, "evaluate")
    total, options = len(images), (refine_steps, samples)
    if (workers or 1) == 1 and scheduler is None:
        return [measure(model, images, 0, total, *options, progress)]
    size = math.lcm(model.net.run.batch_size, BATCH)
    # A net of its own, as this one may share its parameters with one that holds all images.
    own = GalaxyModel(
        model.net.rebuild(backend="numpy"), model.temperature, model.prior, model.noise
    )
    jobs = [(own, images[k : k + size], k, total, *options, False) for k in range(0, total, size)]
    found = shared_out("evaluate", measure, jobs, workers, scheduler, "evaluate again")
    return sorted(found, key=lambda one: one.first)


@np.errstate(under="ignore")
def measure(
    model: GalaxyModel,
    images: np.ndarray,
    first: int,
    total: int,
    refine_steps: int,
    samples: int,
    progress: bool,
) -> Measured:
    """Measure a stretch of the held-out images.

    Args:
        model: the model.
        images: (n, side, side).
        first: number of the first of them among all.
        total: number of all.
        refine_steps: see `refine`.
        samples: of z for each image, in the importance weighted bound.
        progress: shows bars.
    """
    with model.net.run.part(first, total):
        # The noise of the bounds repeats, however often the model was used before.
        model.net.run.passes = 0
        encoded_bound, _ = model.bound(images, BOUND_SAMPLES)
        encoded = reconstruct(model, images)
        posterior = refine(model, images, refine_steps, progress, tempered=False)
        bound, kl = model.bound(images, BOUND_SAMPLES, posterior)
        refined = reconstruct(model, images, posterior)
        closest = closest_errors(model, images, progress)
        importance = model.importance_bound(images, samples, progress, posterior)
    gaussian, sersic = fit_profiles(images, progress, model.roles.likelihood.floor)
    return Measured(
        first,
        encoded_bound,
        bound,
        kl,
        importance,
        closest,
        posterior,
        encoded,
        refined,
        gaussian,
        sersic,
    )


def joined(parts: Sequence[Iterable[Any]]) -> list[np.ndarray]:
    """Concatenate the first arrays of all parts, the second ones, and so on."""
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
