"""The team: threads that share the work of a kernel.

Kernels are short (a training step at batch 1 has twenty of them in less than a millisecond), so
handing out work must cost less than a microsecond, and must not fail when another program takes a
core away.  OpenMP's and OpenBLAS's threads do the first by spinning, and then wait milliseconds for
a partner who is not running.  Here the calling thread takes pieces of the work like any other: it
waits only for pieces that a helper has begun.  A helper without work spins for about a millisecond
and then sleeps until the next pass through the net wakes it; while it sleeps, kernels run on the
calling thread alone, just slower.

BLAS is called inside the pieces and is itself single-threaded, so there is one set of threads, and
nothing to fight with.  Results do not depend on the number of threads: the pieces are the same, and
each writes to places of its own.
"""

from __future__ import annotations

import functools
import os
import threading

import numpy as np

from layerkit.backends import blas

# Words of the board, each on a cache line of its own, which compiled code reads and writes.
(
    TICKET, DONE, BUSY, FAILED, FUNCTION, ARGUMENTS, SGEMM, DGEMM, TILES_SINGLE, TILES_DOUBLE, WORDS
) = range(0, 88, 8)

PATIENCE = 5_000  # turns of an idle helper's waiting loop, about a millisecond
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_count() -> int:
    """How many threads to use: those this process may run on, or fewer where a variable says so."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    given = [os.environ.get(name, "").split(",")[0] for name in LIMITS]
    return min([count, *(int(n) for n in given if n.isdigit() and int(n) > 0)])


class Team:
    """The calling thread and its helpers; `team` makes the only one.

    Attributes:
        board: the words through which work is handed out; kernels take it as `team`.
        threads: how many threads there are, the calling one included.
    """

    def __init__(self) -> None:
        space = np.zeros(WORDS + 8, np.int64)
        start = (-space.ctypes.data // 8) % 8
        self.board = space[start : start + WORDS]
        self.board[SGEMM], self.board[DGEMM] = blas.addresses()
        from layerkit.backends.native import tiles_addresses  # imports Numba

        self.board[TILES_SINGLE], self.board[TILES_DOUBLE] = tiles_addresses()
        self.threads = thread_count()
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    @property
    def has_blas(self) -> bool:
        """Whether kernels can multiply matrices."""
        return bool(self.board[SGEMM])

    def _start(self) -> None:
        """Starts the helpers; again in the child of a fork, which inherits no thread."""
        self.board[TICKET] = self.board[BUSY] = 0
        self._work = [threading.Event() for _ in range(self.threads - 1)]
        for work in self._work:
            threading.Thread(target=self._help, args=(work,), daemon=True).start()

    def _help(self, work: threading.Event) -> None:
        from layerkit.backends.native import help_out

        board = self.board.ctypes.data
        while True:
            work.wait()
            work.clear()
            help_out(board, PATIENCE)

    def wake(self) -> None:
        """Called before a run of kernels."""
        for work in self._work:
            work.set()


@functools.cache
def team() -> Team:
    """The team of this process."""
    return Team()
