"""Communicator: how the processes that train a net together speak to each other."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from layerkit.backends.base import Array
from layerkit.errors import LayerkitError

BAD_INPUT = 2  # exit status; see layerkit.cli.command
HEARD = 0.2  # seconds in which launchers pass on what was written last
PATIENCE = 1.0  # seconds in which the process that leads may say what is wrong in all


class Communicator:
    """Base class of the ways in which `size` processes exchange bytes.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        on_gpu: whether the arrays that it adds up lie on GPUs.
        exact: whether sums are those of the binary tree, whatever the number of processes.

    A `with` block ends all processes where an error leaves it in one of them: the others may be
    waiting for it.
    """

    rank = 0
    size = 1
    on_gpu = False
    exact = True

    # For a subclass to define.

    def exchange(self, given: Array, taken: Array, partner: int) -> None:
        """Send an array to another process, and fill one of equal size with what that sends."""
        raise NotImplementedError

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""
        raise NotImplementedError

    def broadcast(self, value: Any) -> Any:
        """Return the value that process 0 gives."""
        raise NotImplementedError

    def neighbours(self) -> list[int]:
        """Return the ranks of the processes on this machine, in increasing order."""
        return [self.rank]

    def abort(self) -> None:
        """End all processes at once."""
        raise NotImplementedError

    def meet(self) -> None:
        """Wait until all processes are here, if `add_up` would wait for ever for one that died."""

    @property
    def records(self) -> bool:
        """True if a GPU can record the calls that `add_up` makes."""
        return self.size == 1

    # For all.

    @property
    def leads(self) -> bool:
        """True in the one process that saves, logs and shows."""
        return self.rank == 0

    def add_up(
        self, buffer: Array, taken: Array, add: Callable[[], None], parts: Sequence[Array]
    ) -> None:
        """Turn the buffers of all processes into their sum, added up as a binary tree.

        Recursive doubling: after round i, in which process r exchanges with r xor 2^i, a buffer is
        the sum over 2^(i + 1) neighbours.  Both partners add the same two numbers, and a + b is
        b + a, so that all processes end with equal bits.

        Args:
            buffer: of this process.
            taken: as large, for what others send.
            add: adds `taken` to `buffer`.
            parts: the numbers that `buffer` holds, each an array of one type.

        Source: Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations
        in MPICH" (2005), section 4.5.
        """
        distance = 1
        while distance < self.size:
            self.exchange(buffer, taken, self.rank ^ distance)
            add()
            distance *= 2

    def explain(self, error: BaseException) -> str:
        """Name the process and the cause."""
        what = (
            str(error) if isinstance(error, LayerkitError) else f"{type(error).__name__}: {error}"
        )
        return f"rank {self.rank} of {self.size}: {what}" if self.size > 1 else what

    def __enter__(self) -> Communicator:
        """Return the communicator."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all processes on an error that the others do not know of."""
        if error is None or self.size == 1:
            return
        if not leaves_alike(error):
            self.fail(error)
        elif not self.leads and isinstance(error, LayerkitError):
            raise SystemExit(BAD_INPUT)  # the process that leads says it

    def fail(self, error: BaseException) -> None:
        """Print which process failed, and why, and end all; the leading one goes first."""
        if self.size > 1:
            if not self.leads:
                time.sleep(PATIENCE)
            print(f"error: {self.explain(error)}", file=sys.__stderr__, flush=True)
            time.sleep(HEARD)
            self.abort()

    @contextlib.contextmanager
    def one_voice(self) -> Iterator[None]:
        """Make a `with` block in which only the process that leads writes to standard output."""
        if self.leads:
            yield
        else:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                yield

    def describe(self) -> str:
        """Return in words which processes there are."""
        return "one process"


def leaves_alike(error: BaseException) -> bool:
    """Tell whether all processes end alike: by an error they agreed on, or a plain exit."""
    return getattr(error, "agreed", False) or (isinstance(error, SystemExit) and not error.code)


class Alone(Communicator):
    """A single process, which has nobody to speak to."""

    def gather(self, value: Any) -> list[Any]:
        """Return the value."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value."""
        return value

    def __repr__(self) -> str:
        return "one process"


def alone() -> Communicator:
    """Return the communicator of a process that trains by itself, on all shards."""
    return Alone()
