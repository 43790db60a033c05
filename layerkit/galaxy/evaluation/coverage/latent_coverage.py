"""Latent coverage: how far z scatters when noise is drawn anew, beside what q(z | x) predicts.

The coverage of pixels does not show it.  Noise moves z in more ways than the likelihood knows: the
pixels of an enlarged or otherwise resampled crop share their noise; the crop itself, its centre,
its size and the scaling of brightness are measured from noisy pixels; and a posterior with
independent axes is narrower than the true one along each axis if axes are correlated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.galaxy.evaluation.coverage.redraws import Cutter, NoPictureError, redraw
from layerkit.galaxy.evaluation.coverage.source_pictures import SourcePictures
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.refinement import REFINE_STEPS, refine
from layerkit.settings import Number, Truth, Whole, accept, fitting

DRAWS = 8
NOISE_SHARE = 0.5  # the fraction of its own noise that is added to a picture
WITHIN_ONE_SD = 0.683  # share of the draws from a normal distribution
MAX_TEMPERATURE = 1e6  # q is then as wide as the prior
MIN_PICTURES = 8  # to choose a temperature


class LatentCoverage(NamedTuple):
    """Scatter of z over draws of noise, and the scatter that its posterior predicts.

    Attributes:
        kept: indices of the pictures that could be prepared under each draw, (n,).
        deviation: of the posterior's mean from its average over the draws of one picture, scaled
            to the full noise and corrected for the small number of draws, (n, draws, latent).
        sd: of the posterior, (n, draws, latent).
    """

    kept: np.ndarray
    deviation: np.ndarray
    sd: np.ndarray

    @property
    def is_sufficient(self) -> bool:
        """Tell whether there are enough pictures to choose a temperature."""
        return len(self.kept) >= MIN_PICTURES

    @property
    def ratios(self) -> np.ndarray:
        """The ratio of scatter to standard deviation for each picture and axis, (n, latent)."""
        return np.sqrt((self.deviation**2).mean(axis=1) / (self.sd**2).mean(axis=1))

    @property
    def ratio(self) -> np.ndarray:
        """The median over pictures of `ratios`, (latent,)."""
        return np.median(self.ratios, axis=0)

    @property
    def within(self) -> np.ndarray:
        """The share of draws within 1 and 2 standard deviations, (2, latent)."""
        score = np.abs(self.deviation) / self.sd
        return np.stack([(score <= k).mean(axis=(0, 1)) for k in (1, 2)])

    def temperature(self) -> np.ndarray:
        """Return the least temperature of each axis, 1 or more, with nominal coverage, (latent,).

        At this temperature 68.3% of the draws lie within one standard deviation; see
        `GalaxyModel.temper`.  A quantile, unlike a mean square, is not dominated by the few
        galaxies that noise turns into different ones, such as those whose angle flips.  The
        temperatures are 1 if there are too few pictures to choose them.
        """
        latent = self.sd.shape[-1]
        if not self.is_sufficient:
            return np.ones(latent)
        added = (self.sd.reshape(-1, latent) ** -2 - 1).clip(0)  # precision that the image adds
        with np.errstate(divide="ignore", invalid="ignore"):
            # The added precision at which a draw lies at one standard deviation.
            allowed = (self.deviation.reshape(-1, latent) ** -2 - 1).clip(0)
            needed = np.where(added > 0, added / allowed, 1.0)
        return np.quantile(needed, WITHIN_ONE_SD, axis=0, method="higher").clip(1, MAX_TEMPERATURE)

    def untempered(self, temperature: np.ndarray) -> LatentCoverage:
        """Undo the model's temperature, (latent,), in the standard deviations."""
        added = (self.sd**-2 - 1).clip(0) * temperature
        return self._replace(sd=np.minimum(self.sd, (1 + added) ** -0.5))

    def metrics(self) -> dict[str, Any]:
        """Return the ratios and coverages of each axis for metrics.json."""
        return {
            "latent_scatter_over_sd": self.ratio.tolist(),
            "latent_coverage_1sd": self.within[0].tolist(),
            "latent_coverage_2sd": self.within[1].tolist(),
            "latent_coverage_pictures": len(self.kept),
            "latent_coverage_draws": self.sd.shape[1],
        }


@fitting(DataError)
@np.errstate(under="ignore")
def latent_coverage(
    model: GalaxyModel,
    pictures: Iterable[np.ndarray],
    noise: float | Sequence[float] | np.ndarray | None = None,
    draws: int = DRAWS,
    *,
    share: float = 1.0,
    cut: Cutter | None = None,
    refine_steps: int = REFINE_STEPS,
    tempered: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> LatentCoverage:
    """Measure how far z scatters when noise is drawn anew, beside what q(z | x) predicts.

    Each picture is prepared and refined under several draws of noise.

    Args:
        model: the model, standardised.
        pictures: as `Source.read` returns them, or simulated ones without noise.
        noise: standard deviation of a pixel, for all pictures or for each, in the pictures' units;
            None measures that of each picture's sky (`sky_noise`), and leaves out pictures without
            noise.
        draws: of noise for each picture, 2 or more.
        share: the fraction of the noise that is added, and by which the scatter is divided.  For
            pictures without noise it is 1, the default; for those with noise take `NOISE_SHARE`,
            which leaves them nearly as noisy as they were, so that preparation treats them alike.
        cut: prepares a picture for the model or raises `UnusableImageError`; the default is
            `cut_out` as galaxies were prepared for the model, to the side of its images.
        refine_steps: see `refine`; 0 takes the encoder's posterior.
        tempered: takes standard deviations at the model's temperature, the default.
        seed: of the noise.
        progress: shows bars.

    Raises:
        DataError: an argument of the wrong kind or out of range; pictures that are not arrays of
            numbers; or no picture that can be prepared under each draw.
    """
    _check_model(model, "latent_coverage")
    draws, share, seed, tempered, refine_steps = (
        accept(rule, value, name, "latent_coverage", DataError)
        for rule, value, name in (
            (Whole(2), draws, "draws"),
            (Number(above=0, most=1), share, "share"),
            (Whole(0, 2**63 - 1), seed, "seed"),
            (Truth(), tempered, "tempered"),
            (Whole(), refine_steps, "refine_steps"),
        )
    )
    if not isinstance(pictures, Iterable):
        raise DataError(
            f"latent_coverage: pictures must be a sequence of arrays, got {brief(pictures)}"
        )
    if not (cut is None or callable(cut)):
        raise DataError(
            "latent_coverage: cut must be a function that prepares a picture, or None, got "
            f"{brief(cut)}"
        )
    views, kept = redraw(
        pictures, noise, draws, share=share, cut=cut or _cutter(model), seed=seed, progress=progress
    )
    flat = views.reshape(-1, *views.shape[2:])
    posterior = refine(model, flat, refine_steps, progress, tempered=tempered)
    mean, sd = (a.reshape(len(kept), draws, -1).astype("float64") for a in posterior)
    deviation = (mean - mean.mean(axis=1, keepdims=True)) * np.sqrt(draws / (draws - 1)) / share
    return LatentCoverage(kept, deviation, sd)


@fitting(DataError)
@np.errstate(under="ignore")
def redrawn_coverage(
    model: GalaxyModel,
    pictures: SourcePictures | None,
    refine_steps: int = REFINE_STEPS,
    progress: bool = False,
    tempered: bool = True,
) -> LatentCoverage | None:
    """Measure `latent_coverage` on real pictures, adding half of the noise that they have.

    Args:
        model: the model.
        pictures: of galaxies, preferably ones that training never saw; None if there are none.
        refine_steps, progress, tempered: see `latent_coverage`.

    Returns:
        The coverage; None if there are no pictures, or none that can be prepared again.

    Raises:
        DataError: an argument of the wrong kind, or images of another size than the model's.
    """
    _check_model(model, "redrawn_coverage")
    if pictures is None:
        return None
    if not isinstance(pictures, SourcePictures):
        raise DataError(
            f"redrawn_coverage: pictures must be SourcePictures, got {brief(pictures)}; "
            "latent_coverage takes arrays"
        )
    if not len(pictures):
        return None
    try:
        return latent_coverage(
            model,
            pictures,
            share=NOISE_SHARE,
            cut=pictures.cut,
            refine_steps=refine_steps,
            progress=progress,
            tempered=tempered,
        )
    except NoPictureError:
        return None


def _check_model(model: Any, label: str) -> None:
    if not isinstance(model, GalaxyModel):
        raise DataError(f"{label}: model must be a GalaxyModel, got {brief(model)}")


def _cutter(model: GalaxyModel) -> Cutter:
    """Return a function that cuts a picture out as the model's preparation says, to its side."""
    side = round(model.pixels**0.5)
    if side * side != model.pixels:
        raise DataError(
            f"latent_coverage: the model's images have {model.pixels} pixels and are not square; "
            "give cut=, which prepares a picture"
        )
    settings = replace(model.preparation or Settings(), size=side)
    return lambda picture: cut_out(picture, settings)[0]
