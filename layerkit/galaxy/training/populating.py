"""`populate`: a finished run's model gets a prior and noise that are fitted to its galaxies."""

from __future__ import annotations

import os
from pathlib import Path

from layerkit.distributed import alone
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.population import Population, evaluate_population
from layerkit.galaxy.layout import MODEL, POPULATION
from layerkit.galaxy.model.population.fitting import fit_population
from layerkit.galaxy.model.population.stored import population_arrays
from layerkit.galaxy.report.metrics import write_json
from layerkit.galaxy.training.results import evaluate_run
from layerkit.galaxy.training.run.run import Caller, Run
from layerkit.galaxy.training.trained import read_finished
from layerkit.saving import snapshot
from layerkit.settings import fitting
from layerkit.system import locks
from layerkit.system.files import path_of


@fitting(DataError)
def populate(run: str | os.PathLike[str], *, seed: int = 0) -> Population:
    """Fit the population that the model of a finished run draws, and measure it.

    The prior and the noise are fitted to the galaxies that the run was trained on, chosen by those
    that training was watched with, and kept in the run's `model.h5`: `load_model` returns the model
    with them.  They are measured on the galaxies held out; the numbers go to `population.json`.
    The run is then evaluated again, as its bounds are with this prior from now on: metrics.json,
    the figures and report.html are written anew.

    Args:
        run: the run's folder.
        seed: of draws.

    Returns:
        How well drawn galaxies pass for held-out ones.

    Raises:
        SnapshotError: no finished run.
        DataError: too few galaxies, or the results cannot be written.
        BusyError: another run works in the folder.
    """
    folder = Path(os.path.abspath(path_of(run, DataError)))
    read_finished(folder)
    with locks.lock(folder, "a training run"):
        found = Run(folder, {}, True, Caller("galaxy.populate", _go_on), alone())
        model, galaxies = found.model, found.galaxies
        model.prior, model.noise = fit_population(
            model, galaxies.train, galaxies.watched, seed=seed
        )
        result = evaluate_population(model, galaxies.held_out, seed)
        snapshot.amend(folder / MODEL, arrays=population_arrays(model))
        try:
            write_json(folder / POPULATION, result.metrics())
        except OSError as error:
            raise DataError(f"cannot write {folder / POPULATION}: {error.strerror}") from error
        # Bounds are with the new prior from here on, in the metrics and in the model's file, too.
        evaluate_run(found)
    return result


def _go_on(folder: Path) -> str:
    return f"layerkit galaxy evaluate {folder}"
