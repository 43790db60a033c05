"""The team: threads that share the work of a kernel.

Kernels are short (a training step at batch 1 has twenty of them in less than a millisecond), so
handing out work must cost less than a microsecond, and must not fail when another program takes a
core away.  OpenMP's and OpenBLAS's threads do the first by spinning, and then wait milliseconds for
a partner who is not running.  Here the calling thread takes pieces of the work like any other: it
waits only for pieces that a helper has begun.  A helper without work spins for about a millisecond
and then sleeps until the next kernel wakes it, without a word to Python, whose lock the calling
thread holds.

Products of matrices (tiles.py) are part of the pieces, so what is done to a product next (bias,
activation, a solver's update) finds it in the cache of one core.  Results do not depend on the
number of threads: the pieces are the same, and each writes to places of its own.

Denormal numbers, below 1e-38 in float32, cost a hundred times as much as others on many processors,
and training makes a million of them.  Helpers count them as zero, and so does the calling thread
while a net runs (`flushed`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

# Words of the board, which compiled code reads and writes.  Each has two cache lines to itself,
# which is also enough for a mutex and for a condition of the C library.
(
    TICKET, DONE, BUSY, FAILED, FUNCTION, ARGUMENTS, SLEEPING, AWAKENINGS, MUTEX, CONDITION,
    MULTIPLY_SINGLE, MULTIPLY_DOUBLE, WORDS,
) = range(0, 208, 16)

PATIENCE = 5_000  # turns of an idle helper's waiting loop, about a millisecond
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_count() -> int:
    """How many threads to use: those this process may run on, or fewer where a variable says so.

    One where the system is not of the POSIX kind, whose ways of sleeping and waking helpers need.
    """
    if os.name != "posix":
        return 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    given = [os.environ.get(name, "").split(",")[0].strip() for name in LIMITS]
    # No limit: what is no number, is not above zero, or has more digits than any number of cores.
    return min([count, *(int(n) for n in given if n.isdecimal() and len(n) < 9 and int(n) > 0)])


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
        from layerkit.backends.native import multiply_addresses  # imports Numba

        self.board[MULTIPLY_SINGLE], self.board[MULTIPLY_DOUBLE] = multiply_addresses()
        self.threads = thread_count()
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        """Starts the helpers; again in the child of a fork, which inherits no thread."""
        if self.threads == 1:
            return
        self.board[:MULTIPLY_SINGLE] = 0
        address, system = self.board.ctypes.data, ctypes.CDLL(None)
        system.pthread_mutex_init(ctypes.c_void_p(address + 8 * MUTEX), None)
        system.pthread_cond_init(ctypes.c_void_p(address + 8 * CONDITION), None)
        for _ in range(self.threads - 1):
            threading.Thread(target=self._help, daemon=True).start()

    def _help(self) -> None:
        from layerkit.backends.native import help_out

        help_out(self.board.ctypes.data, PATIENCE)


@functools.cache
def team() -> Team:
    """The team of this process."""
    return Team()


@contextmanager
def flushed(team: Team | None) -> Iterator[None]:
    """Counts denormal numbers as zero in the calling thread, inside a `with` block.

    The thread's floating-point state is put back at the end.  Without a team, where array code runs
    by itself, nothing changes.
    """
    if team is None:
        yield
        return
    from layerkit.backends.native import FLUSH, float_state, set_float_state

    before = float_state()
    try:
        set_float_state(before | FLUSH)
        yield
    finally:
        set_float_state(before)


Method = TypeVar("Method", bound=Callable[..., Any])


def flushing(method: Method) -> Method:
    """Makes a method of a net run with denormal numbers counted as zero; see `flushed`."""
    @functools.wraps(method)
    def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with flushed(self.run.team):
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]
