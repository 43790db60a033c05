"""Catalogues in parts: many sources encoded by many processes, a file for each part.

The folder holds `index.json`, which lists all parts from the start, and for each part that is done
its table and, written after it, a small file of counts.  A part is encoded by one process from
beginning to end and its files replaced as a whole, so that work which is done twice, as after a
worker was killed, changes nothing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from layerkit.errors import DataError
from layerkit.galaxy.catalogue.boxes import find_model
from layerkit.galaxy.catalogue.encode import DRAWS, encode, unusable
from layerkit.galaxy.catalogue.tables.tables import INDEX, check_suffix, write_catalogue
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.prepare.bit_depth import white_value
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.galaxy.images.sources.sources import Source, open_source
from layerkit.settings import Optional, Whole, accept, fitting
from layerkit.system.files import path_of, write_atomically

if TYPE_CHECKING:
    from distributed import Client

FORMAT = 1
RETRIES = 3  # of a part whose worker was killed
WAIT = 10  # seconds for a scheduler to answer


@dataclass(frozen=True)
class Part:
    """Pictures `start` to `stop` of a source, and the table that holds them.

    Attributes:
        white: value of the source's 16-bit pictures that is white; see `white_value`.
    """

    file: str
    source: str
    start: int
    stop: int
    white: float


class Stretch:
    """Some neighbouring pictures of a source; see Source for its attributes."""

    def __init__(self, source: Source, start: int, stop: int, white: float):
        self.name, self.white = source.name, white
        self.ids = source.ids[start:stop]
        self.row_order = getattr(source, "row_order", "top")
        self.files = getattr(source, "files", None)
        self.pictures = (getattr(source, "pictures", None) or [])[start:stop]
        scales = getattr(source, "scales", None)
        self.scales = None if scales is None else scales[start:stop]
        self._source, self._start = source, start

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int) -> np.ndarray:
        """Read picture `i` of the stretch."""
        return self._source.read(self._start + i)

    def planes(self, i: int) -> Planes:
        """Read what the source says of the pixels of picture `i`, if it says anything."""
        found = getattr(self._source, "planes", None)
        return Planes() if found is None else found(self._start + i)


@fitting(DataError)
def encode_parts(
    model: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    each: int = 10_000,
    suffix: str = ".fits",
    refine: int = 0,
    draws: int = DRAWS,
    batch: int = 256,
    hdu: int | str | None = None,
    pixel_scale: float | None = None,
    units: str | None = None,
    zero_point: float | None = None,
    gain: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Encode the pictures of many sources into a folder of tables; return the counts.

    `read_catalogue(out)` reads the folder as one table.  Memory does not grow with the number of
    pictures.  Noise is drawn anew for each part, so that rows depend on `each`, but not on who
    encodes them.

    Args:
        model: folder of a training run, or the `model.h5` in it, which all workers can read.
        sources: paths that `open_source` accepts, which all workers can read.
        out: folder, which all workers can write to.
        each: pictures in a part, default 10,000; the last of a source has fewer.
        suffix: format of the tables, see `write_catalogue`; ".fits" by default.
        refine, draws, batch, hdu, pixel_scale, units, zero_point, gain: see `encode`.
        workers: processes of a Dask cluster on this machine; None, the default, encodes one part
            after another in this process.
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers encode
            instead.
        resume: True encodes only the parts that a former call with the same arguments has not.
        progress: shows a bar.

    Returns:
        "pictures", "encoded", and "unusable", a dict of counts by reason.

    Raises:
        DataError: a source or folder that does not fit, no package distributed, a scheduler that
            cannot be reached, or parts that could not be encoded; `resume` goes on.
    """
    each = accept(Whole(least=1), each, "each", "encode_parts", DataError)
    workers = accept(Optional(Whole(least=1)), workers, "workers", "encode_parts", DataError)
    folder = path_of(out, DataError)
    check_suffix(f"part{suffix}")
    if workers is not None and scheduler is not None:
        raise DataError("encode_parts: give workers or scheduler, not both")
    settings = {
        "model": os.path.abspath(find_model(model)),
        "refine": refine, "draws": draws, "batch": batch, "hdu": hdu,
        "pixel_scale": pixel_scale, "units": units, "zero_point": zero_point, "gain": gain,
    }  # fmt: skip
    parts = list(_planned(sources, each, suffix, hdu))
    _begin(
        folder, {"format": FORMAT, "settings": settings, "parts": list(map(asdict, parts))}, resume
    )
    missing = [part for part in parts if counts_of(folder, part) is None]
    with tqdm(
        total=len(parts), initial=len(parts) - len(missing), unit="part", disable=not progress
    ) as bar:
        for _ in _done(folder, missing, settings, workers, scheduler):
            bar.update()
    return _added(folder, parts)


def _planned(sources: Sequence[Any], each: int, suffix: str, hdu: Any) -> Iterator[Part]:
    """Yield the parts of all sources, in order."""
    number = 0
    for given in sources:
        path = os.path.abspath(path_of(given, DataError))
        if os.path.isfile(path) and is_prepared(path):
            raise DataError(f"{path}: a prepared set is encoded as a whole; give its pictures")
        source = open_source(path, hdu)
        total, white = len(source), white_value(source, range(len(source)), None)
        for start in range(0, total, each):
            stop = min(start + each, total)
            yield Part(f"part-{number:06d}{suffix}", path, start, stop, white)
            number += 1


def _begin(folder: Path, index: dict[str, Any], resume: bool) -> None:
    """Write the index into an empty folder, or find it there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text, path = json.dumps(index, indent=1), folder / INDEX
        if not any(folder.iterdir()):
            write_atomically(path, lambda part: part.write_text(text))
            return
        if not resume:
            raise DataError(f"{folder} is not empty; give another folder, or resume what is in it")
        if not path.is_file() or path.read_text() != text:
            raise DataError(
                f"{folder} was begun with other sources or settings, or is no catalogue in parts; "
                "resume with those, or give another folder"
            )
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from error


def counts_of(folder: Path, part: Part) -> dict[str, Any] | None:
    """Return the counts of a part that is done, or None."""
    try:
        found = json.loads((folder / part.file).with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    return found if (folder / part.file).is_file() else None


def encode_part(folder: str, part: Part, settings: dict[str, Any]) -> str:
    """Encode one part, and write its table and then its counts; return the table's name."""
    source = Stretch(open_source(part.source, settings["hdu"]), part.start, part.stop, part.white)
    options = {name: value for name, value in settings.items() if name not in ("model", "hdu")}
    table = encode(settings["model"], source, **options, workers=1, backend="numpy")
    path = Path(folder) / part.file
    write_catalogue(table, path)
    reasons = unusable(table)
    found = {"pictures": len(table), "encoded": len(table) - sum(reasons.values())}
    text = json.dumps({**found, "unusable": reasons})
    write_atomically(path.with_suffix(".json"), lambda draft: draft.write_text(text))
    return part.file


def _done(
    folder: Path, parts: list[Part], settings: dict[str, Any], workers: int | None, address: Any
) -> Iterable[str]:
    """Encode parts, and yield their names as they are done."""
    place = os.path.abspath(folder)
    if workers is None and address is None:
        return (encode_part(place, part, settings) for part in parts)
    return _by_dask(place, parts, settings, workers, address)


def _by_dask(
    folder: str, parts: list[Part], settings: dict[str, Any], workers: int | None, address: Any
) -> Iterator[str]:
    try:
        import distributed
    except ImportError as error:
        raise DataError(
            "workers and schedulers need the package distributed: pip install 'layerkit[dask]'"
        ) from error
    try:
        with _client(workers, address) as client:
            futures = client.map(
                encode_part, *zip(*((folder, part, settings) for part in parts), strict=True),
                retries=RETRIES, pure=False,
            ) if parts else []  # fmt: skip
            for future in distributed.as_completed(futures):
                yield future.result()
    except (OSError, RuntimeError, distributed.KilledWorker) as error:
        raise DataError(
            f"{folder}: encoding by Dask stopped ({error}); what is done is kept: resume goes on"
        ) from error


def _client(workers: int | None, address: Any) -> Client:
    """Return a client of a scheduler, or of a cluster of this machine, which ends with it."""
    from distributed import Client

    if address is not None:
        return Client(address, timeout=WAIT)
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def _added(folder: Path, parts: list[Part]) -> dict[str, Any]:
    """Add the counts up; fail unless they are those of all pictures."""
    total, reasons = Counter[str](), Counter[str]()
    for part in parts:
        found = counts_of(folder, part)
        if found is None or found["pictures"] != part.stop - part.start:
            raise DataError(f"{folder / part.file}: not as many rows as pictures; encode it again")
        total.update({key: found[key] for key in ("pictures", "encoded")})
        reasons.update(found["unusable"])
    return {
        **{key: total[key] for key in ("pictures", "encoded")},
        "unusable": dict(reasons.most_common()),
    }
