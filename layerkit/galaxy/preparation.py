"""Pictures of galaxies to a training set: find the galaxy, cut it out, judge it, scale it down.

After section 4 of Regier, McAuliffe and Prabhat (2015): each picture is cropped to a square around
its most prominent galaxy, in proportion to the galaxy's size; pictures in which other bright
objects overlap it are left out; what remains is brought to 69 x 69 pixels.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from numbers import Integral
from pathlib import Path
from types import ModuleType
from unittest import mock

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from layerkit import hdf5
from layerkit.errors import DataError
from layerkit.files import path_of
from layerkit.galaxy.dataset import COLUMNS, VERSION
from layerkit.galaxy.detect import border_light, find_galaxy, foreign_light
from layerkit.galaxy.sources import PREPARED_FORMAT, Source, UnusableImageError

CHUNK = 32  # pictures handed to a worker at a time


@dataclass(frozen=True)
class Settings:
    """What decides how a picture is cut and whether it is kept.

    size: pixels on a side of a prepared galaxy.
    frame: side of the crop over the galaxy's radius (`detect.Galaxy`).
    overlap: another object counts as bright where its peak is at least this share of the galaxy's
        (`detect.foreign_light`).
    background: the background counts as bright where the border of the crop is at least this share
        of the galaxy's peak (`detect.border_light`): in the glare of a star, say, or where the
        galaxy fills the picture, so that there is no sky to measure it by.
    threshold: light counts as an object's where it is this many noise standard deviations above
        the sky.
    min_radius: smallest radius of a galaxy, in the pixels in which it is detected, those of the
        picture binned to about 212 on a side.  A point, smoothed for detection, has 1.0 to 1.2.
    """

    size: int = 69
    frame: float = 6.5
    overlap: float = 0.5
    background: float = 0.2
    threshold: float = 4.0
    min_radius: float = 1.4


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


@dataclass(frozen=True)
class Cut:
    """A square of a picture: its top left corner and side, in pixels, fractions allowed."""

    y0: float
    x0: float
    side: float


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
    pixel; and as attributes, in JSON, `ids`; `excluded` (id to reason); and `about`, the source's
    name, the number of pictures read, the settings and the origin.  It is complete, with a
    checksum, before it appears under its name.  While it is written its folder needs room for the
    images twice.

    Raises `DataError` where no picture is usable or the file cannot be written.
    """
    settings = Settings(size, frame, overlap, background, threshold, min_radius)
    output = path_of(output, DataError)
    origin = None if origin is None else hdf5.plain(origin, "origin", DataError)
    if limit is not None and (not isinstance(limit, Integral) or limit < 1):
        raise DataError(f"limit must be a positive whole number, got {limit!r}")
    total = len(source) if limit is None else min(int(limit), len(source))
    start = time.perf_counter()
    excluded: dict[str, str] = {}
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise DataError(f"{output}: a folder; give the name of a file to write")
        if _is_of(source, output):
            raise DataError(f"{output}: a file of the source; give the name of another to write")
        writer = _Writer(output.parent, size)
    with writer:
        results = _results(source, settings, total, workers)
        bar = tqdm(results, total=total, desc="prepare", unit="image", disable=not progress)
        try:
            for result, name in zip(bar, source.ids, strict=False):
                if isinstance(result, str):
                    excluded[name] = result
                else:
                    image, cut = result
                    with _writing(output):
                        writer.add(
                            name, image, crops=(cut.y0, cut.x0, cut.side), scales=cut.side / size
                        )
        except OSError as error:
            raise DataError(
                f"{source.name}: cannot be read ({error.strerror or error})"
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
        }  # fmt: skip
        with _writing(output):
            writer.write(output, excluded, about)
    return Report(total, total - len(excluded), counts, time.perf_counter() - start)


def cut_out(image: np.ndarray, settings: Settings) -> tuple[np.ndarray, Cut]:
    """The galaxy in `image`, float32 (height, width) in 0..1, scaled to `size`, and its square.

    Raises `UnusableImageError` with the reason where there is no galaxy near the centre, where its
    square is too small or does not fit, or where another bright object is in it.
    """
    galaxy = find_galaxy(image, settings.threshold)
    if galaxy.radius < settings.min_radius * galaxy.bins:
        raise UnusableImageError("too small")
    side = settings.frame * galaxy.radius
    room = 2 * min(galaxy.y, galaxy.x, image.shape[0] - galaxy.y, image.shape[1] - galaxy.x)
    seen = min(side, room)
    if seen < 2 * galaxy.radius:
        raise UnusableImageError("runs off the image edge")
    cut = Cut(galaxy.y - seen / 2, galaxy.x - seen / 2, seen)
    view = resample(image, cut, settings.size)
    # A bright neighbour is the better reason, as it may be what makes the square so large.
    if foreign_light(view, galaxy, seen) >= settings.overlap:
        raise UnusableImageError("overlapping bright object")
    if border_light(view) >= settings.background:
        raise UnusableImageError("bright background")
    if side > room:
        raise UnusableImageError("runs off the image edge")
    return view, cut


def resample(image: np.ndarray, cut: Cut, size: int) -> np.ndarray:
    """The square `cut` of `image` as float32 (size, size), anti-aliased.

    Shrinking weighs every source pixel with a Hamming-windowed sinc as wide as an output pixel is
    far from the next; enlarging is bicubic.  Pixel values stay within 0..1.
    """
    filt = Image.Resampling.HAMMING if cut.side > size else Image.Resampling.BICUBIC
    box = (cut.x0, cut.y0, cut.x0 + cut.side, cut.y0 + cut.side)
    box = tuple(np.clip(box, 0, [image.shape[1], image.shape[0]] * 2))
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.clip(np.asarray(picture.resize((size, size), filt, box=box)), 0, 1)


class _Writer:
    """Galaxies that wait to be written, their images in a file without a name."""

    def __init__(self, folder: Path, size: int):
        self.images = hdf5.Rows(folder, (size, size), "<f4")
        self.ids: list[str] = []
        self.columns: dict[str, list] = {name: [] for name in COLUMNS}

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.images.__exit__()

    def add(self, name: str, image: np.ndarray, **columns: float | Sequence[float]) -> None:
        """Add a galaxy, with a value for each of COLUMNS."""
        self.images.append(image)
        self.ids.append(name)
        for key, values in self.columns.items():
            values.append(columns[key])

    def write(self, path: Path, excluded: dict[str, str], about: dict) -> None:
        """Write everything in one move."""

        def fill(file: h5py.File) -> None:
            self.images.reserve(file, "images")
            for name, values in self.columns.items():
                file[name] = np.array(values, "<f8").reshape(len(self.ids), *COLUMNS[name])
            hdf5.attribute(file, "version", VERSION)
            hdf5.attribute(file, "ids", json.dumps(self.ids))
            hdf5.attribute(file, "excluded", json.dumps(excluded))
            hdf5.attribute(file, "about", json.dumps(about))

        hdf5.write_sealed(path, PREPARED_FORMAT, fill, self.images)


def _is_of(source: Source, output: Path) -> bool:
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


def _one(source: Source, settings: Settings, i: int) -> Result:
    """Picture `i` prepared, or the reason why not."""
    try:
        return cut_out(source.read(i), settings)
    except UnusableImageError as error:
        return str(error)


def _results(
    source: Source, settings: Settings, total: int, workers: int | None
) -> Iterator[Result]:
    """The result for each of the first `total` pictures, in the order of the source."""
    if workers is None:
        # Starting a process costs as much as some hundreds of pictures.
        workers = min(len(os.sched_getaffinity(0)), -(-total // 500))
    if workers <= 1:
        yield from (_one(source, settings, i) for i in range(total))
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),  # a fork of a process with BLAS or CUDA threads may hang
        initializer=_start_worker,
        initargs=(source, settings),
    )
    starts = iter(range(0, total, CHUNK))
    waiting: deque[Future[list[Result]]] = deque()

    def submit() -> None:
        if (first := next(starts, None)) is not None:
            # Workers start when work comes, and need nothing of the caller's script: without this
            # each would run it again, which goes wrong where it has no `if __name__ == ...`.
            with mock.patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
                waiting.append(pool.submit(_chunk, first, min(first + CHUNK, total)))

    try:
        for _ in range(4 * workers):
            submit()
        while waiting:
            yield from waiting.popleft().result()
            submit()
    finally:
        pool.shutdown(cancel_futures=True)


_work: tuple[Source, Settings]


def _start_worker(source: Source, settings: Settings) -> None:
    global _work
    _work = (source, settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def follow_parent() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    # Without this a worker whose parent was killed would wait for work for ever.
    threading.Thread(target=follow_parent, daemon=True).start()


def _chunk(first: int, end: int) -> list[Result]:
    source, settings = _work
    return [_one(source, settings, i) for i in range(first, end)]
