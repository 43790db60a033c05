"""All figures of one run, drawn into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from layerkit.data.arrays import data_of
from layerkit.errors import DataError
from layerkit.galaxy.evaluation.bounds import of_whole_images
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage
from layerkit.galaxy.evaluation.evaluate import Evaluation
from layerkit.galaxy.images.crop.units import intensities_of
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.report import figures
from layerkit.galaxy.report.captions import CAPTIONS, POPULATED
from layerkit.galaxy.report.page.plates import Plate, plate

ROW_ORDERS = ("top", "bottom")
TRAVERSED = np.arange(-3.0, 4.0)  # standard deviations of the prior
RECONSTRUCTED = 8  # galaxies in figure 3 of the paper


def draw_figures(
    folder: Path,
    model: GalaxyModel,
    result: Evaluation,
    held_out: np.ndarray,
    history: Mapping[str, Sequence[float]],
    ids: Sequence[str] | None = None,
    row_order: str = "top",
    coverage: LatentCoverage | None = None,
) -> list[Plate]:
    """Draw all figures of a run as PNG files in `folder`.

    Args:
        folder: an existing folder.
        model: the trained model.
        result: the result of `evaluate` on `held_out`.
        held_out: images (n, side, side), drawn as they are under a mask.
        history: the learning curves; see `figures.learning_curves`.
        ids: names of the held-out images, (n,), which link them in the report.
        row_order: side of the picture, "top" or "bottom", that the first row of an image belongs
            to.  FITS images start at the bottom.
        coverage: coverage of z over redrawn noise; None leaves out the figure of it.

    Returns:
        The figures for `write_report`, in its order.

    Raises:
        DataError: another row order, or figures that cannot be drawn of these arrays.
    """
    if row_order not in ROW_ORDERS:
        raise DataError(f"row_order must be one of {', '.join(ROW_ORDERS)}, got {row_order!r}")

    def upright(pictures: np.ndarray) -> np.ndarray:
        return pictures[..., ::-1, :] if row_order == "bottom" else pictures

    shape = held_out.shape[1:]
    seen = upright(data_of(held_out))
    refined, baselines = result.comparison.refined, result.comparison.baselines
    mean, variance = _decoded_samples(model, held_out[:RECONSTRUCTED])
    traversed = model.traverse(TRAVERSED)
    own = intensities_of(model.preparation)
    drawn = {
        "reconstructions": figures.reconstructions(
            seen[:RECONSTRUCTED],
            upright(mean),
            upright(variance),
            baseline=upright(baselines.gaussian.images[:RECONSTRUCTED]),
            ids=None if ids is None else ids[:RECONSTRUCTED],
            limits=(own.darkest, own.brightest),
        ),
        "embedding": figures.embedding(model.encode(held_out).mean, seen, ids=ids),
        "traversal": figures.traversal(
            upright(traversed.reshape(*traversed.shape[:2], *shape)), TRAVERSED
        ),
        "samples": figures.samples(upright(model.sample(64).reshape(-1, *shape)), seen, ids=ids),
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
    ranked = of_whole_images(result.bounds.held_out, held_out)
    drawn["outliers"] = figures.outliers(seen, ranked, ids=ids)
    if coverage is not None:
        drawn["latent_coverage"] = figures.latent_coverage(coverage, model.temperature)
    captions = CAPTIONS if model.prior is None else CAPTIONS | POPULATED
    return [
        plate(figure, folder / f"{name}.png", *captions[name]) for name, figure in drawn.items()
    ]


def _decoded_samples(model: GalaxyModel, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return f_mu(z) and f_Sigma(z) for one z drawn from N(g_mu(x), g_Sigma(x)) of each image."""
    mean, sd = model.encode(images, tempered=False)
    z = mean + sd * np.random.default_rng(0).standard_normal(mean.shape)
    return model.reconstruct(images, Posterior(z, sd))
