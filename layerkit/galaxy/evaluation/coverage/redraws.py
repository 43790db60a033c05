"""Redraws: pictures prepared again under new draws of noise, and the noise of a sky."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import numpy as np
from tqdm import tqdm

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.blank import no_data
from layerkit.galaxy.images.decode.bounds import UnusableImageError

NORMAL_SD_OVER_MAD = 1.4826  # a normal distribution's standard over median absolute deviation

Cutter = Callable[[np.ndarray], np.ndarray]


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
    """Prepare pictures under several draws of noise.

    A picture that cannot be prepared under one of the draws is left out: it is only just usable,
    and the noise would select the draws that remain.

    Args:
        pictures, noise, draws, share, cut, seed, progress: see `latent_coverage`.

    Returns:
        The prepared images, (n, draws, ...), and the indices of their pictures, (n,).

    Raises:
        DataError: a noise that is not a positive number, or no picture that can be prepared under
            each draw.
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
            "latent_coverage: no picture can be prepared under each draw of noise, or none has "
            "noise that could be measured; give noise="
        )
    return np.asarray(views), np.array(kept)


def sky_noise(picture: np.ndarray) -> float:
    """Measure the noise of a sky pixel: 1.4826 times the median absolute deviation.

    Pixels without data are ignored, and those more than three deviations above the sky are clipped,
    four times over.  In integers, and in 8-bit pictures scaled to 0..1, the sky may be black to the
    last bit, so the noise is at least half a step.  In other pictures, if more than half of the
    pixels are equal, as in counts of few photons, it is the standard deviation of the darkest 90%,
    and 0 if those are all equal.

    Args:
        picture: as `Source.read` returns it.
    """
    values = np.asarray(picture, "float64")[~_missing(picture)]
    step = 1.0 if picture.dtype.kind in "iu" else 1 / 255 if picture.dtype == np.float32 else 0.0
    seen, noise = values, 0.0
    for _ in range(4):
        if not seen.size:
            break
        level = float(np.median(seen))
        noise = max(NORMAL_SD_OVER_MAD * float(np.median(np.abs(seen - level))), 0.5 * step)
        seen = seen[seen <= level + 3 * noise]
    if noise == 0 and values.size:
        noise = float(values[values <= np.percentile(values, 90)].std())
    return noise


def _missing(picture: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels that `cut_out` treats as no data; noise would hide them."""
    if picture.ndim != 2:
        return ~np.isfinite(picture)
    gaps = no_data(picture if picture.dtype == np.float64 else np.asarray(picture, np.float32))
    return np.zeros(picture.shape, bool) if gaps is None else gaps.anywhere


def _noisy(
    picture: np.ndarray, sd: float, missing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Add noise to a picture and keep its dtype, which tells how its numbers are scaled."""
    noisy = np.where(missing, picture, picture + sd * rng.standard_normal(picture.shape))
    if picture.dtype.kind in "iu":
        limits = np.iinfo(picture.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return noisy.astype(picture.dtype)
