"""Preparation of many sources into shards, which are read as one set."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.parts.plan import Part, expand, planned, stretch_of
from layerkit.galaxy.images.parts.working import added, checked_workers, note, work_on
from layerkit.galaxy.images.prepare.prepare import Report, none_usable, write_set
from layerkit.galaxy.images.prepared import PREPARED_FORMAT
from layerkit.settings import Whole, accept, fitting
from layerkit.system.files import path_of

SHARD = 100_000  # pictures


@fitting(DataError)
def prepare_shards(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    each: int = SHARD,
    hdu: int | str | None = None,
    size: int = Settings.size,
    frame: float = Settings.frame,
    overlap: float = Settings.overlap,
    background: float = Settings.background,
    threshold: float = Settings.threshold,
    min_radius: float = Settings.min_radius,
    units: str = Settings.units,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Report:
    """Cut the galaxies out of the pictures of many sources, and write them to a folder of shards.

    `load`, `train`, `encode` and `HDF5Data` read the folder as one set.  A shard is a file as
    `prepare` writes it, of the galaxies in `each` neighbouring pictures of a source; those of a
    worker that was killed are prepared again, and the file replaced as a whole.  Memory does not
    grow with the number of pictures, but for the list of ids of the source that is being read.

    Ids of galaxies begin with the name of their source where there are several, as in
    "night-1/0004".

    Args:
        sources: paths that `open_source` accepts; patterns such as "nights/*.zip"; or, where the
            package fsspec is installed, addresses of files such as "s3://bucket/*.zip", which are
            copied to a temporary folder of the process that reads them.  All workers can read them.
        out: folder, which all workers can write to.
        each: pictures in a shard, default 100,000; the last of a source has fewer.
        hdu: see `open_source`.
        size, frame, overlap, background, threshold, min_radius, units: see `Settings`.
        workers: processes of this machine; see `prepare` for the default.
        scheduler: None, the default, for plain processes, which share the pictures of one shard
            after another; "local" makes them a Dask cluster, of which each prepares a shard at a
            time; or the address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers
            do so instead.
        resume: True prepares only the shards that a former call with the same arguments has not.
        progress: show a progress bar on stderr, default True.

    Returns:
        How many pictures were read, kept and excluded, and why, over all shards.

    Raises:
        DataError: a source or folder that does not fit, no usable picture, no package distributed,
            a scheduler that cannot be reached, or shards that could not be made; `resume` goes on.
    """
    each = accept(Whole(least=1), each, "each", "prepare_shards", DataError)
    workers = checked_workers(workers, scheduler, "prepare_shards", least=0)
    folder = path_of(out, DataError)
    settings = Settings(size, frame, overlap, background, threshold, min_radius, units)
    start = time.perf_counter()
    parts = list(planned(expand(_several(sources)), each, ".h5", hdu, workers, labelled=True))
    counts, before = work_on(
        folder,
        PREPARED_FORMAT,
        parts,
        _Shard(1 if scheduler else workers),
        {"hdu": hdu, **asdict(settings)},
        workers=workers if scheduler else None,
        scheduler=scheduler,
        resume=resume,
        progress=progress,
    )
    total = added(counts, "kept", "excluded")
    if not total["kept"]:
        raise none_usable(str(folder), total["pictures"], total["excluded"])
    seconds = time.perf_counter() - start
    return Report(total["pictures"], total["kept"], total["excluded"], seconds, before=before)


def _several(sources: Any) -> Sequence[Any]:
    """Return a list of sources as it is, and one source in a list."""
    return sources if isinstance(sources, list | tuple) else [sources]


class _Shard:
    """The work of preparing one shard.

    Args:
        workers: processes that read its pictures.
    """

    def __init__(self, workers: int | None):
        self.workers = workers

    def __call__(self, folder: str, part: Part, settings: dict[str, Any], call: str) -> str:
        """Prepare the pictures of a part, and write their file and then its counts."""
        hdu, rest = settings["hdu"], {k: v for k, v in settings.items() if k != "hdu"}
        source = stretch_of(part, hdu, call)
        path = Path(folder) / part.file
        excluded, _ = write_set(
            source, path, Settings(**rest), len(source), self.workers, may_be_empty=True
        )
        kept = len(source) - sum(excluded.values())
        note(path, {"pictures": len(source), "kept": kept, "excluded": excluded})
        return part.file
