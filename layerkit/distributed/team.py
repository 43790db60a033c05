"""Team: the shards of every batch, and the processes that share them."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit import errors
from layerkit.backends.base import Array, Backend
from layerkit.distributed.communicator import Communicator
from layerkit.distributed.comparison import Comparison, agreed
from layerkit.engines.base import Runner
from layerkit.errors import LayerkitError, NetError, NotFiniteError
from layerkit.layers.weights.normalization import BatchNorm
from layerkit.solvers.solver import Solver
from layerkit.solvers.updates.histories import tree_levels
from layerkit.system.uninterrupted import Uninterrupted
from layerkit.wiring.plan import Plan

if TYPE_CHECKING:
    from layerkit.net import Net

# Places behind the gradient; then come losses and metrics, and the statistics.
FAILED, STOP, ROWS, SQUARES, OBJECTIVE, REGULARISATION, FIXED = range(7)


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
        self._net, self._comparison = net, Comparison(net, comm, shards, check)
        self._behind = FIXED + len(net.reported) + sum(s.data.size for s in net.statistics.values())
        self._terms: list[_Terms] = []
        self._pooled = [x for x in net.layers.values() if sync and isinstance(x, BatchNorm)]
        for layer in self._pooled:
            net.runners[layer.name] = Runner(layer)  # array code, which can wait for others
        net.rewire()
        self._size = -1  # of the gradient in the terms

    def step(self, solver: Solver, inputs: dict[str, Any]) -> float:
        """Make a step together with the other processes; return the objective, over all shards.

        Raises:
            LayerkitError: something went wrong in any process.  All of them raise it, with the rank
                and the cause of the first; neither a parameter nor a history has changed.
        """
        net, state, iteration, made = self._net, self._net.state(), solver.iteration, False
        statistics = [s.data.copy() for s in net.statistics.values()]
        net.differentiated = False
        self._comparison.make(solver)
        try:
            with net.engine.flushed():
                plan, rate = solver.plan(), solver.rate_now()
                spans = net.arena.trainable_spans()
                self._make_room(sum(span.stop - span.start for span in spans))
                self._pool(True)
                self._sum_shards(solver, plan, spans, inputs, state, statistics)
                own, taken = self._terms[:2]
                self.comm.meet()
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
        self._comparison.expect(solver)
        return loss

    @property
    def records(self) -> bool:
        """True if a GPU can record the steps: it has one shard, and no BatchNorm that is pooled."""
        return self.comm.records and len(self.own) == 1 and not self._pooled

    @property
    def exact(self) -> bool:
        """True if the bits must be those of any number of processes, recorded or not."""
        return self.comm.size > 1 and self.comm.exact

    def steps(
        self, solver: Solver, recorded: Any, count: int, inputs: dict[str, Any]
    ) -> np.ndarray:
        """Make steps that a GPU has recorded, the sum over all GPUs in them.

        Args:
            solver: whose steps they are.
            recorded: makes them; see layerkit.engines.cuda.program.
            count: how many.
            inputs: as for `step`, equal for all steps.

        Returns:
            (count, 1 + reported): the objective and each loss and metric before each step.

        Raises:
            LayerkitError: as `step`; the steps before the one that failed have been made.
        """
        net, parts = self._net, list[np.ndarray]()
        self._comparison.make(solver)
        rows, arrays = self._rows(inputs)
        self._check_rows(rows)  # all are here, and agree
        first = self.own.start * rows
        own = {name: a[first : first + rows] for name, a in arrays.items()}
        solver.plan()
        self._make_room(sum(span.stop - span.start for span in solver.spans))
        while (made := sum(map(len, parts))) < count:
            parts.append(recorded.run(count - made, own))
            if made + len(parts[-1]) < count:  # something is not finite: find where
                loss = self.step(solver, inputs)
                found = {**net.losses, **net.metrics}
                parts.append(np.array([[loss, *(found[x.name] for x in net.reported)]]))
        self._comparison.expect(solver)
        self.stopped = any(self.comm.gather(self.stopping))
        return np.concatenate(parts)

    def add_up_recorded(self, spans: list[slice]) -> Array:
        """Turn the gradient in the diffs into the mean over all GPUs, by calls that are recorded.

        Args:
            spans: those of the arena that are trained.

        Returns:
            The means of losses and metrics over all GPUs, float64, on this one.
        """
        net, (own, taken) = self._net, self._terms[:2]
        means, xp = own.behind[FIXED : FIXED + len(net.reported)], self._net.xp
        own.behind.fill(0)
        for span, piece in self._pieces(spans):
            net.engine.copy(net.arena.diff[span], own.gradient[piece])
        for i in range(len(net.reported)):
            xp.sum(net.values[i, : net.rows], dtype="float64", out=means[i : i + 1].reshape(()))
        self.comm.add_up(own.bytes, taken.bytes, self._add_taken, [own.gradient, own.behind])
        for span, piece in self._pieces(spans):
            xp.multiply(own.gradient[piece], 1 / self.shards, out=net.arena.diff[span])
        xp.multiply(means, 1 / (self.shards * net.rows), out=means)
        return means

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

        self.comm.meet()
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
        values = [0.0, 0.0, net.rows, net.rows**2, loss, net.regularisation]
        values += [found[x.name] for x in net.reported]
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
            if behind[ROWS] ** 2 != self.shards * behind[SQUARES]:  # else they are equal
                self._check_rows(self._net.rows)
            return
        own = self._error
        if own is not None and not isinstance(own, LayerkitError):  # a bug: keep where it is
            traceback.print_exception(own)
        told = own and (type(own).__name__, self.comm.explain(own))
        name, message = next(x for x in self.comm.gather(told) if x)
        kind = getattr(errors, name, LayerkitError)
        raise agreed(kind(message)) from own

    def _check_rows(self, rows: int) -> None:
        """Raise an error in all processes where shards have different numbers of rows."""
        found = self.comm.gather(rows)
        for rank, its in enumerate(found):
            if its != found[0]:
                raise agreed(
                    NetError(
                        f"step: rank {rank} has shards of {its} rows, and rank 0 of {found[0]}; "
                        "all processes must be given as many"
                    )
                )

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
