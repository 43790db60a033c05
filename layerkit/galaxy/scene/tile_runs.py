"""Runs over the tiles of a field: one after another or several at once, and kept for a resume."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.scene.inference.choosing import settle
from layerkit.galaxy.scene.inference.fitting import Pixels
from layerkit.galaxy.scene.inference.tiles import Tile
from layerkit.galaxy.scene.model.layout import Source
from layerkit.galaxy.scene.model.light import Light
from layerkit.galaxy.scene.results.catalogue import Row, rows_of
from layerkit.system.files import path_of, write_atomically

KEPT = re.compile(r"[0-9a-f]{24}\.npz")  # named by Job.key
SOURCE_NOISE = 0.3  # deviations of the sky's noise: fainter models tell nothing of a gain


@dataclasses.dataclass
class Job:
    """A tile to be fitted.

    Attributes:
        cut: where it lies in the field.
        part: its pixels.
        sources: what was detected in it, in its own coordinates.
        star: prior probability of a star.
        threshold: least signal to noise of a source.
        samples: draws to return from each posterior.
        source_noise: True adds the noise of the sources' own light to that of the pixels.
        gain: electrons for each unit of brightness; None estimates it from the residuals.
    """

    cut: Tile
    part: Pixels
    sources: list[Source]
    star: float
    threshold: float
    samples: int
    source_noise: bool
    gain: float | None

    def key(self) -> str:
        """Return a name that two jobs share if, but for the code, their results must be alike."""
        whole = hashlib.sha256()
        light = self.part.light
        arrays = (self.part.values, self.part.weights, self.part.psfs)
        for array in (*arrays, *_looks(light)):
            whole.update(np.ascontiguousarray(array).tobytes())
        numbers = (self.cut, self.sources, self.star, self.threshold, self.samples)
        noise = (self.source_noise, self.gain)
        whole.update(repr((*numbers, *noise, type(light).__name__, light.names)).encode())
        return whole.hexdigest()[:24]


@dataclasses.dataclass
class Done:
    """A fitted tile: rows of the catalogue, and model and weights of its core."""

    rows: list[Row]
    model: np.ndarray
    weights: np.ndarray

    def save(self, path: Path) -> None:
        """Write an NPZ file."""
        names = [field.name for field in dataclasses.fields(Row)]
        columns = {n: np.array([getattr(row, n) for row in self.rows]) for n in names}

        def write(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez(
                    file, allow_pickle=False, model=self.model, weights=self.weights, **columns
                )

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path) -> Done:
        """Read what `save` wrote."""
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        model, weights = arrays.pop("model"), arrays.pop("weights")
        arrays["tile"] = [tuple(tile) for tile in arrays["tile"].tolist()]
        rows = [Row(**{n: a[i] for n, a in arrays.items()}) for i in range(len(arrays["x"]))]
        return cls(rows, model, weights)


def _looks(light: Light) -> list[np.ndarray]:
    """Return numbers by which kinds of light differ: the prior, and profiles under it."""
    mean, deviation = np.array(light.mean, float), np.array(light.deviation, float)
    steps = np.diag(deviation)
    latents = np.stack([mean, *(mean + steps), *(mean - steps), mean + deviation])
    u = np.tile(np.geomspace(0.05, 20, 24), (len(latents), 1))
    return [mean, deviation, np.asarray(light.transform(np, latents, u, u / 2)[0], float)]


def _is_whole(path: Path) -> bool:
    """Tell whether a file holds a fitted tile; one that was damaged is fitted again."""
    try:
        Done.load(path)
    except Exception:  # of any kind, from readers of damaged files
        return False
    return True


def fit_tile(job: Job, tell: Callable[[str], None] = lambda line: None) -> Done:
    """Fit the sources of a tile."""
    reweigh = _reweighing(job.part, job.gain) if job.source_noise else None
    known, choices, part = settle(
        job.part, job.sources, star=job.star, threshold=job.threshold, reweigh=reweigh, tell=tell
    )
    inner = (slice(None), *job.cut.core_within)
    rows = rows_of(known, choices, part, job.cut, job.samples)
    return Done(rows, known.image[inner], part.weights[inner])


def fit_tiles(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    folder: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Done]:
    """Fit tiles, and give their results in order.

    Args:
        jobs: the tiles.
        workers: processes; 1 fits in this one.
        folder: keeps each fitted tile, if there are several, and is looked in first; None keeps
            nothing.
        tell: called with a line about every stage.

    Raises:
        DataError: the folder cannot be written to.
    """
    paths: list[Path | None] = [None] * len(jobs)
    if folder is not None and len(jobs) > 1:
        at = path_of(folder, DataError)
        try:
            at.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{at}: cannot make this folder: {error.strerror}") from error
        paths = [at / f"{job.key()}.npz" for job in jobs]
    kept = [path is not None and _is_whole(path) for path in paths]
    if any(kept):
        tell(f"{sum(kept)} of {len(jobs)} tiles were fitted before")
    missing = [job for job, there in zip(jobs, kept, strict=True) if not there]
    fitted = _fitted(missing, workers, tell)
    for number, (path, there) in enumerate(zip(paths, kept, strict=True)):
        if there and path is not None:
            yield Done.load(path)
            continue
        done = next(fitted)
        if path is not None:
            done.save(path)
        if len(jobs) > 1:
            tell(f"tile {number + 1} of {len(jobs)}: {len(done.rows)} sources")
        yield done


def discard(folder: str | os.PathLike[str]) -> None:
    """Remove the tiles kept in a folder, and the folder, unless something else is in it."""
    at = Path(folder)
    for path in at.glob("*.npz"):
        if KEPT.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        at.rmdir()


def _fitted(jobs: Sequence[Job], workers: int, tell: Callable[[str], None]) -> Iterator[Done]:
    """Fit jobs, several at once where there are more workers and jobs than one."""
    if min(workers, len(jobs)) < 2:
        yield from (fit_tile(job, tell) for job in jobs)
        return
    import joblib  # slow to import, and one tile does without

    # joblib's own processes, not multiprocessing: they neither fork a process with threads nor
    # import the caller's script again.
    run = joblib.Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)
    try:
        yield from run(joblib.delayed(fit_tile)(job) for job in jobs)
    except pickle.PicklingError as error:
        reason = error.__cause__ or error
        raise DataError(
            f"workers={workers}: the light cannot go to other processes ({reason}); give workers=1"
        ) from error


def _reweighing(part: Pixels, gain: float | None) -> Callable[[np.ndarray], Pixels]:
    """Return a function that adds the noise of the sources' own light to the weights."""
    first = part.weights

    def reweigh(image: np.ndarray) -> Pixels:
        light = np.maximum(image, 0)
        used = first > 0
        variance = np.where(used, 1 / np.maximum(first, 1e-300), 0)
        for b in range(len(image)):
            rate = 0.0 if gain is None else 1 / gain
            bright = used[b] & (light[b] ** 2 * first[b] > SOURCE_NOISE**2)
            if gain is None and bright.sum() > 20:
                excess = (part.values[b] - image[b])[bright] ** 2 - variance[b][bright]
                # Weighted towards faint pixels, as the excess scatters by its own variance, which
                # is not known: light is taken in units of the noise.
                expected, own = light[b][bright], variance[b][bright]
                noise = np.sqrt(np.median(own))
                trust = 1 / (own + noise * expected * expected / expected.mean()) ** 2
                rate = float((trust * expected * excess).sum() / (trust * expected**2).sum())
            variance[b] += np.maximum(rate, 0) * light[b]
        weights = np.where(used, 1 / np.where(used, variance, 1), 0)
        return dataclasses.replace(part, weights=weights)

    return reweigh
