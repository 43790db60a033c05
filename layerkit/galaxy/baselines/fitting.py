"""Profiles fitted to images, one by one, over several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import joblib
import numpy as np

from layerkit.data.arrays import data_of, hidden, numbers
from layerkit.errors import DataError
from layerkit.inspection.display import short_repr
from layerkit.system.bars import bar

IMAGES_PER_TASK = 16


class ProfileFit(NamedTuple):
    """The profile closest to one image.

    Attributes:
        parameters: see the function that fits the profile.
        model: (H, W), float64: the profile on the image's pixels.
        squared_error: the sum over pixels of (model - image)^2.
        converged: True if the optimiser reached its gradient tolerance.
    """

    parameters: np.ndarray
    model: np.ndarray
    squared_error: float
    converged: bool

    def __repr__(self) -> str:
        return short_repr(self)


class ProfileFits(NamedTuple):
    """The profiles closest to N images; see ProfileFit.

    Attributes:
        parameters: (N, number of parameters).
        models: (N, H, W).
        squared_errors, converged: (N,).
    """

    parameters: np.ndarray
    models: np.ndarray
    squared_errors: np.ndarray
    converged: np.ndarray

    def __repr__(self) -> str:
        return short_repr(self)


def fit_profiles(
    fit: Callable[..., ProfileFit],
    name: str,
    workers: int | None,
    progress: bool,
    images: np.ndarray,
    *others: np.ndarray,
) -> ProfileFits:
    """Call fit(image, *its rows of others) for every image, over several processes.

    Args:
        fit: a function of a module, which other processes can import.
        name: of the fits, for the progress bar and for errors.
        workers: processes; None takes one per core.
        progress: shows a bar.
        images: (N, H, W), finite; a masked array's mask is a further argument of `fit`, `mask`.
        others: further arrays of N rows.

    Returns:
        The fits in the order of the images; they do not depend on the number of workers.

    Raises:
        DataError: the images are not (N, H, W), or one is not finite.
    """
    mask = hidden(images)
    images = numbers(data_of(images), f"{name}: the images", DataError)
    others = tuple(numbers(a, f"{name}: an array", DataError) for a in others)
    if any(len(rows) != len(images) if rows.ndim else True for rows in others):
        raise DataError(f"{name}: expected a row for each of the {len(images)} images")
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"{name}: expected images (N, H, W), got an array of {images.shape}")
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2)))
    if len(bad):
        raise DataError(f"{name}: image {bad[0]} has pixels that are not finite; leave it out")
    count = len(images)
    spans = [slice(i, i + IMAGES_PER_TASK) for i in range(0, count, IMAGES_PER_TASK)]
    workers = min(workers or joblib.cpu_count(), len(spans))
    # joblib's own processes, not multiprocessing: they neither fork a process with threads nor
    # import the caller's script again.
    run = joblib.Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)
    masks = [None if mask is None else mask[s] for s in spans]
    tasks = (
        joblib.delayed(_fit_each)(fit, masks[i], images[s], *(o[s] for o in others))
        for i, s in enumerate(spans)
    )
    fits: list[ProfileFit] = []
    with bar(count, name, "images", shown=progress) as moving:
        for done in run(tasks):
            fits.extend(done)
            moving.update(len(done))
    return ProfileFits(*(np.array(column) for column in zip(*fits, strict=True)))


def _fit_each(
    fit: Callable[..., ProfileFit], mask: np.ndarray | None, *rows: np.ndarray
) -> list[ProfileFit]:
    if mask is None or not mask.any():
        return [fit(*row) for row in zip(*rows, strict=True)]
    return [fit(*row, mask=own) for *row, own in zip(*rows, mask, strict=True)]
