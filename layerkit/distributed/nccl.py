"""NCCL: gradients that stay on GPUs, one for each process, summed through CuPy's NCCL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layerkit.backends.base import GPUArray
from layerkit.distributed.communicator import Communicator
from layerkit.distributed.message_passing import started
from layerkit.errors import BackendError
from layerkit.settings import Flag, checks

RECORDS = 20906  # the first version whose calls CUDA graphs may hold


@checks
class Collective(Communicator):
    """The GPUs of the processes of a job; messages other than gradients go between the hosts.

    Args:
        host: the communicator of the processes.
        exact: adds as a binary tree, so that bits do not depend on the number of processes; else in
            an order that NCCL chooses.
    """

    on_gpu = True

    def __init__(self, host: Communicator, exact: Flag = False):
        self.rank, self.size, self.host, self.exact = host.rank, host.size, host, exact
        try:
            import cupy
            from cupy.cuda import nccl
        except ImportError as error:
            raise BackendError(
                f"NCCL is not there ({error}); it needs CuPy built with it, on Linux, such as by "
                "pip install 'layerkit[nccl]'"
            ) from error
        self._cupy, self._nccl = cupy, nccl
        # Launchers may show each process a GPU of its own only.
        number = host.neighbours().index(self.rank) % cupy.cuda.runtime.getDeviceCount()
        cupy.cuda.Device(number).use()
        name = host.broadcast(nccl.get_unique_id() if host.leads else None)
        try:
            self._gpus = nccl.NcclCommunicator(self.size, name, self.rank)
        except nccl.NcclError as error:
            raise BackendError(
                f"NCCL does not start on GPU {number} ({error}); it takes a GPU for each process, "
                "and here may be fewer"
            ) from error
        self._types = {"f": nccl.NCCL_FLOAT32, "d": nccl.NCCL_FLOAT64, "B": nccl.NCCL_UINT8}

    def add_up(
        self, buffer: GPUArray, taken: GPUArray, add: Callable[[], None], parts: Sequence[GPUArray]
    ) -> None:
        """Turn the buffers of all processes into their sum; see `Communicator.add_up`."""
        if self.size == 1:
            return
        if self.exact:
            super().add_up(buffer, taken, add, parts)
            return
        stream = self._cupy.cuda.get_current_stream().ptr
        self._nccl.groupStart()
        for part in parts:
            self._gpus.allReduce(
                part.data.ptr,
                part.data.ptr,
                part.size,
                self._types[part.dtype.char],
                self._nccl.NCCL_SUM,
                stream,
            )
        self._nccl.groupEnd()

    def exchange(self, given: GPUArray, taken: GPUArray, partner: int) -> None:
        """Send an array to another process, and fill one of equal size with what that sends."""
        stream, byte = self._cupy.cuda.get_current_stream().ptr, self._types["B"]
        self._nccl.groupStart()
        self._gpus.send(given.data.ptr, given.nbytes, byte, partner, stream)
        self._gpus.recv(taken.data.ptr, taken.nbytes, byte, partner, stream)
        self._nccl.groupEnd()

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""
        return self.host.gather(value)

    def broadcast(self, value: Any) -> Any:
        """Return the value that process 0 gives."""
        return self.host.broadcast(value)

    def meet(self) -> None:
        """Wait on the hosts, which hear of a process that has died; NCCL does not."""
        self.host.gather(None)

    @property
    def records(self) -> bool:
        """True if CUDA graphs may hold NCCL's calls, as from version 2.9.6 on."""
        return self.size == 1 or self._nccl.get_version() >= RECORDS

    def neighbours(self) -> list[int]:
        """Return the ranks of the processes on this machine."""
        return self.host.neighbours()

    def abort(self) -> None:
        """End all processes at once."""
        self.host.abort()

    def describe(self) -> str:
        """Return in words which processes there are."""
        return f"{self.host.describe()}, by NCCL"

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.size} of NCCL"


def nccl(exact: bool = False, timeout: float = 600.0) -> Communicator:
    """Return the communicator of the processes that mpiexec has started, with a GPU for each.

    Gradients stay on the GPUs, whose sums NCCL makes; all else goes through MPI, as of `mpi`.  The
    nets must have backend="cupy".  **Not verified on hardware**: it was tested with stand-ins for
    a GPU and NCCL only.

    From NCCL 2.9.6 on a step is recorded as a CUDA graph, the collective in it, if each process has
    one shard, all data are in the GPU's memory, and no layer keeps running statistics, as BatchNorm
    does; other steps are made call by call.

    Args:
        exact: True adds gradients up as the binary tree of `mpi`, by sends and receives: bits do
            not depend on the number of processes.  False, the default, leaves the order of the
            additions to NCCL, which is faster for many processes; bits then depend on their number
            and on how they are connected.
        timeout: see `mpi`.

    Raises:
        BackendError: no CuPy with NCCL, no GPU for each process, or see `mpi`.
    """
    return Collective(started(timeout), exact)
