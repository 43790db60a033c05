"""Team: the shards of every batch, and the processes that share them."""

from __future__ import annotations

import hashlib
import math
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from layerkit import errors
from layerkit.backends.base import Array, Backend
from layerkit.distributed.communicator import Communicator
from layerkit.engines.base import Runner
from layerkit.errors import LayerkitError, NetError, NotFiniteError, brief
from layerkit.layers.weights.normalization import BatchNorm
from layerkit.settings import Truth, Whole, accept
from layerkit.solvers.solver import Solver
from layerkit.solvers.updates.histories import tree_levels
from layerkit.system.uninterrupted import Uninterrupted
from layerkit.wiring.plan import Plan

if TYPE_CHECKING:
    from layerkit.net import Net

AnySolver = TypeVar("AnySolver", bound=Solver)

# Places behind the gradient; then come losses and metrics, and the statistics.
FAILED, STOP, OBJECTIVE, REGULARISATION, FIXED = range(5)


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
        check: steps from one comparison of all processes' parameters and histories to the next,
            default 1000; they are compared before the first step too, and after a snapshot was
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


class _Terms:
    """A gradient with the numbers that are sent behind it, in one array of bytes."""

    def __init__(self, size: int, behind: int, dtype: np.dtype, backend: Backend):
        stop = size * dtype.itemsize
        start = -(-stop // 64) * 64
        self.bytes = backend.zeros((start + 8 * behind,), np.uint8)
        self.gradient = self.bytes[:stop].view(dtype)
        self.behind = self.bytes[start:].view(np.float64)


class Team:
    """The processes that share the steps of a solver, as one of them sees it.

    Args:
        net: that each process has.
        comm: between the processes.
        shards: of a step, over all processes.
        sync: whether BatchNorm pools its means over all of them.
        check: steps from one comparison of the processes to the next.

    Attributes:
        comm, shards: as given.
        own: the numbers of the shards of this process.
        stopping: set it to True to ask all processes to stop.
        stopped: whether any process has asked for it by the last step.
    """

    def __init__(self, net: Net, comm: Communicator, shards: int, sync: bool, check: int):
        if comm.size > 1 and comm.on_gpu != (net.backend.name == "cupy"):
            wanted = "cupy" if comm.on_gpu else "numpy"
            raise NetError(f"Distributed: this communicator needs a net with backend={wanted!r}")
        self.comm, self.shards = comm, shards
        self.stopping = self.stopped = False
        each = shards // comm.size
        self.own = range(comm.rank * each, (comm.rank + 1) * each)
        self._net, self._check = net, check
        self._behind = FIXED + len(net.reported) + sum(s.data.size for s in net.statistics.values())
        self._terms: list[_Terms] = []
        self._pooled = [x for x in net.layers.values() if sync and isinstance(x, BatchNorm)]
        for layer in self._pooled:
            net.runners[layer.name] = Runner(layer)  # array code, which can wait for others
        net.rewire()
        self._size = -1  # of the gradient in the terms
        self._next: int | None = None  # iteration of the next step, unless a snapshot is loaded

    def step(self, solver: Solver, inputs: dict[str, Any]) -> float:
        """Make a step together with the other processes; return the objective, over all shards.

        Raises:
            LayerkitError: something went wrong in any process.  All of them raise it, with the rank
                and the cause of the first; neither a parameter nor a history has changed.
        """
        net, state, iteration, made = self._net, self._net.state(), solver.iteration, False
        statistics = [s.data.copy() for s in net.statistics.values()]
        net.differentiated = False
        if iteration != self._next or iteration % self._check == 0:
            self._compare(solver)
        try:
            with net.engine.flushed():
                plan, rate = solver.plan(), solver.rate_now()
                spans = net.arena.trainable_spans()
                self._make_room(sum(span.stop - span.start for span in spans))
                self._pool(True)
                self._sum_shards(solver, plan, spans, inputs, state, statistics)
                own, taken = self._terms[:2]
                self.comm.add_up(
                    own.bytes, taken.bytes, self._add_taken, [own.gradient, own.behind]
                )
                self._agree()
                with Uninterrupted():
                    loss, sizes = self._take_means(spans, state)
                    solver.apply_mean(rate, loss, spans, sizes)
                    made = True
        finally:
            self._pool(False)
            if not made:
                solver.iteration = iteration
                net.set_state(state)
                self._set_statistics(statistics)
        self._next = solver.iteration
        return loss

    def _pool(self, on: bool) -> None:
        """Let BatchNorm layers take the means over all shards, or of a batch by itself."""
        for layer in self._pooled:
            layer.pooling = (self.shards, self._mean_over_shards) if on else None

    def _mean_over_shards(self, means: Array) -> Array:
        total, taken = (
            means.astype(np.float64).reshape(-1),
            self._net.backend.zeros((means.size,), "f8"),
        )

        def add() -> None:
            self._net.backend.xp.add(total, taken, out=total)

        self.comm.add_up(total, taken, add, [total])
        return (total / self.shards).astype(means.dtype).reshape(means.shape)

    def _make_room(self, size: int) -> None:
        """Make room for this process's sum, for what comes from others, and for partial sums."""
        if size != self._size:
            levels = (len(self.own) - 1).bit_length()
            dtype = self._net.dtype
            self._terms = [
                _Terms(size, self._behind, dtype, self._net.backend) for _ in range(2 + levels)
            ]
            self._size = size

    def _sum_shards(
        self,
        solver: Solver,
        plan: Plan,
        spans: list[slice],
        inputs: dict[str, Any],
        state: dict[str, int],
        statistics: list[np.ndarray],
    ) -> None:
        """Fill the first of the terms with the sum over the shards of this process."""
        net, terms = self._net, self._terms
        self._error: BaseException | None = None
        try:
            rows, inputs = self._rows(inputs)
            for i, shard in enumerate(self.own):
                self._set_statistics(statistics)
                self._begin_pass(state, shard, rows)
                part = slice(shard * rows, (shard + 1) * rows)
                loss = net.passes.forward(plan, {name: a[part] for name, a in inputs.items()})
                if not math.isfinite(loss):
                    raise NotFiniteError(solver.not_finite(loss))
                net.passes.backward(plan, {})
                self._fill(terms[0], spans, loss)
                if not (self._sizes(spans) <= solver.largest_gradient()).all():
                    raise NotFiniteError(solver.not_finite(loss))
                levels, keep = tree_levels(i, len(self.own))
                for level in levels:
                    self._add(terms[0], terms[2 + level])
                if keep is not None:
                    terms[0], terms[2 + keep] = terms[2 + keep], terms[0]
        except Exception as error:  # which the others are told of
            if self._pooled:  # they may be waiting in a layer
                self.comm.fail(error)
            self._error = error
            terms[0].bytes.fill(0)
        terms[0].behind[FAILED] = self._error is not None
        terms[0].behind[STOP] = self.stopping

    def _rows(self, inputs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the rows of a shard, and the inputs as arrays of those of all shards."""
        if not inputs:
            return self._net.run.batch_size, {}
        arrays = {name: a if hasattr(a, "shape") else np.asarray(a) for name, a in inputs.items()}
        for name, a in arrays.items():
            if not a.shape or len(a) % self.shards or not len(a):
                raise NetError(
                    f"step: blob {name!r}: an input holds the rows of {self.shards} shards, and so "
                    f"a multiple of that; got an array of shape {a.shape}"
                )
        return len(next(iter(arrays.values()))) // self.shards, arrays

    def _begin_pass(self, state: dict[str, int], shard: int, rows: int) -> None:
        """Let the next pass be that of a shard: shards 0 to S - 1 are passes one after another."""
        net = self._net
        net.run.passes = state["passes"] + shard
        for source in net.sources():
            source.position = state[f"position/{source.name}"] + shard * rows

    def _set_statistics(self, values: list[np.ndarray]) -> None:
        for s, a in zip(self._net.statistics.values(), values, strict=True):
            s.data[...] = a

    def _sizes(self, spans: list[slice]) -> np.ndarray:
        return np.array([self._net.engine.magnitude(self._net.arena.diff[s]) for s in spans])

    def _pieces(self, spans: list[slice]) -> Iterator[tuple[slice, slice]]:
        """Yield spans of the arena with where they lie in the terms."""
        start = 0
        for span in spans:
            stop = start + span.stop - span.start
            yield span, slice(start, stop)
            start = stop

    def _fill(self, terms: _Terms, spans: list[slice], loss: float) -> None:
        """Put a shard's gradient into terms, and what is sent behind it."""
        net = self._net
        for span, piece in self._pieces(spans):
            net.engine.copy(net.arena.diff[span], terms.gradient[piece])
        found = {**net.losses, **net.metrics}
        values = [0.0, 0.0, loss, net.regularisation, *(found[x.name] for x in net.reported)]
        terms.behind[: len(values)] = net.backend.asarray(values, np.float64)
        at = len(values)
        for s in net.statistics.values():
            terms.behind[at : at + s.data.size] = s.data.reshape(-1)
            at += s.data.size

    def _add(self, total: _Terms, part: _Terms) -> None:
        self._net.engine.add_to(total.gradient, part.gradient)
        total.behind += part.behind

    def _add_taken(self) -> None:
        self._add(self._terms[0], self._terms[1])

    def _agree(self) -> None:
        """Raise the error of the first process that has one, in all of them."""
        behind = self._terms[0].behind
        self.stopped = bool(behind[STOP])
        if not behind[FAILED]:
            return
        own = self._error
        if own is not None and not isinstance(own, LayerkitError):  # a bug: keep where it is
            traceback.print_exception(own)
        told = own and (type(own).__name__, self.comm.explain(own))
        name, message = next(x for x in self.comm.gather(told) if x)
        kind = getattr(errors, name, LayerkitError)
        error = kind(message)
        error.agreed = True
        raise error from own

    def _take_means(self, spans: list[slice], state: dict[str, int]) -> tuple[float, np.ndarray]:
        """Put the means over all shards into the net; return objective and gradient's sizes."""
        net, terms, share = self._net, self._terms[0], 1 / self.shards
        for span, piece in self._pieces(spans):
            net.backend.xp.multiply(terms.gradient[piece], share, out=net.arena.diff[span])
        loss, net.regularisation, *rest = (terms.behind[OBJECTIVE:] * share).tolist()
        for layer, mean in zip(net.reported, rest, strict=False):
            (net.losses if layer.is_loss else net.metrics)[layer.name] = mean
        at = len(net.reported)
        for s in net.statistics.values():
            mean = np.reshape(rest[at : at + s.data.size], s.data.shape)
            s.data[...] = net.backend.asarray(mean)
            at += s.data.size
        self._begin_pass(state, self.shards, net.rows)
        return loss, self._sizes(spans)

    def _compare(self, solver: Solver) -> None:
        """Fail unless all processes have the same parameters, histories and settings."""
        net = self._net
        parts: dict[str, list[Any]] = {
            "numbers of shards and of rows": [str((self.shards, net.run.batch_size)).encode()],
            "nets": [f"{net.dtype} {[(n, p.shape) for n, p in net.params.items()]}".encode()],
            "parameters": [net.arena.data],
            "statistics": [s.data for s in net.statistics.values()],
            "histories of the solver": list(solver.history.values()),
            "seed, passes and positions": [repr(net.state()).encode()],
            "iterations": [str(solver.iteration).encode()],
        }
        digests = {}
        for name, arrays in parts.items():
            digest = hashlib.blake2b(digest_size=16)
            for array in arrays:
                digest.update(
                    array if isinstance(array, bytes) else net.backend.to_host(array).data
                )
            digests[name] = digest.hexdigest()
        found = self.comm.gather(digests)
        for name in parts:
            other = [r for r, its in enumerate(found) if its[name] != found[0][name]]
            if other:
                error = NetError(
                    f"Distributed: rank {other[0]} differs from rank 0 in its {name}; all "
                    "processes must make net and solver alike, and load the same snapshot"
                )
                error.agreed = True
                raise error
