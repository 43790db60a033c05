"""Lower bounds on log p(x): the evidence lower bound, and the tighter, importance weighted one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.baselines.likelihood import counted
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.model.posterior.refinement import REFINE_STEPS, refine
from layerkit.inspection.display import short_repr
from layerkit.settings import fitting

BOUND_SAMPLES = 8  # of z for each image; the sampling error of the bound is then far below a nat
MAX_TRAIN_IMAGES = 500  # of which the bound is taken


@dataclass
class Bounds:
    """Evidence lower bounds at refined posteriors, in nats.

    Attributes:
        posterior: q(z | x) of the n held-out images, refined, not tempered.
        held_out: bound of each held-out image, (n,).
        kl: the sum of its KL terms, (n,).
        train: bound of each of m training images, (m,).
    """

    posterior: Posterior
    held_out: np.ndarray
    kl: np.ndarray
    train: np.ndarray

    __repr__ = short_repr

    @property
    def gap_percent(self) -> float:
        """The percentage by which the mean bound is lower on held-out than on training images."""
        train, held_out = float(self.train.mean()), float(self.held_out.mean())
        return 100 * (train - held_out) / abs(train)

    def metrics(self) -> dict[str, Any]:
        """Return the mean bounds for metrics.json."""
        return {
            "train_elbo": float(self.train.mean()),
            "held_out_elbo": float(self.held_out.mean()),
            "bound_gap_percent": self.gap_percent,
            "held_out_kl": float(self.kl.mean()),
        }


@dataclass
class ImportanceBounds:
    """Importance weighted bounds, in nats.

    Attributes:
        held_out: bound of each of n held-out images, (n,).
        samples: of z for each image.
    """

    held_out: np.ndarray
    samples: int

    __repr__ = short_repr

    def metrics(self) -> dict[str, Any]:
        """Return the mean bound for metrics.json."""
        return {"held_out_iwae": float(self.held_out.mean()), "iwae_samples": self.samples}


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate_bounds(
    model: GalaxyModel,
    train: np.ndarray,
    held_out: np.ndarray,
    refine_steps: int = REFINE_STEPS,
    progress: bool = False,
) -> Bounds:
    """Refine the posteriors of held-out and of training images, and compute their bounds.

    Args:
        model: the model.
        train: images (m, side, side) it was trained on; at most 500 count, and no more than there
            are held-out images.
        held_out: images (n, side, side) it never saw.
        refine_steps: see `refine`; 0 takes the encoder's posteriors.
        progress: shows bars.
    """
    checked_model(model, "evaluate_bounds")
    posterior = refine(model, held_out, refine_steps, progress, tempered=False)
    bound, kl = model.bound(held_out, BOUND_SAMPLES, posterior)
    train_bound = bound_in_training(model, train, len(held_out), refine_steps, progress)
    return Bounds(posterior, bound, kl, train_bound)


def of_whole_images(bounds: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Scale bounds of masked images up to all pixels, by which they rank among others.

    Args:
        bounds: of the pixels that count, (n,).
        images: (n, ...).
    """
    pixels = counted(images)
    return bounds if isinstance(pixels, int) else bounds * (images[0].size / np.maximum(pixels, 1))


def bound_in_training(
    model: GalaxyModel, train: np.ndarray, held_out: int, refine_steps: int, progress: bool
) -> np.ndarray:
    """Compute the bounds of training images, of as many as are held out, 500 at most."""
    train = train[: min(held_out, MAX_TRAIN_IMAGES)]
    posterior = refine(model, train, refine_steps, progress, tempered=False)
    return model.bound(train, BOUND_SAMPLES, posterior)[0]
