"""Latent coverage: whether z scatters as much, when noise is drawn anew, as its posterior says.

Coverage of pixels does not show it.  Noise moves z by more ways than the likelihood knows: pixels
of an enlarged crop share their noise, and so do those of any resampled one; the crop itself, its
centre and size, and the scaling of brightness are measured from noisy pixels; and a posterior with
independent axes is narrower than the true one along each axis where axes go together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.crop import DEEPEST, Settings, cut_out
from layerkit.galaxy.images.decode.blank import no_data
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepared import GalaxySet, is_prepared
from layerkit.galaxy.images.sources.sources import open_source
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.refinement import refine
from layerkit.settings import fitting

DRAWS = 8
SHARE = 0.5  # of its noise that a picture gets again, where it has noise already
WITHIN = 0.683  # of a normal distribution lies within one standard deviation
HOTTEST = 1e6  # temperature, at which nothing is left of the likelihood but its mean
MOST = 60  # pictures that are prepared and refined anew
FEWEST = 8  # pictures from which a temperature is chosen

Cutter = Callable[[np.ndarray], np.ndarray]


class LatentCoverage(NamedTuple):
    """How far z scattered over draws of noise, and how far it should have.

    Attributes:
        kept: of the pictures given, those that could be prepared under each draw, (n,).
        deviation: of the posterior's mean from its average over the draws of one picture, scaled
            to the full noise and freed of the bias of so few draws, (n, draws, latent).
        sd: of the posterior, (n, draws, latent).
    """

    kept: np.ndarray
    deviation: np.ndarray
    sd: np.ndarray

    @property
    def tells(self) -> bool:
        """Tell whether there are pictures enough to choose a temperature by."""
        return len(self.kept) >= FEWEST

    @property
    def ratios(self) -> np.ndarray:
        """Scatter over standard deviation of each picture and axis, (n, latent)."""
        return np.sqrt((self.deviation**2).mean(axis=1) / (self.sd**2).mean(axis=1))

    @property
    def ratio(self) -> np.ndarray:
        """Scatter over standard deviation on each axis, the median of the pictures, (latent,)."""
        return np.median(self.ratios, axis=0)

    @property
    def within(self) -> np.ndarray:
        """Share of the draws within 1 and 2 standard deviations, (2, latent)."""
        score = np.abs(self.deviation) / self.sd
        return np.stack([(score <= k).mean(axis=(0, 1)) for k in (1, 2)])

    def temperature(self) -> np.ndarray:
        """The least temperature of each axis, 1 or more, at which coverage is nominal, (latent,).

        At it 68.3% of the draws lie within one standard deviation; see `GalaxyModel.temper`.  A
        quantile, unlike a mean square, is not decided by the few galaxies of which noise makes
        others, such as those whose angle flips.  Ones where there are too few pictures to tell.
        """
        latent = self.sd.shape[-1]
        if not self.tells:
            return np.ones(latent)
        told = (self.sd.reshape(-1, latent) ** -2 - 1).clip(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # The precision that puts a draw at one standard deviation, less that of the prior.
            allowed = (self.deviation.reshape(-1, latent) ** -2 - 1).clip(0)
            needed = np.where(told > 0, told / allowed, 1.0)
        return np.quantile(needed, WITHIN, axis=0, method="higher").clip(1, HOTTEST)

    def untempered(self, temperature: np.ndarray) -> LatentCoverage:
        """Take the model's temperature, (latent,), back out of the standard deviations."""
        told = (self.sd**-2 - 1).clip(0) * temperature
        return self._replace(sd=np.minimum(self.sd, (1 + told) ** -0.5))

    def metrics(self) -> dict[str, Any]:
        """Give what goes into metrics.json."""
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
    refine_steps: int = 100,
    tempered: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> LatentCoverage:
    """Prepare and refine each picture under several draws of noise, and compare with q(z | x).

    Args:
        model: the model, standardised.
        pictures: as `Source.read` returns them, or simulated ones without noise.
        noise: standard deviation of a pixel, of all pictures or of each, in the pictures' units;
            None measures the sky's in each (`sky_noise`), and leaves out those that have none.
        draws: of noise for each picture, 2 or more.
        share: of the noise that is added, and by which the scatter is divided.  Pictures without
            noise take all of it, 1; those that have it take `SHARE`: so they stay nearly as noisy
            as they were, and what preparation does to them stays what it was.
        cut: prepares a picture for the model or raises `UnusableImageError`; by default `cut_out`
            to the side of the model's images.
        refine_steps: see `refine`; 0 takes what g says.
        tempered: whether standard deviations are the model's tempered ones.
        seed: of the noise.
        progress: shows a bar.

    Raises:
        DataError: fewer than two draws, a noise or share that is no positive number, or no picture
            that can be prepared under each draw.
    """
    if draws < 2 or not (np.isfinite(share) and 0 < share <= 1):
        raise DataError(
            "latent_coverage: expected 2 draws or more and a share of the noise above 0 and up to "
            f"1, got draws={draws} and share={share}"
        )
    views, kept = redraw(
        pictures, noise, draws, share=share, cut=cut or _cutter(model), seed=seed, progress=progress
    )
    flat = views.reshape(-1, *views.shape[2:])
    posterior = refine(model, flat, refine_steps, progress, tempered=tempered)
    mean, sd = (a.reshape(len(kept), draws, -1).astype("float64") for a in posterior)
    deviation = (mean - mean.mean(axis=1, keepdims=True)) * np.sqrt(draws / (draws - 1)) / share
    return LatentCoverage(kept, deviation, sd)


class SourcePictures:
    """The pictures that prepared galaxies were cut from, read again when they are iterated over.

    Args:
        path: where the pictures are; see `open_source`.  A prepared set has none any more, and so
            has a source that has changed since: then there is nothing to iterate over.
        galaxies: prepared from them.
        rows: which of them.
        most: of these, evenly spread.
        options: for `open_source`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        galaxies: GalaxySet,
        rows: np.ndarray,
        most: int = MOST,
        **options: Any,
    ):
        self.galaxies, self.items = galaxies, list[tuple[int, int]]()
        if is_prepared(path):
            return
        self.source = open_source(path, **options)
        place = {name: i for i, name in enumerate(self.source.ids)}
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
        known = [(int(row), place.get(galaxies.ids[row])) for row in rows]
        self.items = [(row, i) for row, i in known if i is not None]
        deep = set(getattr(self.source, "deep", ()))
        of_deep = [row for row, name in enumerate(galaxies.ids) if place.get(name) in deep]
        # One white for all pictures of 16 bits.
        self.white = float(galaxies.stretches[of_deep[0], 2]) if of_deep else DEEPEST

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, i in self.items:
            with contextlib.suppress(UnusableImageError, OSError):  # changed or gone meanwhile
                yield self.source.read(i)

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Prepare a picture as those of the set were; one that fails is unusable, as there."""
        try:
            return cut_out(picture, Settings(**self.galaxies.settings), self.white)[0]
        except UnusableImageError:
            raise
        except Exception as error:  # a trained model waits to be saved
            raise UnusableImageError(f"fails with {type(error).__name__}") from error


@fitting(DataError)
@np.errstate(under="ignore")
def redrawn_coverage(
    model: GalaxyModel,
    pictures: SourcePictures,
    refine_steps: int = 100,
    progress: bool = False,
    tempered: bool = True,
) -> LatentCoverage | None:
    """Measure `latent_coverage` on real pictures, which have noise already and get `SHARE` more.

    Args:
        model: the model.
        pictures: best of galaxies that training never saw; others, too, where these are few.
        refine_steps, progress, tempered: see `latent_coverage`.

    Returns:
        What was found; None where there are no pictures, or none that can be prepared anew.
    """
    if not len(pictures):
        return None
    try:
        return latent_coverage(
            model,
            pictures,
            share=SHARE,
            cut=pictures.cut,
            refine_steps=refine_steps,
            progress=progress,
            tempered=tempered,
        )
    except DataError:
        return None


def redraw(
    pictures: Iterable[np.ndarray],
    noise: float | Sequence[float] | np.ndarray | None,
    draws: int,
    *,
    share: float,
    cut: Cutter,
    seed: int = 0,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Prepare pictures under draws of noise: (n, draws, ...), and which pictures these are, (n,).

    A picture that cannot be prepared under one of the draws is left out: it lies at a limit of what
    preparation keeps, and what is left of its draws would be chosen by their noise.

    Args and raises: see `latent_coverage`.
    """
    rng = np.random.default_rng(seed)
    given = repeat(noise) if noise is None or np.ndim(noise) == 0 else iter(np.asarray(noise))
    views, kept = [], []
    bar = tqdm(pictures, desc="redrawing noise", unit="image", disable=not progress)
    for i, picture in enumerate(bar):
        sd = next(given, np.nan)
        if measured := sd is None:
            sd = sky_noise(picture)
        if measured and sd == 0:
            continue
        if not (np.isfinite(sd) and sd > 0):
            raise DataError(
                f"latent_coverage: the noise of picture {i} must be a positive number, got {sd}; "
                "give noise=, one number or one for each picture"
            )
        missing = _missing(picture)
        try:
            views.append(
                [cut(_noisy(picture, share * float(sd), missing, rng)) for _ in range(draws)]
            )
        except UnusableImageError:
            continue
        kept.append(i)
    if not kept:
        raise DataError(
            "latent_coverage: no picture can be prepared under each draw of noise, or none has any "
            "noise to measure; give noise="
        )
    return np.asarray(views), np.array(kept)


def sky_noise(picture: np.ndarray) -> float:
    """Measure the noise of a pixel of the sky: 1.4826 times the median absolute deviation.

    It is that of pixels with data that are not clipped: four times over those more than three
    deviations above the sky are.  In pictures of whole numbers, and of 8 bits in 0..1, where the
    sky may be black to the last bit, it is never below half a step.  In others, where more than
    half of the pixels are equal, as counts of few photons are, it is the standard deviation of the
    darkest 90%; 0 where these are all equal.
    """
    values = np.asarray(picture, "float64")[~_missing(picture)]
    step = 1.0 if picture.dtype.kind in "iu" else 1 / 255 if picture.dtype == np.float32 else 0.0
    seen, noise = values, 0.0
    for _ in range(4):
        if not seen.size:
            break
        level = float(np.median(seen))
        noise = max(1.4826 * float(np.median(np.abs(seen - level))), 0.5 * step)
        seen = seen[seen <= level + 3 * noise]
    if noise == 0 and values.size:
        noise = float(values[values <= np.percentile(values, 90)].std())
    return noise


def _missing(picture: np.ndarray) -> np.ndarray:
    """Mask of the pixels that `cut_out` takes for no data, which noise would hide from it."""
    if picture.ndim != 2:
        return ~np.isfinite(picture)
    gaps = no_data(picture if picture.dtype == np.float64 else np.asarray(picture, np.float32))
    return np.zeros(picture.shape, bool) if gaps is None else gaps.anywhere


def _noisy(
    picture: np.ndarray, sd: float, missing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The picture with noise added, of the type that says what its numbers mean."""
    noisy = np.where(missing, picture, picture + sd * rng.standard_normal(picture.shape))
    if picture.dtype.kind in "iu":
        limits = np.iinfo(picture.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return noisy.astype(picture.dtype)


def _cutter(model: GalaxyModel) -> Cutter:
    """`cut_out` to the side of the model's images."""
    side = round(model.pixels**0.5)
    if side * side != model.pixels:
        raise DataError(
            f"latent_coverage: the model's images have {model.pixels} pixels and are no squares; "
            "give cut=, which prepares a picture"
        )
    return lambda picture: cut_out(picture, Settings(size=side))[0]
