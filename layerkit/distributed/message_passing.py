"""MPI: processes that `mpiexec` has started, on one machine or many, through mpi4py."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from layerkit.distributed.communicator import Communicator, alone, leaves_alike
from layerkit.errors import BackendError
from layerkit.settings import Positive, checks

COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # how launchers tell how many processes there are
SPIN = 0.002  # seconds of waiting without sleep
NAP = 5e-5  # seconds between two looks after that
LOOK = 0.5  # seconds of waiting from one look for lost processes to the next
TURN, LEFT = 1, 2  # tags of messages: of an exchange, of a process that ends


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine runs; one that waits to be reaped does not."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@checks
class MessagePassing(Communicator):
    """The processes of an MPI job.

    Args:
        timeout: seconds that a process waits for another before it ends all.
    """

    def __init__(self, timeout: Positive = 600.0):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise BackendError(
                f"MPI is not there ({error}); install mpi4py and an MPI, such as by "
                "pip install 'layerkit[mpi]', or use layerkit.distributed.alone()"
            ) from error
        self._mpi = MPI
        self._all = MPI.COMM_WORLD.Dup()
        self._end = self._all.Dup()  # of its own, so that no barrier is taken for another
        self.rank, self.size = self._all.rank, self._all.size
        self.timeout = timeout
        self._failing = False
        started = next((int(os.environ[name]) for name in COUNTS if name in os.environ), self.size)
        if started != self.size:
            raise BackendError(
                f"mpiexec has started {started} processes, but mpi4py sees {self.size}: it uses "
                "another MPI than the one that mpiexec belongs to; start the program with the "
                f"mpiexec beside {sys.executable}, or install mpi4py for the other"
            )
        self._places = self._all.allgather((socket.gethostname(), os.getpid()))
        if self.size > 1:
            self._share_cores()
            self._former = sys.excepthook
            sys.excepthook = self._unexpected
            atexit.register(self._leave)

    def _share_cores(self) -> None:
        """Use no more threads than there are cores for each process of this machine.

        Results do not depend on it.  OMP_NUM_THREADS, where it is set, is left alone; compiled
        kernels heed what is set here, as nets are made later.
        """
        if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "sched_getaffinity"):
            return
        here = self._all.Split_type(self._mpi.COMM_TYPE_SHARED)
        sets = here.allgather(os.sched_getaffinity(0))
        here.Free()
        own = sum(1 / sum(core in cores for cores in sets) for core in os.sched_getaffinity(0))
        threads = max(1, int(own + 1e-6))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import threadpoolctl  # of the extra mpi

        threadpoolctl.threadpool_limits(threads, user_api="blas")

    def exchange(self, given: np.ndarray, taken: np.ndarray, partner: int) -> None:
        """Send an array to another process, and fill one of equal size with what that sends."""
        byte = self._mpi.BYTE
        requests = [
            self._all.Irecv([taken.view(np.uint8), byte], partner, TURN),
            self._all.Isend([given.view(np.uint8), byte], partner, TURN),
        ]
        self._wait(requests, f"rank {partner}")

    def _wait(self, requests: list[Any], whom: str) -> None:
        """Wait for messages, asleep after a while: there may be fewer cores than processes."""
        started = time.perf_counter()
        look = LOOK
        while not self._mpi.Request.Testall(requests):
            waited = time.perf_counter() - started
            if waited > look:
                self._look_for_lost()
                look += LOOK
            if waited > self.timeout:
                raise BackendError(
                    f"nothing has come from {whom} for {self.timeout:g} s; it may have died or be "
                    "stuck: see what it has written last"
                )
            time.sleep(NAP if waited > SPIN else 0)

    def _look_for_lost(self) -> None:
        """Fail if a process has left, or one of this machine has died.

        Launchers end all processes where one is killed, but for some that are told not to.
        """
        status = self._mpi.Status()
        if self._all.Iprobe(self._mpi.ANY_SOURCE, LEFT, status):
            raise BackendError(
                f"rank {status.Get_source()} has ended while this process goes on; all must make "
                "equally many steps"
            )
        for rank, (host, process) in enumerate(self._places):
            if host == self._places[self.rank][0] and not is_alive(process):
                raise BackendError(
                    f"rank {rank} (process {process} on {host}) has died; it may have been killed, "
                    "as for want of memory"
                )

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""
        self._meet()
        return self._all.allgather(value)

    def broadcast(self, value: Any) -> Any:
        """Return the value that process 0 gives."""
        self._meet()
        return self._all.bcast(value)

    def _meet(self) -> None:
        """Wait until all processes are here, but not for ever."""
        self._wait([self._all.Ibarrier()], "another process")

    def neighbours(self) -> list[int]:
        """Return the ranks of the processes on this machine, in increasing order."""
        own = self._places[self.rank][0]
        return [rank for rank, (host, _) in enumerate(self._places) if host == own]

    def abort(self) -> None:
        """End all processes at once."""
        self._failing = True
        sys.stdout.flush()
        sys.stderr.flush()
        self._all.Abort(1)

    def _unexpected(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        """Show an error that ends the program: one that all share in one process only."""
        self._failing = True
        if leaves_alike(error):
            if self.leads:
                self._former(kind, error, traceback)
            return
        self._former(kind, error, traceback)
        self.fail(error)

    def _leave(self) -> None:
        """Wait for the others before MPI ends, and tell them that this process takes no more part.

        It ends all where one of them has died.
        """
        if self._failing:
            return
        for rank in range(self.size):
            if rank != self.rank:
                self._all.Isend([np.zeros(1, np.uint8), self._mpi.BYTE], rank, LEFT).Free()
        request, beats = self._end.Ibarrier(), 0
        while not request.Test():
            time.sleep(1e-3)
            beats += 1
            if beats % 500 == 0 and not all(
                is_alive(process)
                for host, process in self._places
                if host == self._places[self.rank][0]
            ):
                self.abort()
        for rank in range(self.size):
            if rank != self.rank:
                self._all.Recv([np.zeros(1, np.uint8), self._mpi.BYTE], rank, LEFT)

    def describe(self) -> str:
        """Return in words which processes there are, by which a launcher's messages name them."""
        found = (f"rank {r}: {process} on {host}" for r, (host, process) in enumerate(self._places))
        return f"{self.size} processes ({', '.join(found)})" if self.size > 1 else "one process"

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.size} of an MPI job"


def started(timeout: float = 600.0) -> Communicator:
    """Return the communicator of this process: MPI's where mpiexec has started several, or alone.

    Args:
        timeout: see `mpi`.

    Raises:
        BackendError: see `mpi`.
    """
    several = any(os.environ.get(name, "1") != "1" for name in COUNTS)
    return mpi(timeout) if several else alone()


def mpi(timeout: float = 600.0) -> Communicator:
    """Return the communicator of the processes that mpiexec has started.

    `mpiexec -n 4 python train.py` starts four; a program started without mpiexec is one process.
    An error that ends one of them ends all, and a process that waits for another for `timeout`
    seconds ends with an error.  Call it before the first net is made: the processes of one machine
    then divide its cores between them.

    Raises:
        BackendError: mpi4py is not installed, or belongs to another MPI than mpiexec.
    """
    return MessagePassing(timeout)
