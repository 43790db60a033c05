"""Work in parts: done by processes of this machine or by the workers of Dask, resumed, and counted.

The folder holds `index.json`, which lists all parts from the start, and for each part that is done
its file and, written after it, a small file of counts.  A part is worked on by one process from
beginning to end and its files replaced as a whole, so that work which is done twice, as after a
worker was killed, changes nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerkit.errors import DataError
from layerkit.galaxy.images.parts.plan import Part
from layerkit.saving.shards import INDEX, counts_of
from layerkit.settings import Optional, Whole, accept
from layerkit.system.bars import bar
from layerkit.system.files import write_atomically

if TYPE_CHECKING:
    from distributed import Client

FORMAT = 3
RETRIES = 3  # of a part whose worker was killed
WAIT = 10  # seconds for a scheduler to answer
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"  # variables that Dask sets for its workers
RESUME = "what is done is kept: resume goes on"
LOOK = 0.05  # seconds between looks for results
PATIENCE = 300  # seconds for which a scheduler may be without a single worker
LOCAL = "local"  # stands for the address of a cluster of this machine

Work = Callable[[str, Part, dict[str, Any], str], str]


def work_on(
    folder: Path,
    kind: str,
    parts: Sequence[Part],
    work: Work,
    settings: dict[str, Any],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], int]:
    """Do the work of all parts, each once.

    Args:
        folder: that all workers can write to.
        kind: what the folder holds, in a few words; it stands in the index.
        parts: all of them.
        work: called with the folder, a part, the settings, and a text that differs from call to
            call of this function; it writes the file of the part, and then calls `note`.
        settings: plain values, which stand in the index.
        workers, scheduler: who does it; see `shared_out`.
        resume: does only what is missing.
        progress: shows a bar.

    Returns:
        The counts of each part, and how many pictures were done before.

    Raises:
        DataError: a folder that does not fit, no package distributed, a scheduler that cannot be
            reached, or parts that could not be done.
    """
    for source in {part.source for part in parts}:
        if os.path.isdir(source) and _is_inside(folder, source):
            raise DataError(f"{folder}: lies in a folder of pictures, {source}; write elsewhere")
    begin(folder, kind, parts, settings, resume)
    missing = [part for part in parts if not _is_done(folder, part)]
    total = sum(part.stop - part.start for part in parts)
    before = total - sum(part.stop - part.start for part in missing)
    place, call = os.path.abspath(folder), secrets.token_hex(8)
    jobs = [(place, part, settings, call) for part in missing]
    sizes = {part.file: part.stop - part.start for part in parts}
    with bar(total, "working", "images", before, shown=progress) as moving:
        for name in shared_out(f"{folder}", work, jobs, workers, scheduler, RESUME):
            moving.update(sizes[name])
    return list(_counts(folder, parts)), before


def _is_done(folder: Path, part: Part) -> bool:
    """Tell whether a part has its file, and counts that add up to all its pictures."""
    found, total = dict(counts_of(folder / part.file) or {}), part.stop - part.start
    if found.pop("pictures", None) != total:
        return False
    return total == sum(sum(n.values()) if isinstance(n, dict) else n for n in found.values())


def _is_inside(folder: Path, other: str) -> bool:
    own, top = os.path.realpath(folder), os.path.realpath(other)
    return os.path.commonpath([own, top]) == top if Path(own).anchor == Path(top).anchor else False


def begin(
    folder: Path, kind: str, parts: Sequence[Part], settings: dict[str, Any], resume: bool
) -> None:
    """Write the index into an empty folder, or find it there."""
    index = {
        "kind": kind, "format": FORMAT, "settings": settings, "parts": list(map(asdict, parts))
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text, path = json.dumps(index, indent=1), folder / INDEX
        if not any(folder.iterdir()):
            write_atomically(path, lambda part: part.write_text(text))
            return
        if not resume:
            raise DataError(f"{folder} is not empty; give another folder, or resume what is in it")
        if not path.is_file() or path.read_text() != text:
            raise DataError(f"{folder} {_why_other(path, text)}")
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from error


def _why_other(path: Path, text: str) -> str:
    """Say in what the index of a folder differs from the one that resuming it would write."""
    try:
        old, new = json.loads(path.read_text()), json.loads(text)
        if (old["kind"], old["format"]) != (new["kind"], new["format"]):
            return "holds something else, or work of another version; give another folder"
        before, now = old["settings"], new["settings"]
        for name in now:
            if before[name] != now[name]:
                what = name.replace("_", " ")
                return (
                    f"was begun with other sources or settings: {what} {before[name]}, and now "
                    f"{now[name]}; resume with those, or give another folder"
                )
        states = [[part.pop("state") for part in index["parts"]] for index in (old, new)]
        if old["parts"] == new["parts"]:
            where = next(
                part["source"]
                for part, was, is_ in zip(new["parts"], *states, strict=True)
                if was != is_
            )
            return (
                f"was begun with pictures that have changed since, in {where}; bring them back, or "
                "give another folder"
            )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return "holds something else than what was begun; give another folder"
    return (
        "was begun with other sources or settings: other pictures, or another number of them in a "
        "part; resume with those, or give another folder"
    )


def note(file: Path, counts: dict[str, Any]) -> None:
    """Write the counts of a part whose file is complete."""
    write_atomically(file.with_suffix(".json"), lambda draft: draft.write_text(json.dumps(counts)))


def checked_workers(
    workers: int | None, scheduler: str | None, owner: str, least: int = 1
) -> int | None:
    """Return the number of processes of this machine that are to share work, or None.

    Args:
        workers, scheduler: see `shared_out`.
        owner: begins messages.
        least: number of processes.

    Raises:
        DataError: it is no such number, or is given for a scheduler that has workers of its own.
    """
    workers = accept(Optional(Whole(least=least)), workers, "workers", owner, DataError)
    if workers is not None and scheduler not in (None, LOCAL):
        raise DataError(
            f"{owner}: workers={workers} are processes of this machine, and {scheduler} has "
            f"workers of its own; leave workers out, or give scheduler={LOCAL!r}"
        )
    return workers


def shared_out(
    name: str,
    work: Callable[..., Any],
    jobs: Sequence[Any],
    workers: int | None,
    scheduler: str | None,
    again: str,
) -> Iterator[Any]:
    """Yield the results of jobs as they are done.

    Args:
        name: begins messages.
        work: called with each job's values.
        jobs: tuples of values.
        workers: processes of this machine that share the jobs; None or 1 is this one alone.
        scheduler: None for plain processes; "local" for those of a Dask cluster; or the address of
            a Dask scheduler, whose workers do the jobs instead.
        again: ends messages: what to do where workers were lost.

    Raises:
        DataError: no package distributed, a scheduler that cannot be reached or has no workers, or
            workers that were killed.
    """
    if scheduler is not None:
        return _by_dask(name, work, jobs, workers, scheduler, again)
    if min(workers or 1, len(jobs)) < 2:
        return (work(*job) for job in jobs)
    return _by_processes(name, work, jobs, workers or 1, again)


def _by_processes(
    name: str, work: Callable[..., Any], jobs: Sequence[Any], workers: int, again: str
) -> Iterator[Any]:
    """Yield the results of jobs as plain processes have done them."""
    import joblib  # slow to import, and one process does without

    # joblib's own processes, not multiprocessing: they neither fork a process with threads nor
    # import the caller's script again, and divide the cores between them.
    run = joblib.Parallel(
        n_jobs=workers, return_as="generator_unordered", batch_size=1, max_nbytes=None
    )
    try:
        yield from run(joblib.delayed(work)(*job) for job in jobs)
    except BrokenProcessPool as error:
        raise DataError(
            f"{name}: a process was killed, perhaps for lack of memory; {again}, with fewer "
            "workers if need be"
        ) from error


def _by_dask(
    name: str,
    work: Callable[..., Any],
    jobs: Sequence[Any],
    workers: int | None,
    scheduler: str,
    again: str,
) -> Iterator[Any]:
    """Yield the results of jobs as the workers of Dask have done them."""
    try:
        import distributed
    except ImportError as error:
        raise DataError(
            "schedulers need the package distributed: pip install 'layerkit[dask]'"
        ) from error
    if not jobs:
        return
    try:
        with _client(workers, scheduler) as client:
            futures = client.map(work, *zip(*jobs, strict=True), retries=RETRIES, pure=False)
            for future in _completed(client, futures, scheduler):
                yield future.result()
    except (
        OSError,
        RuntimeError,
        concurrent.futures.CancelledError,  # of jobs whose scheduler is gone
        asyncio.CancelledError,
        distributed.KilledWorker,
    ) as error:
        why = str(error) or "its scheduler is gone"
        raise DataError(f"{name}: the work by Dask stopped ({why}); {again}") from error


def _completed(client: Client, futures: Sequence[Any], scheduler: str) -> Iterator[Any]:
    """Yield futures as they are done.

    Raises:
        RuntimeError: the scheduler has had no worker for PATIENCE seconds.
    """
    from distributed import as_completed

    completed, left, alone_since = as_completed(futures), len(futures), time.monotonic()
    while left:
        if done := completed.next_batch(block=False):
            left -= len(done)
            yield from done
            alone_since = time.monotonic()
            continue
        time.sleep(LOOK)
        if time.monotonic() - alone_since < min(1.0, PATIENCE):
            continue
        if client.scheduler_info()["workers"]:
            alone_since = time.monotonic()
        elif time.monotonic() - alone_since >= PATIENCE:
            raise RuntimeError(
                f"{scheduler} has had no worker for {PATIENCE} seconds; start some, as by dask "
                f"worker {scheduler}"
            )


def _client(workers: int | None, scheduler: str) -> Client:
    """Return a client of a scheduler, or of a cluster of this machine, which ends with it."""
    import dask
    from distributed import Client

    if scheduler != LOCAL:
        return Client(scheduler, timeout=WAIT)
    environment = dask.config.get(ENVIRONMENT, {})
    quick = {
        "distributed.worker.profile.enabled": False,  # it looks every 10 ms
        # Dask has workers give each block of memory back to the system: half of their time.
        ENVIRONMENT: {k: v for k, v in environment.items() if k != "MALLOC_TRIM_THRESHOLD_"},
    }
    with dask.config.set(quick):
        count = None if workers is None else max(workers, 1)
        return Client(n_workers=count, threads_per_worker=1, dashboard_address=":0")


def _counts(folder: Path, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """Yield the counts of all parts; fail unless they are those of all pictures."""
    for part in parts:
        found = counts_of(folder / part.file)
        if found is None or not _is_done(folder, part):
            raise DataError(f"{folder / part.file}: not as many rows as pictures; make it again")
        yield found


def added(counts: Iterable[dict[str, Any]], name: str, reasons: str) -> dict[str, Any]:
    """Add the counts of all parts up: "pictures", those under `name`, and those by reason."""
    total, why = Counter[str](), Counter[str]()
    for found in counts:
        total.update({key: found.get(key, 0) for key in ("pictures", name)})
        why.update(found.get(reasons, {}))
    if total[name] + sum(why.values()) != total["pictures"]:
        raise DataError(
            f"{total['pictures']} pictures, of which {total[name]} {name} and {sum(why.values())} "
            f"{reasons}: the counts of the parts do not add up; make them again"
        )
    return {"pictures": total["pictures"], name: total[name], reasons: dict(why.most_common())}
