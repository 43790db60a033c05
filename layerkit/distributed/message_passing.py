"""MPI: processes that `mpiexec` has started, on one machine or many, through mpi4py."""

from __future__ import annotations

import atexit
import os
import sys
import time
from types import TracebackType
from typing import Any

import numpy as np
import threadpoolctl

from layerkit.distributed.communicator import Communicator, leaves_alike
from layerkit.errors import BackendError
from layerkit.settings import Positive, checks

COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # how launchers tell how many processes there are
SPIN = 0.002  # seconds of waiting without sleep
NAP = 5e-5  # seconds between two looks after that


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
        threadpoolctl.threadpool_limits(threads, user_api="blas")

    def exchange(self, given: np.ndarray, taken: np.ndarray, partner: int) -> None:
        """Send an array to another process, and fill one of equal size with what that sends."""
        byte = self._mpi.BYTE
        requests = [
            self._all.Irecv([taken.view(np.uint8), byte], partner, 1),
            self._all.Isend([given.view(np.uint8), byte], partner, 1),
        ]
        self._wait(requests, f"rank {partner}")

    def _wait(self, requests: list[Any], whom: str) -> None:
        """Wait for messages, asleep after a while: there may be fewer cores than processes."""
        started, nap = time.perf_counter(), self._mpi.Request.Testall
        while not nap(requests):
            waited = time.perf_counter() - started
            if waited > self.timeout:
                raise BackendError(
                    f"rank {self.rank} of {self.size} has waited {self.timeout:g} s for {whom}, "
                    "which may have died; see what it has written last"
                )
            time.sleep(NAP if waited > SPIN else 0)

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
        self._wait([self._all.Ibarrier()], "the others")

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
        """Wait for the others before MPI ends, as it would without a time limit."""
        if not self._failing:
            request = self._all.Ibarrier()
            while not request.Test():
                time.sleep(1e-3)

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.size} of an MPI job"


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
