"""All figures of one run, drawn into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage
from layerkit.galaxy.evaluation.evaluate import Evaluation
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.report import figures
from layerkit.galaxy.report.captions import CAPTIONS

ROW_ORDERS = ("top", "bottom")  # where the first row of an image belongs
TRAVERSED = np.linspace(-3, 3, 11)  # of the traversal, in standard deviations of the prior


def draw_figures(
    folder: Path,
    model: GalaxyModel,
    result: Evaluation,
    held_out: np.ndarray,
    history: Mapping[str, Sequence[float]],
    ids: Sequence[str] | None = None,
    row_order: str = "top",
    coverage: LatentCoverage | None = None,
) -> list[tuple[str, str, Path]]:
    """Draw each figure as a PNG in `folder`.

    Args:
        folder: where they go.
        model: for samples and the traversal.
        result: of `evaluate` on `held_out`.
        held_out: images (n, side, side).
        history: of training; see `figures.learning_curves`.
        ids: of the held-out images, written beside them.
        row_order: "top" or "bottom", where the first row of an image is on the sky or on paper; a
            FITS image's is at the bottom, and so it is drawn.
        coverage: of z over redrawn noise; without it there is no figure of it.

    Returns:
        (title, caption, path) of each, for the report.

    Raises:
        DataError: another row order.
    """
    if row_order not in ROW_ORDERS:
        raise DataError(f"row_order must be one of {', '.join(ROW_ORDERS)}, got {row_order!r}")

    def upright(pictures: np.ndarray) -> np.ndarray:
        return pictures[..., ::-1, :] if row_order == "bottom" else pictures

    shape = held_out.shape[1:]
    seen = upright(held_out)
    refined, baselines = result.comparison.refined, result.comparison.baselines
    traversed = model.traverse(TRAVERSED)
    drawn = {
        "reconstructions": figures.reconstructions(
            seen,
            upright(refined.images),
            upright(refined.variances),
            baseline=upright(baselines.gaussian.images),
            ids=ids,
        ),
        "embedding": figures.embedding(model.encode(held_out).mean, seen),
        "traversal": figures.traversal(
            upright(traversed.reshape(*traversed.shape[:2], *shape)), TRAVERSED
        ),
        "samples": figures.samples(upright(model.sample(64).reshape(-1, *shape)), seen),
        "learning_curves": figures.learning_curves(history),
        "squared_error": figures.comparison(
            refined.squared_errors, baselines.gaussian.squared_errors
        ),
        "likelihood": figures.comparison(
            refined.log_likelihoods,
            baselines.gaussian.log_likelihoods,
            quantity="log likelihood",
            higher_is_better=True,
        ),
        "sersic_squared_error": figures.comparison(
            refined.squared_errors, baselines.sersic.squared_errors, "Sersic profile"
        ),
        "calibration": figures.calibration(result.calibration),
        "morphology": figures.morphology(result.morphology.held_out, result.morphology.drawn),
    }
    if coverage is not None:
        drawn["latent_coverage"] = figures.latent_coverage(coverage, model.temperature)
    return [
        (*CAPTIONS[name], figures.save(figure, folder / f"{name}.png"))
        for name, figure in drawn.items()
    ]
