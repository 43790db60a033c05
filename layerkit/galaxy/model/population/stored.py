"""A population in a snapshot: the arrays of a model's prior and noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from layerkit.errors import NetError
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.population.noise import PixelNoise
from layerkit.galaxy.model.population.prior import MixturePrior

PRIOR = ("weights", "means", "covariances")
NOISE = ("components", "covariances", "distributions", "parities")


def population_arrays(model: GalaxyModel) -> dict[str, np.ndarray]:
    """Return the arrays of a model's prior and noise by name; none for N(0, I) and no noise."""
    found: dict[str, np.ndarray] = {}
    for name, part, keys in (("prior", model.prior, PRIOR), ("noise", model.noise, NOISE)):
        if part is not None:
            # Covariances need their digits to stay positive definite; the rest is smooth.
            dtype = "float32" if name == "prior" else "float16"
            found |= {f"{name}/{key}": getattr(part, key).astype(dtype) for key in keys}
    return found


def restore_population(model: GalaxyModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Set a model's prior and noise from arrays that `population_arrays` returned.

    Noise of an earlier form, with amplitudes in place of distributions, is left out with a warning:
    nothing but samples depends on it.

    Raises:
        NetError: some arrays are missing, are of another model, or hold what no population does.
    """
    model.prior = model.noise = None
    if "prior/weights" in arrays:
        model.prior = MixturePrior(*(_of(arrays, f"prior/{key}") for key in PRIOR))
    if "noise/amplitudes" in arrays:
        warnings.warn(
            "the model's pixel noise was fitted by an earlier version of layerkit and is left out; "
            "samples have independent noise. Fit it again with `layerkit galaxy populate`",
            RuntimeWarning,
            stacklevel=2,
        )
    elif "noise/components" in arrays:
        model.noise = PixelNoise(*(_of(arrays, f"noise/{key}") for key in NOISE))


def _of(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise NetError(f"the array {name!r} of the population is missing; fit it again")
    return arrays[name]
