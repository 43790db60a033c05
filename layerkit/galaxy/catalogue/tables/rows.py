"""Rows of a catalogue: the numbers that a model gives of some pictures."""

from __future__ import annotations

import numpy as np

from layerkit.data.arrays import data_of, hidden
from layerkit.galaxy.catalogue.photometry.flux import FLUXES, measure
from layerkit.galaxy.catalogue.photometry.stamps import Stamp
from layerkit.galaxy.catalogue.summaries import SUMMARIES, spread, summarise
from layerkit.galaxy.evaluation.bounds import BOUND_SAMPLES, of_whole_images
from layerkit.galaxy.images.crop.crop import Cut
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior
from layerkit.galaxy.model.posterior.refinement import refine

# name -> unit, description; then come z and the summaries
COLUMNS = {
    "crop_y": ("pix", "first row of the square cut from the picture; pixel k is from k to k + 1"),
    "crop_x": ("pix", "first column of the square"),
    "crop_side": ("pix", "side of the square"),
    "pixel_scale": ("arcsec", "side of a pixel of the picture on the sky"),
    "bound": ("", "evidence lower bound on log p(x), in nats"),
    "bound_percentile": ("", "rank of the bound among held-out galaxies; small is strange"),
    "kl": ("", "sum of the bound's KL terms, in nats"),
    "squared_error": ("", "sum over the pixels that count of the prepared image, in its units"),
    "log_likelihood": ("", "log p(x | z) at the mean of q(z | x), in nats"),
}

IN_ARCSEC = "half_light_radius_arcsec"
COMPLETIONS = 10  # rounds in which missing pixels and z follow each other
SCALED = ("pixel_scale", IN_ARCSEC, f"{IN_ARCSEC}_sd")  # NaN where the scale is unknown


class Encoder:
    """The numbers of a catalogue's rows.

    Args:
        model: the model.
        steps: of refinement; 0 takes the encoder's posteriors.
        draws: from q(z | x) for each picture.
        row_order: of the source.
        zero_point, gain: of all pictures; None, the default, takes what their files say.

    Attributes:
        columns: name of each number -> its unit and description.
    """

    def __init__(
        self,
        model: GalaxyModel,
        steps: int,
        draws: int,
        row_order: str,
        zero_point: float | None = None,
        gain: float | None = None,
    ):
        self.model, self.steps, self.draws, self.row_order = model, steps, draws, row_order
        self.zero_point, self.gain = zero_point, gain
        axes = range(model.latent)
        self.columns = {
            **COLUMNS,
            **{f"z_mean_{k}": ("", "mean of q(z | x)") for k in axes},
            **{f"z_sd_{k}": ("", "standard deviation of q(z | x)") for k in axes},
        }
        for name, (unit, text) in SUMMARIES.items():
            self.columns[name] = (unit, text)
            self.columns[f"{name}_sd"] = (unit, "its standard deviation")
        self.columns[IN_ARCSEC] = ("arcsec", "half_light_radius on the sky")
        self.columns[f"{IN_ARCSEC}_sd"] = ("arcsec", "its standard deviation")
        self.columns |= FLUXES

    def posterior(self, images: np.ndarray) -> Posterior:
        """Find q(z | x), not tempered."""
        if self.steps:
            return refine(self.model, images, self.steps, tempered=False)
        return self.model.encode(images, tempered=False)

    def bound(self, images: np.ndarray, posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
        """Compute the bound and its KL terms, each (n,)."""
        return self.model.bound(images, BOUND_SAMPLES, posterior)

    def rows(
        self, images: np.ndarray, cuts: list[Cut], scales: np.ndarray, stamps: list[Stamp | None]
    ) -> np.ndarray:
        """Compute the numbers of some pictures, (n, columns); the rank is what is yet to be ranked.

        Args:
            images: prepared, (n, side, side).
            cuts: their squares.
            scales: arcseconds per pixel of their pictures, (n,); NaN where unknown.
            stamps: their pixels, where they are in physical units.
        """
        images = self.completed(images)
        model, posterior = self.model, self.posterior(images)
        bound, kl = self.bound(images, posterior)
        mean, _ = model.reconstruct(images, posterior)
        errors = np.ma.getdata(((images - mean).astype(np.float64) ** 2).sum(axis=(1, 2)))
        z = model.temper(posterior)
        crops = [(cut.y0, cut.x0, cut.side) for cut in cuts]
        likelihood = model.log_likelihood(images, posterior)
        drawn = [model.reconstruct(images, z, sample=True)[0] for _ in range(self.draws)]
        found = self.summaries(mean, drawn, cuts)
        fluxes = [
            measure(stamp, cut, [mean[i], *(d[i] for d in drawn)], self.zero_point, self.gain)
            for i, (stamp, cut) in enumerate(zip(stamps, cuts, strict=True))
        ]
        radius = 2 * list(SUMMARIES).index("half_light_radius")
        return np.column_stack(
            [
                crops,
                scales,
                bound,
                of_whole_images(bound, images),
                kl,
                errors,
                likelihood,
                *z,
                found,
                found[:, radius : radius + 2] * scales[:, None],
                fluxes,
            ]
        )

    def completed(self, images: np.ndarray) -> np.ndarray:
        """Replace pixels under a mask by those of the reconstruction, until they agree.

        They count for nothing in the likelihood, but the encoder sees them.
        """
        mask = hidden(images)
        if mask is None:
            return images
        rows, found = np.flatnonzero(mask.any(axis=(1, 2))), np.array(data_of(images))
        for _ in range(COMPLETIONS):
            mean, _ = self.model.reconstruct(found[rows])
            found[rows] = np.where(mask[rows], mean, found[rows])
        return np.ma.array(found, mask=mask)

    def summaries(self, mean: np.ndarray, drawn: list[np.ndarray], cuts: list[Cut]) -> np.ndarray:
        """Measure reconstructions and draws, (n, 2 * len(SUMMARIES)): values and deviations."""
        value = summarise(mean, cuts, self.row_order)
        others = [summarise(draw, cuts, self.row_order) for draw in drawn]
        sd = spread(np.reshape(others, (self.draws, *value.shape)))
        return np.stack([value, sd], axis=2).reshape(len(cuts), 2 * len(SUMMARIES))
