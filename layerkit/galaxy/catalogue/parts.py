"""Catalogues in parts: many sources encoded by many processes, a file for each part.

See `images.parts.working` for the folder, in which a part that is done has its table and, written
after it, a small file of counts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerkit.errors import DataError
from layerkit.galaxy.catalogue.boxes import find_model
from layerkit.galaxy.catalogue.encode import DRAWS, encode, unusable
from layerkit.galaxy.catalogue.tables.tables import check_suffix, write_catalogue
from layerkit.galaxy.images.parts.plan import Part, expand, planned, stretch_of
from layerkit.galaxy.images.parts.working import added, checked_workers, note, work_on
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.settings import Whole, accept, fitting
from layerkit.system.files import open_regular, path_of

KIND = "layerkit catalogue"
NOT_OPTIONS = ("model", "model_digest", "hdu")  # settings of the work that `encode` is not given


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
        sources: paths, patterns or addresses, see `prepare_shards`, or prepared sets, of which each
            file is a part; all workers can read them.
        out: folder, which all workers can write to.
        each: pictures in a part, default 10,000; the last of a source has fewer.
        suffix: format of the tables, see `write_catalogue`; ".fits" by default.
        refine, draws, batch, hdu, pixel_scale, units, zero_point, gain: see `encode`.
        workers: processes of this machine, which encode one part each at a time; None, the default,
            is this one alone.
        scheduler: None, the default, for plain processes; "local" makes them a Dask cluster; or the
            address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers encode
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
    workers = checked_workers(workers, scheduler, "encode_parts")
    folder = path_of(out, DataError)
    check_suffix(f"part{suffix}")
    settings = {
        "model": os.path.abspath(find_model(model)), "model_digest": _digest(find_model(model)),
        "refine": refine, "draws": draws, "batch": batch, "hdu": hdu,
        "pixel_scale": pixel_scale, "units": units, "zero_point": zero_point, "gain": gain,
    }  # fmt: skip
    parts = list(planned(expand(sources), each, suffix, hdu, prepared=True))
    counts, _ = work_on(
        folder,
        KIND,
        parts,
        encode_part,
        settings,
        workers=workers,
        scheduler=scheduler,
        resume=resume,
        progress=progress,
    )
    return added(counts, "encoded", "unusable")


def _digest(model: Path) -> str:
    """Return a digest of a model's file; empty if there is none, which `encode` will say."""
    try:
        with open_regular(model) as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return ""


def encode_part(folder: str, part: Part, settings: dict[str, Any], call: str) -> str:
    """Encode one part, and write its table and then its counts; return the table's name."""
    prepared = os.path.isfile(part.source) and is_prepared(part.source)
    source = part.source if prepared else stretch_of(part, settings["hdu"], call)
    options = {name: value for name, value in settings.items() if name not in NOT_OPTIONS}
    table = encode(settings["model"], source, **options, workers=1, backend="numpy")
    path = Path(folder) / part.file
    write_catalogue(table, path)
    reasons = unusable(table)
    encoded = len(table) - sum(reasons.values())
    note(path, {"pictures": len(table), "encoded": encoded, "unusable": reasons})
    return part.file
