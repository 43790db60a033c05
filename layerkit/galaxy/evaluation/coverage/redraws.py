"""Redraws: pictures prepared again under new draws of noise, and the noise of a sky."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from layerkit.data.arrays import data_of, joined, mask_of, numbers
from layerkit.errors import DataError
from layerkit.galaxy.images.decode.blank import no_data
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.decode.pixels import LIGHT, as_picture, check_light
from layerkit.settings import Number, Optional, accept
from layerkit.system.bars import watched

NORMAL_SD_OVER_MAD = 1.4826  # a normal distribution's standard over median absolute deviation

Cutter = Callable[[np.ndarray], np.ndarray]


class NoPictureError(DataError):
    """No picture that can be prepared under each draw of noise."""


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
        NoPictureError: no picture can be prepared under each draw.
        DataError: a picture, a noise or a result of `cut` that is not an array of numbers, or a
            noise that is not positive.
    """
    rng = np.random.default_rng(seed)
    given = _noises(noise)
    views: list[list[np.ndarray]] = []
    kept, reasons = [], Counter[str]()
    for i, picture in enumerate(watched(pictures, "redrawing noise", "images", progress)):
        try:
            sd = next(given)
        except StopIteration:
            raise DataError(
                f"latent_coverage: noise has {i} numbers and there are more pictures; give one "
                "number, or one for each picture"
            ) from None
        try:
            picture = _picture(picture, i)
            if measured := sd is None:
                sd = sky_noise(picture)
            if measured and not (np.isfinite(sd) and sd > 0):
                raise UnusableImageError("without noise that could be measured, give noise=")
            if not (np.isfinite(sd) and sd > 0):
                raise DataError(
                    f"latent_coverage: the noise of picture {i} must be a positive number, got "
                    f"{sd}; give noise=, one number or one for each picture"
                )
            missing = _missing(picture)
            cuts = [cut(_noisy(picture, share * float(sd), missing, rng)) for _ in range(draws)]
        except UnusableImageError as error:
            reasons[str(error)] += 1
            continue
        for view in cuts:
            numbers(data_of(view), "latent_coverage: the result of cut", DataError)
        views.append([np.ma.asarray(view) for view in cuts])
        if len({view.shape for view in (*views[0], *views[-1])}) > 1:
            raise DataError(
                "latent_coverage: cut must return images of one shape, got "
                f"{views[0][0].shape} and {views[-1][0].shape}"
            )
        kept.append(i)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise NoPictureError(
            "latent_coverage: no picture can be prepared under each draw of noise "
            f"({why or 'there is none'})"
        )
    found = joined([view[None] for each in views for view in each])
    return found.reshape(len(views), draws, *found.shape[1:]), np.array(kept)


def _noises(noise: Any) -> Iterator[Any]:
    """Return the noise of each picture, None where it is to be measured."""
    if noise is None or np.isscalar(noise) or getattr(noise, "ndim", 1) == 0:
        rule = Optional(Number(above=0))
        return repeat(accept(rule, noise, "noise", "latent_coverage", DataError))
    many = numbers(noise, "latent_coverage: noise", DataError)
    if many.ndim != 1:
        raise DataError(
            "latent_coverage: noise must be one number, or one for each picture, got an array of "
            f"shape {many.shape}"
        )
    return iter(many)


def _picture(picture: Any, i: int) -> np.ndarray:
    """Return a picture as an array, masked pixels as NaN.

    Raises:
        UnusableImageError: `cut_out` takes no such picture.
    """
    if (mask := mask_of(picture)) is not None and mask.any():
        return as_picture(picture)
    picture = numbers(picture, f"latent_coverage: picture {i}", DataError)
    if picture.ndim < 2:
        raise DataError(
            f"latent_coverage: picture {i} must be an array (height, width), got shape "
            f"{picture.shape}; give a list of pictures, also of one"
        )
    check_light(picture)
    return picture


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
    if picture.dtype == np.float32:  # noise does not make counts of light
        noisy = np.clip(noisy, *LIGHT)
    if picture.dtype.kind in "iu":
        limits = np.iinfo(picture.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return noisy.astype(picture.dtype)
