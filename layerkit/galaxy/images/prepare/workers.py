"""Worker processes for many pictures, each of which may fail without ending the others."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from types import ModuleType
from typing import Any, TypeVar

from layerkit.galaxy.images.decode.bounds import TOO_LARGE, UnusableImageError

T = TypeVar("T")

CHUNK = 32  # pictures handed to a worker at a time
MAX_WORKERS = 60  # by default; Windows cannot wait for more than 61
MAX_CRASHES = 20  # of worker processes; after more, the pictures are not to blame


def or_reason(job: Callable[[], T]) -> T | str:
    """Run the job of one picture; return its result, or the reason why it failed."""
    try:
        return job()
    except UnusableImageError as error:
        return str(error)
    except MemoryError:
        return TOO_LARGE
    except Exception as error:
        return f"fails with {type(error).__name__}"


def results_of(
    job: Callable[[int], T | str], items: Sequence[int], workers: int | None
) -> Iterator[T | str]:
    """Run a job on each item, in worker processes if that is worth it.

    Args:
        job: takes an item and returns a result or a reason; it is pickled.
        items: numbers of pictures.
        workers: how many processes; by default one per core, but none for a few hundred pictures,
            which take as long as a process takes to start.

    Yields:
        The result or reason of each item, in the order of `items`.

    Raises:
        BrokenProcessPool: workers keep crashing.
        OSError: no process can be started.
    """
    if workers is None:
        from joblib import cpu_count  # slow to import, and not needed by the workers

        workers = min(cpu_count(), MAX_WORKERS, -(-len(items) // 500))
    workers = min(workers, -(-len(items) // CHUNK))  # every worker is started at once
    if workers <= 1:
        yield from map(job, items)
        return
    chunks = deque(items[k : k + CHUNK] for k in range(0, len(items), CHUNK))
    crashes = 0
    while chunks:
        try:
            for results in _pooled(job, list(chunks), workers):
                chunks.popleft()
                yield from results
        except BrokenProcessPool:
            # A picture in the unfinished chunks crashed its process: a decoder failed, or memory
            # ran out.  Alone, it takes no other picture with it.
            rest = deque(chunks.popleft())
            while rest:
                try:
                    for (result,) in _pooled(job, [[item] for item in rest], 1):
                        rest.popleft()
                        yield result
                except BrokenProcessPool:
                    if (crashes := crashes + 1) > MAX_CRASHES:
                        raise
                    rest.popleft()
                    yield "crashes its process"


def _pooled(
    job: Callable[[int], T], chunks: Sequence[Sequence[int]], workers: int
) -> Iterator[list[T]]:
    """Yield the results of each chunk, computed by worker processes."""
    others = set(active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),  # a fork of a process with BLAS or CUDA threads may hang
        initializer=_start_worker,
        initargs=(job,),
    )
    rest = iter(chunks)
    waiting: deque[Future[list[T]]] = deque()

    def submit() -> None:
        if (chunk := next(rest, None)) is not None:
            with _script_hidden():  # submitting may start a worker
                waiting.append(pool.submit(_chunk, chunk))

    try:
        for _ in range(4 * workers):
            submit()
        while waiting:
            yield waiting.popleft().result()
            submit()
    except BrokenProcessPool:
        # A worker that was just starting may be alive still, and shutdown would wait for it.
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_hiding = threading.Lock()


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Hide the caller's script from processes that are started meanwhile.

    They do not need it, and would run it again, which fails if it lacks an
    `if __name__ == "__main__"`.
    """
    with _hiding:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


_job: Callable[[int], Any]


def _start_worker(job: Callable[[int], Any]) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C

    def follow_parent() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    # Without this, a worker whose parent was killed would wait for work for ever.
    threading.Thread(target=follow_parent, daemon=True).start()


def _chunk(items: Sequence[int]) -> list[Any]:
    return [_job(i) for i in items]
