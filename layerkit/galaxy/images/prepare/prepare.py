"""Preparation: cut the galaxies out of the pictures of a source and write them to a file."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layerkit.errors import DataError, brief
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.prepare.bit_depth import white_value
from layerkit.galaxy.images.prepare.workers import or_reason, results_of
from layerkit.galaxy.images.prepared import PREPARED_FORMAT, Writer
from layerkit.galaxy.images.sources.sources import Source
from layerkit.saving import hdf5
from layerkit.settings import Optional, Whole, accept, fitting
from layerkit.system.bars import watched
from layerkit.system.files import path_of


@dataclass(frozen=True)
class Report:
    """Counts and duration of one run of `prepare`.

    Attributes:
        read: pictures read.
        kept: galaxies written.
        excluded: pictures excluded, by reason, most frequent first.
        seconds: wall-clock time.
        first: id of the first picture that each reason excludes.
        before: pictures among those read that an earlier call had prepared.
    """

    read: int
    kept: int
    excluded: dict[str, int]
    seconds: float
    first: dict[str, str] = field(default_factory=dict)
    before: int = 0

    @property
    def images_per_second(self) -> float:
        """The pictures read per second of wall-clock time, the start of workers included."""
        return (self.read - self.before) / self.seconds

    def __str__(self) -> str:
        earlier = f", {self.before} of them earlier" if self.before else ""
        lines = [
            f"{self.read} images read in {self.seconds:.1f} s{earlier}"
            f" ({self.images_per_second:.0f} per second)",
            f"{self.kept:8d} kept ({self.kept / max(self.read, 1):.1%})",
        ]
        for reason, count in self.excluded.items():
            of = f" ({self.first[reason]})" if reason in self.first else ""
            of = of.replace("(", "(first ") if count > 1 else of
            lines.append(f"{count:8d} excluded: {reason}{of}")
        return "\n".join(lines)


@fitting(DataError)
@np.errstate(under="ignore")
def prepare(
    source: Source,
    output: str | os.PathLike,
    *,
    size: int = Settings.size,
    frame: float = Settings.frame,
    overlap: float = Settings.overlap,
    background: float = Settings.background,
    threshold: float = Settings.threshold,
    min_radius: float = Settings.min_radius,
    units: str = Settings.units,
    workers: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    origin: dict | None = None,
) -> Report:
    """Cut the galaxies out of the pictures of a source and write them to an HDF5 file.

    The file appears under its name only when it is complete.  Until then, its folder needs space
    for the images twice.  `load` reads it, and `GalaxySet` describes what it holds.

    Args:
        source: the pictures, as `open_source` returns them.
        output: the file to write; its folder is created if needed.
        size, frame, overlap, background, threshold, min_radius, units: see `Settings`.
        workers: number of processes, by default one per available core, or none for a small set.
            The result does not depend on it.
        limit: use only the first `limit` pictures.
        progress: show a progress bar on stderr, default True.
        origin: a JSON-like dict that says what the set is made of; `load` returns it.

    Returns:
        How many pictures were read, kept and excluded, and why.

    Raises:
        DataError: no picture is usable, the file cannot be written, an argument is out of range, or
            the source is none: its name and ids must be texts, and the ids unique.
    """
    settings = Settings(size, frame, overlap, background, threshold, min_radius, units)
    output = path_of(output, DataError)
    origin = None if origin is None else hdf5.plain(origin, "origin", DataError)
    limit = accept(Optional(Whole(least=1)), limit, "limit", "prepare", DataError)
    workers = accept(Optional(Whole(least=0)), workers, "workers", "prepare", DataError)
    check_source(source, "prepare")
    total = len(source) if limit is None else min(limit, len(source))
    start = time.perf_counter()
    counts, first = write_set(source, output, settings, total, workers, progress, origin)
    seconds = time.perf_counter() - start
    return Report(total, total - sum(counts.values()), counts, seconds, first)


def write_set(
    source: Source,
    output: Path,
    settings: Settings,
    total: int,
    workers: int | None = None,
    progress: bool = False,
    origin: dict | None = None,
    may_be_empty: bool = False,
) -> tuple[dict[str, int], dict[str, str]]:
    """Cut the galaxies out of the first `total` pictures, and write them to a file.

    Args:
        may_be_empty: whether a set without a single galaxy is written, or an error.

    Returns:
        The number of pictures excluded for each reason, most frequent first, and the id of the
        first picture that each reason excludes.

    Raises:
        DataError: see `prepare`.
    """
    excluded: dict[str, str] = {}
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise DataError(f"{output}: a folder; give the name of a file to write")
        if is_source_file(source, output):
            raise DataError(f"{output}: a file of the source; give the name of another to write")
        hdf5.refuse_other(output, DataError, PREPARED_FORMAT)
        writer = Writer(output.parent, settings.size, masks=settings.units == "linear")
    with writer:
        try:
            results = cuts(source, range(total), settings, workers)
            moving = watched(results, "prepare", "images", progress, total)
            for result, name in zip(moving, source.ids, strict=False):
                if isinstance(result, str):
                    excluded[name] = result
                else:
                    image, cut = result
                    with _writing(output):
                        writer.add(
                            name,
                            image,
                            crops=(cut.y0, cut.x0, cut.side),
                            scales=cut.side / settings.size,
                            stretches=(cut.sky, cut.spread, cut.white),
                        )
        except OSError as error:
            # Errors of pictures are among the results; so a process or stderr failed.
            raise DataError(
                f"{source.name}: preparing stopped ({error.strerror or error}); try workers=1 where"
                " no process can be started, progress=False where stderr cannot be written"
            ) from error
        except BrokenProcessPool as error:
            raise DataError(
                f"{source.name}: a worker process was killed, perhaps for lack of memory;"
                " try workers=1"
            ) from error
        counts = dict(Counter(excluded.values()).most_common())
        if len(excluded) == total and not may_be_empty:
            raise none_usable(source.name, total, counts)
        about = {
            "source": source.name, "read": total, "settings": asdict(settings), "origin": origin,
            "row_order": getattr(source, "row_order", "top"),
        }  # fmt: skip
        with _writing(output):
            writer.save(output, excluded, about)
    return counts, {reason: name for name, reason in reversed(excluded.items())}


def none_usable(name: str, total: int, counts: dict[str, int]) -> DataError:
    """Make the error about pictures of which none is usable, with the reasons."""
    why = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return DataError(f"{name}: no usable galaxy in {total} images ({why})")


def check_source(source: Any, caller: str) -> None:
    """Refuse what is not a source, and a source that `load` could not read from the file.

    Args:
        source: anything.
        caller: the function that was given it, for messages.
    """
    if not all(hasattr(source, name) for name in ("name", "ids", "read", "__len__")):
        raise DataError(
            f"{caller}: expected a source of pictures, got {brief(source)}; open a path with "
            "open_source()"
        )
    if not isinstance(source.name, str):
        raise DataError(f"{caller}: the name of a source must be text, got {brief(source.name)}")
    order = getattr(source, "row_order", "top")
    if order not in ("top", "bottom"):
        raise DataError(
            f"{source.name}: row_order must be 'top' or 'bottom', where the first row of a picture "
            f"is displayed, got {brief(order)}"
        )
    if not (isinstance(source.ids, Iterable) and isinstance(source.ids, Sized)):
        raise DataError(f"{source.name}: ids must be a list of texts, got {brief(source.ids)}")
    if wrong := [x for x in source.ids if not isinstance(x, str)]:
        raise DataError(
            f"{source.name}: the id of a picture must be text, got {brief(wrong[0])}; make it so: "
            "ids = [str(x) for x in ids]"
        )
    if len(source.ids) != len(source) or len(set(source.ids)) != len(source):
        raise DataError(
            f"{source.name}: expected a unique id for each of {len(source)} pictures, got "
            f"{len(source.ids)}, {len(set(source.ids))} of them different"
        )


def is_source_file(source: Source, output: Path) -> bool:
    """Tell whether a source reads pictures from a file."""
    path = getattr(source, "path", None)
    if path is None or not (output.exists() and Path(path).exists()):
        return False
    if not Path(path).is_dir():
        return os.path.samefile(path, output)
    files = {os.path.realpath(Path(path, name)) for name in getattr(source, "files", ())}
    return os.path.realpath(output) in files


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn an OSError into an error that names the file to be written."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True)
class Cutter:
    """The job of cutting out picture `i`: the galaxy and its square, or the reason why not."""

    source: Source
    settings: Settings
    white: float

    def __call__(self, i: int) -> Any:
        """Return the result."""
        return or_reason(lambda: self.cut(i))

    def cut(self, i: int) -> Any:
        """Return the galaxy and its square.

        Raises:
            UnusableImageError: see `cut_out`.
        """
        return cut_out(self.read(i)[0], self.settings, self.white)

    def read(self, i: int) -> tuple[np.ndarray, Planes]:
        """Return picture `i`, and what its file says of its pixels if it is in physical units.

        In linear units the pixels that its mask leaves out, or without a variance, are NaN.
        """
        picture, planes = self.source.read(i), getattr(self.source, "planes", None)
        if planes is None or picture.dtype != np.float64:
            return picture, Planes()
        found = planes(i)
        if self.settings.units == "linear":
            if found.missing is not None:
                picture = np.where(found.missing, np.nan, picture)
            if found.variance is not None:
                picture = np.where(np.isfinite(found.variance), picture, np.nan)
        return picture, found


def cuts(
    source: Source,
    items: Sequence[int],
    settings: Settings,
    workers: int | None = None,
    job: type[Cutter] = Cutter,
) -> Iterator[Any]:
    """Cut the galaxies out of pictures.

    Args:
        source: the pictures.
        items: numbers of the pictures to use.
        settings: of the crop.
        workers: see `prepare`.
        job: what is done to each; by default it is cut out.

    Returns:
        For each picture, in order, the image and its `Cut`, or the reason why it is excluded.
    """
    white = getattr(source, "white", None)  # of a part of a source, whose other parts count, too
    if white is None:
        white = white_value(source, items, workers)
    return results_of(job(source, settings, white), items, workers)
