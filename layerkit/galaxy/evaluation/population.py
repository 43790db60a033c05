"""How well the population that a model draws passes for the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.data.arrays import data_of
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.morphology import MorphologyComparison, evaluate_morphology
from layerkit.galaxy.images.crop.units import intensities_of
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import check_images
from layerkit.inspection.display import html_grid
from layerkit.settings import Whole, accept, fitting

COMPONENTS = 20  # principal components that the classifier sees
TREES = 300  # of the random forest
FOLDS = 5
FEWEST = 50  # galaxies


@dataclass
class Population:
    """How well galaxies drawn from a model pass for held-out ones.

    A classifier that cannot tell two sets apart is right in half of the cases.

    Attributes:
        z: share of cases in which z from the prior are told from draws of q(z | x).
        means: the same, once both are decoded to f_mu(z).
        images: share of cases in which images drawn with noise are told from held-out ones.
        morphology: of held-out images and of images drawn with noise.
        prior_gain: log p(z) - log N(z; 0, I), averaged over z of q(z | x) and over galaxies: by how
            much the prior raises the bound, in nats; 0 for N(0, I).
    """

    z: float
    means: float
    images: float
    morphology: MorphologyComparison
    prior_gain: float

    def __repr__(self) -> str:
        return "\n".join(f"{name:44s}{value}" for name, value in self._rows().items())

    def _repr_html_(self) -> str:
        return html_grid("Population", [], {name: [value] for name, value in self._rows().items()})

    def _rows(self) -> dict[str, str]:
        told = {
            "z from the prior, from z of galaxies": self.z,
            "their means, from reconstructions": self.means,
            "drawn images, from held-out images": self.images,
        }
        ks = {name: m["ks_distance"] for name, m in self.morphology.metrics().items()}
        return {
            **{f"told apart: {name}": f"{share:.1%}" for name, share in told.items()},
            **{f"KS distance: {k}": "-" if d is None else f"{d:.3f}" for k, d in ks.items()},
            "gain in bound by the prior": f"{self.prior_gain:.2f} nats",
        }

    def metrics(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        return {
            "told_apart": {"z": self.z, "means": self.means, "images": self.images},
            "morphology": self.morphology.metrics(),
            "prior_gain": self.prior_gain,
        }


@fitting(DataError)
@np.errstate(under="ignore")
def evaluate_population(model: GalaxyModel, held_out: np.ndarray, seed: int = 0) -> Population:
    """Measure how well galaxies drawn from a model pass for held-out ones.

    As many are drawn as are held out.  A random forest sees the first 20 principal components of
    both sets, and its accuracy is that on the folds, of five, that it was not trained on.

    Args:
        model: the model.
        held_out: images (n, side, side) that it never saw, 50 or more; as they are under a mask.
        seed: of draws, folds and forests.

    Raises:
        DataError: too few images, or images that the model does not take.
    """
    checked_model(model, "evaluate_population")
    held_out = data_of(check_images(held_out, model.pixels))
    seed = accept(Whole(), seed, "seed", "evaluate_population", DataError)
    if len(held_out) < FEWEST:
        raise DataError(
            f"evaluate_population: {len(held_out)} images are too few to compare populations by; "
            f"give {FEWEST} or more"
        )
    rng = np.random.default_rng(seed)
    mean, sd = model.encode(held_out, tempered=False)
    z = mean + sd * rng.standard_normal(mean.shape)
    drawn = model.sample_z(len(held_out), seed)
    own = intensities_of(model.preparation)
    images = model.sample(len(held_out), seed, noise=True).clip(own.least, own.most)
    return Population(
        z=told_apart(drawn, z, seed),
        means=told_apart(model.decode(drawn)[0], model.decode(z)[0], seed),
        images=told_apart(images, held_out.reshape(len(held_out), -1), seed),
        morphology=evaluate_morphology(model, held_out, seed),
        prior_gain=0.0 if model.prior is None else float(model.prior.gain(z).mean()),
    )


def told_apart(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Return the share of rows of two sets (n, d) that a random forest attributes rightly."""
    from sklearn.decomposition import PCA  # slow to import
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    rows = np.concatenate([a, b])
    labels = np.repeat([0, 1], [len(a), len(b)])
    components = PCA(min(COMPONENTS, rows.shape[1]), random_state=seed).fit_transform(rows)
    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=-1)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(forest, components, labels, cv=folds).mean())
