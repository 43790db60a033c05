"""Pictures of galaxies to a training set: find the galaxy, cut it out, judge it, scale it down.

After section 4 of Regier, McAuliffe and Prabhat (2015): each picture is cropped to a square around
its most prominent galaxy, in proportion to the galaxy's size; pictures in which other bright
objects overlap it are left out; what remains is brought to 69 x 69 pixels.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from layerkit import hdf5
from layerkit.errors import DataError, brief
from layerkit.files import path_of
from layerkit.galaxy.images.crop.crop import DEEPEST, Cut, Settings, cut_out, resample
from layerkit.galaxy.images.prepare.workers import or_reason, results_of
from layerkit.galaxy.images.prepared import Writer
from layerkit.galaxy.images.sources.sources import Source
from layerkit.settings import Optional, Whole, accept, fitting

T = TypeVar("T")

__all__ = ["Cut", "Report", "Settings", "cut_out", "cuts", "prepare", "resample"]

MARK = 65535


@dataclass(frozen=True)
class Report:
    """What `prepare` did: pictures read and kept, why the others were not, and how fast."""

    read: int
    kept: int
    excluded: dict[str, int]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Pictures read per second of wall-clock time, start of the workers included."""
        return self.read / self.seconds

    def __str__(self) -> str:
        lines = [
            f"{self.read} images read in {self.seconds:.1f} s"
            f" ({self.images_per_second:.0f} per second)",
            f"{self.kept:8d} kept ({self.kept / max(self.read, 1):.1%})",
        ]
        lines += [f"{count:8d} excluded: {reason}" for reason, count in self.excluded.items()]
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
    workers: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    origin: dict | None = None,
) -> Report:
    """Write the usable galaxies of `source` to the HDF5 file `output`, and say what was left out.

    size, frame, overlap, background, threshold and min_radius are explained in `Settings`.
    workers: processes, by default one for each core this process may use, and none for a small
    set; the result does not depend on it.  limit: only the first so many pictures.  progress: show
    a bar on stderr.

    origin: what the set is made of, stored with it and given back by `load`: a dict of what JSON
    can hold.

    The file holds `images` float32 (N, size, size) in 0..1, in the order of the source; `crops`
    float64 (N, 3) y0, x0, side in source pixels; `scales` float64 (N,) source pixels per output
    pixel; `stretches` float64 (N, 3) sky, spread, white (see `scaling`); and as attributes, in
    JSON, `ids`; `excluded` (id to reason); and `about`, the source's name, the number of pictures
    read, the settings and the origin.  It is complete, with a checksum, before it appears under its
    name.  While it is written its folder needs room for the images twice.

    Raises `DataError` where no picture is usable, the file cannot be written or a setting is bad.
    """
    settings = Settings(size, frame, overlap, background, threshold, min_radius)
    output = path_of(output, DataError)
    origin = None if origin is None else hdf5.plain(origin, "origin", DataError)
    limit = accept(Optional(Whole(least=1)), limit, "limit", "prepare", DataError)
    workers = accept(Optional(Whole(least=0)), workers, "workers", "prepare", DataError)
    _check_source(source)
    total = len(source) if limit is None else min(limit, len(source))
    start = time.perf_counter()
    excluded: dict[str, str] = {}
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise DataError(f"{output}: a folder; give the name of a file to write")
        if is_of(source, output):
            raise DataError(f"{output}: a file of the source; give the name of another to write")
        writer = Writer(output.parent, size)
    with writer:
        try:
            results = cuts(source, range(total), settings, workers)
            bar = tqdm(results, total=total, desc="prepare", unit="image", disable=not progress)
            for result, name in zip(bar, source.ids, strict=False):
                if isinstance(result, str):
                    excluded[name] = result
                else:
                    image, cut = result
                    with _writing(output):
                        writer.add(
                            name,
                            image,
                            crops=(cut.y0, cut.x0, cut.side),
                            scales=cut.side / size,
                            stretches=(cut.sky, cut.spread, cut.white),
                        )
        except OSError as error:
            # A picture's own errors are among the results: this is no process, or no stderr.
            raise DataError(
                f"{source.name}: preparing stopped ({error.strerror or error}); try workers=1 where"
                " no process can be started, progress=False where stderr cannot be written"
            ) from error
        except BrokenProcessPool as error:
            raise DataError(
                f"{source.name}: a worker process was killed, perhaps for want of memory;"
                " try workers=1"
            ) from error
        counts = dict(Counter(excluded.values()).most_common())
        if len(excluded) == total:
            why = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            raise DataError(f"{source.name}: no usable galaxy in {total} images ({why})")
        about = {
            "source": source.name, "read": total, "settings": asdict(settings), "origin": origin,
            "row_order": getattr(source, "row_order", "top"),
        }  # fmt: skip
        with _writing(output):
            writer.save(output, excluded, about)
    return Report(total, total - len(excluded), counts, time.perf_counter() - start)


def _check_source(source: Any) -> None:
    """Refuse what is no source of pictures, or one whose pictures have no ids of their own."""
    if not all(hasattr(source, name) for name in ("name", "ids", "read", "__len__")):
        raise DataError(
            f"prepare: expected a source of pictures, got {brief(source)}; make one of a path with "
            "open_source()"
        )
    if len(source.ids) != len(source) or len(set(source.ids)) != len(source):
        raise DataError(
            f"{source.name}: {len(source)} pictures must have as many ids, each its own; there are "
            f"{len(source.ids)}, and {len(set(source.ids))} different ones"
        )


def is_of(source: Source, output: Path) -> bool:
    """Say whether a file is one that the source reads its pictures from."""
    path = getattr(source, "path", None)
    if path is None or not (output.exists() and Path(path).exists()):
        return False
    if not Path(path).is_dir():
        return os.path.samefile(path, output)
    files = {os.path.realpath(Path(path, name)) for name in getattr(source, "files", ())}
    return os.path.realpath(output) in files


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Say which file could not be written."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from error


Result = str | tuple[np.ndarray, Cut]


@dataclass(frozen=True)
class _Cutter:
    """The job of preparing: picture `i` prepared, or the reason why not."""

    source: Source
    settings: Settings
    white: float

    def __call__(self, i: int) -> Result:
        return or_reason(lambda: cut_out(self.source.read(i), self.settings, self.white))


@dataclass(frozen=True)
class _Largest:
    """The job of finding the largest value in picture `i` that an adjacent pixel confirms."""

    source: Source

    def __call__(self, i: int) -> int | str:
        return or_reason(lambda: largest_value(self.source.read(i)))


def largest_value(image: np.ndarray) -> int:
    """The largest value of a uint16 picture that two pixels side by side reach, so no hot one.

    The largest of all, 65535, is a mark of saturated or bad pixels where nothing comes near it.
    """
    largest = _largest_pair(image)
    if largest == MARK:
        light = _largest_pair(np.where(image == MARK, 0, image))
        return light if 0 < light < MARK // 4 else largest
    return largest


def _largest_pair(image: np.ndarray) -> int:
    pairs = (np.minimum(image[1:], image[:-1]), np.minimum(image[:, 1:], image[:, :-1]))
    return max(int(pair.max(initial=0)) for pair in pairs)


def cuts(
    source: Source, items: Sequence[int], settings: Settings, workers: int | None = None
) -> Iterator[Result]:
    """Cut pictures out: of each its image and `Cut`, in their order, or the reason why it has none.

    Args:
        source: of the pictures.
        items: their numbers.
        settings, workers: see `prepare`.
    """
    return results_of(_Cutter(source, settings, _white(source, items, workers)), items, workers)


def _white(source: Source, items: Sequence[int], workers: int | None) -> float:
    """Find the value of white in pictures of 16 bits: how many bits all of them together use.

    Cameras fill 10, 12 or 14 of them, and no header says so.
    """
    deep = sorted(set(items).intersection(getattr(source, "deep", ())))
    largest = [x for x in results_of(_Largest(source), deep, workers) if not isinstance(x, str)]
    return float(2 ** max(8, max(largest).bit_length()) - 1) if largest else DEEPEST
