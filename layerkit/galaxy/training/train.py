"""`train`: pictures in, a trained and evaluated model out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerkit import distributed
from layerkit.errors import DataError, SnapshotError
from layerkit.galaxy.evaluation.evaluate import Evaluation
from layerkit.galaxy.layout import MODEL
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.report.folder import results_folder
from layerkit.galaxy.training.results import evaluate_run
from layerkit.galaxy.training.run.run import Caller, Run
from layerkit.galaxy.training.settings import FOLDER, OWNER, check_settings
from layerkit.inspection.display import html_grid
from layerkit.settings import Truth, accept, fitting
from layerkit.system import locks
from layerkit.system.files import path_of


@dataclass
class Training:
    """A run of `train`.

    Attributes:
        model: the model, trained or interrupted.
        metrics: the content of metrics.json by name; empty unless the run is done.
        history: the learning curves: lists of equal length called "iteration", "train_elbo",
            "validation_elbo" and "kl", in nats per image.
        folder: that the results were written into.
        evaluation: on the held-out galaxies, or None unless the run is done.
        ending: "done", "interrupted", or "output lost" where nobody read the output any more.
        iteration: number of steps that the model was trained for.
        target: number of steps at which training ends.
    """

    model: GalaxyModel
    metrics: dict[str, Any]
    history: dict[str, list[float]]
    folder: Path
    evaluation: Evaluation | None
    ending: str
    iteration: int
    target: int

    def __repr__(self) -> str:
        return f"Training({str(self.folder)!r}: {self._state()})"

    def _repr_html_(self) -> str:
        found = {"folder": [str(self.folder)], "state": [self._state()]}
        table = html_grid("Training", [], {**found, "model": [repr(self.model)]})
        return table if self.evaluation is None else table + self.evaluation._repr_html_()

    def _state(self) -> str:
        if self.ending != "done":
            return (
                f"stopped at step {self.iteration:,} of {self.target:,}; "
                f"{_call({'resume': True, 'out': str(self.folder)})} continues it"
            )
        return (
            f"{self.iteration:,} steps on {self.metrics['train']:,} galaxies, bound "
            f"{self.metrics['held_out_elbo']:,.1f} nats on {self.metrics['held_out']:,} held out"
        )


@fitting(DataError)
def train(
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = FOLDER,
    *,
    held_out: int | str | os.PathLike[str] | None = None,
    hdu: int | str | None = None,
    units: str | None = None,
    net: str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    batch: int | None = None,
    shards: int | None = None,
    rate: float | None = None,
    final_rate: float | None = None,
    warm_up: int | None = None,
    clip: float | None = None,
    centre: bool | None = None,
    kl_warm_up: int | None = None,
    samples: int | None = None,
    augment: str | None = None,
    keep: str | None = None,
    refine: int | None = None,
    importance_samples: int | None = None,
    backend: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    tiny: bool | None = None,
) -> Training:
    """Prepare pictures of galaxies, train a model on them, and evaluate it on galaxies held out.

        run = galaxy.train("pictures.zip", "out/mine", net="galaxy_pose", epochs=50)
        run.model.sample(16)

    The results are written into a folder: report.html with all figures, metrics.json, model.h5, the
    prepared galaxies, and contact sheets.  Earlier results there are kept in before-1, before-2 and
    so on.  Ctrl-C saves the model and returns; `train(resume=True, out=...)` continues, on NumPy
    bit for bit.  `layerkit galaxy train` has options called like the settings.  Processes
    that mpiexec has started share each step; one of them prepares, evaluates and writes.

    A setting that is left at None has the default given here or, in a resumed run, the value that
    the run had before.

    Args:
        data: folder, zip or file of pictures, or a prepared galaxies.h5; default: galaxies of the
            Hubble Deep Field.
        out: folder for results, default "out/galaxy".
        held_out: another source to evaluate on, or how many galaxies training never sees; default
            1000, or a fifth where there are few.
        hdu: extension of FITS files to read, by number or name; default: all that hold science
            images.
        units: of pictures in physical units: "stretched", the default, compresses bright pixels;
            "linear" subtracts the sky and divides by a number for each picture, see `prepare`.
        net: net definition file, or the name of one that comes with layerkit; default
            "galaxy_gdae", the paper's.
        set: settings of the net file by name, such as {"latent": 16}.
        epochs: passes through the data; default 100, and at least 2500 steps.
        iterations: steps, instead of `epochs`.
        batch: galaxies in a step, or in each shard of it, default 64.
        shards: batches in a step, which follows their mean gradient: a power of two, which the
            processes that mpiexec has started share; default: one for each process.
        rate: rate of Adam, default 0.001.
        final_rate: rate at the end, to which it falls along half a cosine; default: 1% of `rate`.
        warm_up: steps over which the rate rises to `rate`, default 0.
        clip: largest norm of a gradient, to which longer ones are scaled down; default: none.
        centre: starts with biases for which every unit is active for some galaxies; default False.
        kl_warm_up: steps over which the weight of the KL terms rises to its full value, default 0.
        samples: samples of z for each galaxy in a step; default 1, as in the paper.
        augment: "dihedral", the default, turns and mirrors galaxies at random; or "none".
        keep: parameters to keep: "last", the default, or "best", those with the best bound on the
            galaxies that training is watched with.
        refine: gradient steps for each galaxy from the encoder's posterior, in the evaluation;
            default 100.
        importance_samples: samples of z for each held-out galaxy in the importance weighted bound;
            default 1000.
        backend: "auto", the default, "numpy" or "cupy".
        seed: of all random numbers, default 0.
        resume: True continues from the snapshot in `out`.
        tiny: a quick look, with few galaxies and few steps; default False.

    Raises:
        DataError: a setting of another kind; pictures that are missing or too few; a folder that
            cannot be written to.
        NetFileError, NetError: a net that cannot be loaded, or is none of a galaxy model.
        SnapshotError: resumed, and there is no snapshot, or it is of another run.
        BusyError: another run works in the folder.
        NotFiniteError: a loss that is not finite; a lower `rate` or `clip` may help.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if not resume:
        del given["resume"]
    again = {"resume": True}
    return start(given, Caller(_call(given), lambda folder: _call(again | {"out": str(folder)})))


def _call(given: Mapping[str, Any]) -> str:
    """Return the call as Python text that repeats it."""
    plain = {name: _plain(value) for name, value in given.items()}
    return f"{OWNER}({', '.join(f'{name}={value!r}' for name, value in plain.items())})"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def start(
    given: Mapping[str, Any],
    caller: Caller,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Training:
    """Do what `train` does, for a caller who says how to repeat it.

    Args:
        given: settings by name, `out` and `resume` among them, as `train` takes them.
        caller: who starts the run.
        workers, scheduler: who measures the held-out galaxies; see `galaxy.evaluate`.

    Raises:
        LayerkitError: see `train`.
    """
    given = {"out": FOLDER} | {k: v for k, v in given.items() if v is not None}
    out = Path(os.path.abspath(path_of(given.pop("out"), DataError)))
    resume = accept(Truth(), given.pop("resume", False), "resume", OWNER, DataError)
    given = check_settings(given)
    if given.get("epochs") and given.get("iterations"):
        raise DataError(f"{OWNER}: give epochs or iterations, not both")
    if resume and not (out / MODEL).exists():
        raise SnapshotError(f"no snapshot at {out / MODEL} to continue from")
    with distributed.started() as comm, comm.one_voice():
        folder = results_folder(out)
        with locks.lock(folder, "a training run") if comm.leads else nullcontext():
            run = Run(folder, given, resume, caller, comm)
            ending = run.train()
            evaluates = ending == "done" and comm.leads
            result, metrics = evaluate_run(run, workers, scheduler) if evaluates else (None, {})
    return Training(
        model=run.model,
        metrics=metrics,
        history=run.watch.history,
        folder=folder,
        evaluation=result,
        ending=ending,
        iteration=run.solver.iteration,
        target=run.iterations,
    )
