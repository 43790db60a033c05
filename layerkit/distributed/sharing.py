"""Distributed: a solver whose steps processes share."""

from __future__ import annotations

from typing import TypeVar

from layerkit.distributed.communicator import Communicator
from layerkit.distributed.team import Team
from layerkit.errors import NetError, brief
from layerkit.settings import Truth, Whole, accept
from layerkit.solvers.solver import Solver

AnySolver = TypeVar("AnySolver", bound=Solver)


def Distributed(  # noqa: N802  # it stands where a class would
    solver: AnySolver,
    comm: Communicator,
    shards: int | None = None,
    sync: bool = False,
    check: int = 1000,
) -> AnySolver:
    """Let processes share each step of a solver; return the solver.

        comm = lk.distributed.mpi()
        solver = lk.Distributed(lk.Adam(net), comm, shards=4)
        solver.steps(1000)

    A step takes the mean gradient over S shards, of `net.batch_size` rows each, and makes one
    update by it.  Process r of R passes shards r S / R to (r + 1) S / R - 1 through its net, one
    after the other.  Data layers serve shard s of step t the stretch of their order that pass
    number t S + s would get from a single process; noise, dropout and augmentation are drawn for
    that pass too.  Input layers are given arrays of S times as many rows in every process, which
    takes its own.

    The gradients of the shards are added up as a binary tree, within a process and on across
    processes.  So the bits of all parameters and histories depend on the net, its seed, the rows of
    a shard and S, but not on R, and are those of `accumulate=S` in one process.  Processors must be
    alike, as compiled kernels are chosen by what a processor can do.

    BatchNorm normalises each shard by itself; its running statistics follow each shard from where
    they were before the step, and become the mean of these.  With `sync` it takes the mean and
    variance over all shards, which costs it compiled kernels and three small collectives a layer.

    Args:
        solver: of a net that all processes have made in the same way.
        comm: from layerkit.distributed.mpi(), .nccl() or .alone().
        shards: S, a power of two that R divides; by default R.
        sync: True lets BatchNorm take means and variances over all shards, one for each process;
            False by default.
        check: steps from one comparison of all processes' settings, parameters and histories to the
            next, default 1000; the first is before the first step, and another after a snapshot was
            loaded.

    Raises:
        NetError: numbers of shards and processes that do not fit, a solver that accumulates
            gradients itself, or one that is shared already.
    """
    if not isinstance(solver, Solver):
        raise NetError(f"Distributed: expected a solver, such as lk.Adam(net), got {brief(solver)}")
    if not isinstance(comm, Communicator):
        raise NetError(
            f"Distributed: expected a communicator, such as lk.distributed.mpi(), got {brief(comm)}"
        )
    if solver.team is not None:
        raise NetError("Distributed: processes share this solver already; make another")
    shards = (
        comm.size if shards is None else accept(Whole(least=1), shards, "shards", "Distributed")
    )
    check = accept(Whole(least=1), check, "check", "Distributed")
    if shards & (shards - 1) or comm.size & (comm.size - 1) or shards % comm.size:
        raise NetError(
            f"Distributed: {shards} shards for {comm.size} processes: both must be powers of two, "
            "and there must be at least as many shards as processes"
        )
    if accept(Truth(), sync, "sync", "Distributed") and shards != comm.size:
        raise NetError(
            f"Distributed: {shards} shards on {comm.size} processes: sync=True needs a process for "
            "each shard, as all wait for each other in every BatchNorm"
        )
    if solver.accumulate > 1:
        raise NetError(
            f"Distributed: {solver.label()} accumulates gradients (accumulate="
            f"{solver.accumulate}); give that many times the shards instead"
        )
    solver.team = Team(solver.net, comm, shards, sync, check)
    return solver
