"""All of a model's evaluation: bounds, wins over baselines, calibration and morphology."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.baselines.likelihood import counted
from layerkit.galaxy.evaluation.bounds import Bounds, ImportanceBounds, bound_in_training
from layerkit.galaxy.evaluation.calibration import NOMINAL, Calibration, evaluate_calibration
from layerkit.galaxy.evaluation.comparison import (
    Baselines,
    Comparison,
    ModelReconstructions,
    Reconstructions,
    Wins,
    project,
)
from layerkit.galaxy.evaluation.morphology import MorphologyComparison, evaluate_morphology
from layerkit.galaxy.evaluation.stretches import joined, measured
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.importance import IMPORTANCE_SAMPLES
from layerkit.galaxy.model.posterior.posterior import Posterior, check_images
from layerkit.galaxy.model.posterior.refinement import REFINE_STEPS
from layerkit.inspection.display import html_grid
from layerkit.settings import fitting


@dataclass
class Evaluation:
    """A model's results on n held-out images.

    Attributes:
        encoded_bound: evidence lower bound at the encoder's posterior, (n,), in nats.
        bounds: evidence lower bounds at refined posteriors.
        importance: importance weighted bounds.
        comparison: squared errors and likelihoods of the model and of the baselines.
        calibration: of the predicted noise.
        morphology: of the held-out images and of as many drawn from the model.
        refine_steps: of the refined posteriors.
        temperature: of each axis of z, (latent,); no number here is tempered.
    """

    encoded_bound: np.ndarray
    bounds: Bounds
    importance: ImportanceBounds
    comparison: Comparison
    calibration: Calibration
    morphology: MorphologyComparison
    refine_steps: int
    temperature: np.ndarray

    def __repr__(self) -> str:
        count = len(self.encoded_bound)
        wins = ", ".join(f"{w.squared_error} over {k}" for k, w in self.comparison.wins().items())
        return (
            f"Evaluation({count:,} held-out images, mean bound {self.bounds.held_out.mean():,.1f} "
            f"nats, wins by squared error: {wins})"
        )

    def _repr_html_(self) -> str:
        count, bounds = len(self.encoded_bound), self.bounds
        facts = {
            "bound, refined": f"{bounds.held_out.mean():,.1f} nats (KL {bounds.kl.mean():.1f}; "
            f"training {bounds.train.mean():,.1f}, {bounds.gap_percent:.2f}% apart)",
            "bound, encoder's": f"{self.encoded_bound.mean():,.1f} nats",
            "importance weighted bound": f"{self.importance.held_out.mean():,.1f} nats "
            f"({self.importance.samples:,} samples)",
            "pixels within 1, 2, 3 sd": f"{_percentages(self.calibration.coverage)} "
            f"(nominal {_percentages(NOMINAL)})",
            "KS distance of drawn images": ", ".join(
                f"{name} {_decimals(found['ks_distance'])}"
                for name, found in self.morphology.metrics().items()
            ),
        }
        wins = {
            name: [f"{n:,} ({n / count:.1%})" for n in counts]
            for name, counts in self.comparison.wins().items()
        }
        kinds = [name.replace("_", " ") for name in Wins._fields]
        return html_grid(
            f"Evaluation on {count:,} held-out images", [], {k: [v] for k, v in facts.items()}
        ) + html_grid("Images on which the model wins", kinds, wins)

    def metrics(self) -> dict[str, Any]:
        """Return the numbers for metrics.json; wins are counts out of the held-out images.

        Names that begin with `encoded_` are of the encoder's posterior, as in the paper; with
        `closest_`, of the z whose image has the least squared error (`closest`), found as the
        Gaussian, the Sersic profile and PCA are; the others are of refined posteriors.
        """
        return {
            "refine_steps": self.refine_steps,
            "latent_temperature": self.temperature.tolist(),
            **self.bounds.metrics(),
            "encoded_held_out_elbo": float(self.encoded_bound.mean()),
            **self.importance.metrics(),
            **self.comparison.metrics(),
            **self.calibration.metrics(),
            "morphology": self.morphology.metrics(),
        }


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate(
    model: GalaxyModel,
    train: np.ndarray,
    held_out: np.ndarray,
    progress: bool = False,
    importance_samples: int = IMPORTANCE_SAMPLES,
    refine_steps: int = REFINE_STEPS,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Evaluation:
    """Evaluate a model on held-out images.

    As in section 4 of Regier et al. (2015), an image is a win by squared error if the model's mean
    is closer to it than the scaled bivariate Gaussian fitted to that very image, and by likelihood
    if log p(x | z) exceeds that of the Gaussian with the pixel variance that suits the image best,
    but is no smaller than the model's may be.  The Sersic profile with a free index and sky, fitted
    to that very image too, and PCA, fitted to the training images with as many components as z has
    dimensions, are compared alike.

    z is the mean of q(z | x), once at the encoder's and once at the one that `refine` finds.

    Each part can be had alone: `evaluate_bounds`, `reconstruct`, `closest_errors`, `fit_baselines`,
    `evaluate_calibration` and `evaluate_morphology`.

    Args:
        model: the model.
        train: images (m, side, side) it was trained on, for PCA and the bound in training.
        held_out: images (n, side, side) it never saw; masked pixels count for nothing.
        progress: shows a bar for each step that takes long.
        importance_samples: of z for each image, in the importance weighted bound; default 1000.
        refine_steps: see `refine`; default 100, and 0 evaluates the encoder alone.
        workers: processes of this machine, which each take stretches of the held-out images; None,
            the default, is this one alone.  Numbers are equal.
        scheduler: None, the default, for plain processes; "local" makes them a Dask cluster; or the
            address of a Dask scheduler, whose workers do so instead.

    Raises:
        DataError: images that the model does not take, or too few to fit PCA to.
    """
    checked_model(model, "evaluate")
    held_out = check_images(held_out, model.pixels)
    stretches = measured(
        model, held_out, refine_steps, importance_samples, workers, scheduler, progress
    )
    posterior = Posterior(*joined([one.posterior for one in stretches]))
    model.net.run.passes = 0  # whoever measured the stretches
    train_bound = bound_in_training(model, train, len(held_out), refine_steps, progress)
    profiles = [
        Reconstructions(*joined([vars(getattr(one, name)).values() for one in stretches]))
        for name in ("gaussian", "sersic")
    ]
    encoded, refined = (
        ModelReconstructions(*joined([vars(getattr(one, name)).values() for one in stretches]))
        for name in ("encoded", "refined")
    )
    whole = {
        name: np.concatenate([getattr(one, name) for one in stretches])
        for name in ("encoded_bound", "bound", "kl", "closest_errors", "importance")
    }
    floor = model.roles.likelihood.floor
    pca, components = project(train, held_out, model.latent, floor)
    return Evaluation(
        encoded_bound=whole["encoded_bound"],
        bounds=Bounds(posterior, whole["bound"], whole["kl"], train_bound),
        importance=ImportanceBounds(whole["importance"], importance_samples),
        comparison=Comparison(
            encoded,
            refined,
            whole["closest_errors"],
            Baselines(profiles[0], profiles[1], pca, components),
            float(np.mean(counted(held_out))),
        ),
        calibration=evaluate_calibration(model, held_out, posterior),
        morphology=evaluate_morphology(model, held_out),
        refine_steps=refine_steps,
        temperature=model.temperature,
    )


def _percentages(shares: Iterable[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


def _decimals(distance: float | None) -> str:
    return "not measured" if distance is None else f"{distance:.2f}"
