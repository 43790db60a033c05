"""The results of a run: its model evaluated, metrics.json, the figures and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerkit.data.arrays import data_of
from layerkit.errors import DataError
from layerkit.galaxy.evaluation import evaluate as evaluation
from layerkit.galaxy.evaluation.bounds import of_whole_images
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage, redrawn_coverage
from layerkit.galaxy.images.prepared import spread_out
from layerkit.galaxy.layout import METRICS, POPULATION, REPORT
from layerkit.galaxy.report import gallery
from layerkit.galaxy.report.metrics import read_json, summary, write_json
from layerkit.galaxy.report.page.page import write_report
from layerkit.galaxy.training.run.run import Run
from layerkit.inspection.activity import find_inactive
from layerkit.saving import snapshot

SMALLEST = 100  # galaxies that can show which units are never active


def evaluate_run(
    run: Run, workers: int | None = None, scheduler: str | None = None
) -> tuple[evaluation.Evaluation, dict[str, Any]]:
    """Evaluate a trained run on the held-out galaxies, and write what it found into its folder.

    The model stands beside the best Gaussian and Sersic profile of each galaxy, and PCA.

    Args:
        run: the run.
        workers, scheduler: who measures the held-out galaxies; see `galaxy.evaluate`.

    Returns:
        the evaluation, and the metrics.

    Raises:
        DataError: the results cannot be written.
    """
    settings, galaxies, model = run.settings, run.galaxies, run.model
    # A few galaxies leave most units alone, active or not.
    many = len(galaxies.watched) >= SMALLEST
    inactive = find_inactive(model.net, x=data_of(galaxies.watched if many else galaxies.train))
    print(inactive)
    model.net.run.passes = run.solver.iteration  # the same noise, resumed or not
    coverage = redrawn_coverage(model, galaxies.held_out_pictures, settings.refine_steps, True)
    result = evaluation.evaluate(
        model,
        galaxies.train,
        galaxies.held_out,
        True,
        settings.importance,
        settings.refine_steps,
        workers,
        scheduler,
    )
    metrics = _metrics(run, result, coverage, inactive.counts)
    try:
        write_json(run.folder / METRICS, metrics)
        run.write_settings(run.folder)
        plates = gallery.draw_figures(
            run.folder,
            model,
            result,
            galaxies.held_out,
            run.watch.history,
            ids=galaxies.ids,
            row_order=galaxies.row_order,
            coverage=coverage,
        )
        write_report(run.folder / REPORT, metrics, plates)
    except OSError as error:  # a full disk, say
        raise DataError(
            f"cannot write results into {run.folder} ({error.strerror or error}); the model is "
            f"saved: make room, and draw the rest with: {run.caller.go_on(run.folder)}"
        ) from error
    _keep_bounds(run, result)
    print(summary(metrics))
    print(f"open {run.folder / REPORT}")
    return result, metrics


def _keep_bounds(run: Run, result: evaluation.Evaluation) -> None:
    """Store the bounds of held-out galaxies in the model's file, by which catalogues rank others.

    Raises:
        SnapshotError: the file cannot be written.
    """
    few = spread_out(len(result.encoded_bound))
    encoded, refined = (
        of_whole_images(bounds, run.galaxies.held_out)[few]
        for bounds in (result.encoded_bound, result.bounds.held_out)
    )
    snapshot.amend(
        run.file,
        extra={
            "held_out_bounds": encoded,
            "refined_bounds": {"steps": result.refine_steps, "bounds": refined},
        },
    )


def _metrics(
    run: Run,
    result: evaluation.Evaluation,
    coverage: LatentCoverage | None,
    never_active: dict[str, int],
) -> dict[str, Any]:
    """Return what goes into metrics.json."""
    settings, galaxies, iterations = run.settings, run.galaxies, run.solver.iteration
    seen = run.stretches.galaxies(iterations)
    metrics = {
        **galaxies.counts,
        "train": galaxies.count,
        "validation": len(galaxies.watched),
        "held_out": len(galaxies.held_out),
        "latent": run.model.latent,
        "pixels": " x ".join(map(str, galaxies.held_out.shape[1:])),
        "iterations": iterations,
        "epochs": seen / galaxies.count,
        "batch": settings.batch * (settings.shards or 1),
        "samples": settings.samples,
        "augment": settings.augment,
        "warm_up": settings.warm_up,
        "clip": settings.clip,
        "centre": settings.centre,
        "never_active": never_active,
        "kl_warm_up": settings.kl_warm_up,
        "keep": settings.keep,
        "kept_iteration": run.best.iteration if settings.keep == "best" else iterations,
        "iterations_per_second": iterations / run.spent,
        "images_per_second": seen / run.spent,
        "seconds": run.spent,
        **result.metrics(),
        **(coverage.metrics() if coverage else {}),
        "backend": run.net.backend.name,
        "seed": settings.seed,
        "rate": settings.rate,
        "final_rate": settings.end_rate,
        "net_settings": settings.net_values(),
        "data": settings.data or "Hubble Deep Field",
        "net": Path(settings.net).name,
        "command": settings.command,
    }
    if run.model.prior is not None:  # bounds are with it rather than N(0, I)
        metrics["prior_gaussians"] = len(run.model.prior.weights)
        if (file := run.folder / POPULATION).is_file():
            metrics["population"] = read_json(file)
    if earlier := run.stretches.changes():
        metrics["earlier_settings"] = earlier
    return metrics
