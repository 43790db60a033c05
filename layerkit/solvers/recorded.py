"""Recorded: training steps that a GPU makes by itself, replaying one recorded step.

Reading the next minibatch, noise, forward, backward, clipping, update and the means of the losses
are one CUDA graph.  What changes from step to step stands in the GPU's memory: the number of the
pass and the place in the data on the clock (backends/cuda.py), which a kernel at the start of the
graph advances; the solver's constants in a table with a row for each of the next steps, filled by
the same code as on the CPU; losses in another such table, read when all steps are made.  Where a
loss or a gradient is not finite the clock is halted, and kernels that change parameters leave them
as they are, in all steps that follow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.errors import NetError, NotFiniteError
from layerkit.net import Plan
from layerkit.solvers.uninterrupted import Uninterrupted

STEPS = 1024  # that are made, at most, before losses are looked at
CONSTANTS = 8
NORM_BLOCKS = 256  # that look at a gradient


@dataclass
class CudaUpdate:
    """A solver's update on a GPU.

    Attributes:
        source: the solver's `update` in CUDA.
        constants: its constants in this step, in the GPU's memory.
        flat: two histories beside the whole arena, twice the same if the solver has one only.
    """

    source: str
    constants: Array
    flat: list[Array]


class Recorded:
    """The step of a solver for one plan and one number of rows.

    Args:
        solver: a Solver on a GPU, with an update in CUDA.
        update: of this solver.
        plan: see Net.plan.
        spans: what of the arena is trained.
    """

    def __init__(self, solver: Any, update: CudaUpdate, plan: Plan, spans: list[slice]):
        self.solver, self.update, self.plan, self.spans = solver, update, plan, spans
        net = self.net = solver.net
        assert net.run.device is not None
        self.device, xp = net.run.device, net.xp
        self.reported, self.losses = net.reported, [x for x in net.reported if x.is_loss]
        self.terms = [
            (p, kind) for p in net.params.values() for kind in ("l1", "l2") if getattr(p, kind)
        ]
        self._term = xp.zeros(max(len(self.terms), 1), "float64")
        self._factors = xp.zeros(len(self.losses) + len(self.terms), "float64")
        self._table = xp.zeros((STEPS, CONSTANTS), "float64")
        self._results = xp.zeros((STEPS, 2 + len(self.reported)), "float64")
        self._squares = xp.zeros(max(len(spans), 1) * NORM_BLOCKS, "float64")
        self._beyond = xp.zeros_like(self._squares)
        self._shrink = xp.ones(1, net.dtype) if solver.clip is not None else None
        calls = [c[:2] for c in plan.forward] + [c[:2] for c in plan.backward]
        self.recordable = all(layer.can_record(call) for layer, call in calls)
        self._called = False  # which loads all kernels; only then can they be recorded
        self._replay: Any = None

    def run(self, count: int) -> np.ndarray:
        """Makes `count` steps: (count, 1 + reported), the objective and each loss and metric.

        Raises:
            NotFiniteError: as Solver.step; the steps before the one that failed have been made.
        """
        longest = STEPS if self.recordable else 1
        parts: list[np.ndarray] = []
        while (done := sum(map(len, parts))) < count:
            parts.append(self._run(min(longest, count - done)))
        return np.delete(np.concatenate(parts), 1, axis=1)  # without the terms of regularisation

    def _run(self, count: int) -> np.ndarray:
        solver, net = self.solver, self.net
        sources, rows = net.sources(), net.rows
        iteration, passes = solver.iteration, net.run.passes
        positions = [x.position for x in sources]

        def count_steps(made: int) -> None:
            solver.iteration, net.run.passes = iteration + made, passes + made
            for source, position in zip(sources, positions, strict=True):
                source.position = position + made * rows

        count = self._upload(count)
        step = 0
        with Uninterrupted() as interrupt:  # Ctrl-C is heard between two steps
            self.device.set_clock(passes, [p - rows for p in positions], row=-1)
            self.device.forget_clock()
            try:
                while step < count and not interrupt.requested:
                    net.run.passes += 1
                    net.prepare()
                    self._step()
                    step += 1
                    count_steps(step)
                    net.look_ahead()
            finally:  # data that cannot be read, say: so many steps have been made
                count_steps(step)
            return self._settle(step, count_steps)

    def _settle(self, count: int, count_steps: Callable[[int], None]) -> np.ndarray:
        """Waits for so many steps, and says what came of them."""
        solver, net = self.solver, self.net
        results = net.backend.to_host(self._results[:count])
        clock = net.backend.to_host(self.device.clock)
        made = int(clock[cuda.ROW]) if clock[cuda.HALTED] else count
        if count:
            last = results[min(made, count - 1)]
            means = dict(zip((x.name for x in self.reported), last[2:].tolist(), strict=True))
            net.losses.update({x.name: means[x.name] for x in self.losses})
            net.metrics.update({k: v for k, v in means.items() if k not in net.losses})
            net.regularisation = float(last[1])
        if made < count:
            count_steps(made + 1)  # of data and noise, but not of updates
            solver.iteration -= 1
            raise NotFiniteError(solver.not_finite(float(results[made, 0])))
        return results

    def _upload(self, count: int) -> int:
        """Bring to the GPU what the host knows of the next steps; return for how many it does.

        Raises:
            NetError: a rate that is none in the first of them.
        """
        solver, net = self.solver, self.net
        table, start = np.empty((count, CONSTANTS)), solver.iteration
        try:
            for row in range(count):
                solver.iteration = start + row
                try:
                    rate = solver.rate_now()
                except NetError:
                    if not row:
                        raise
                    count = row  # the steps before it are made first
                    break
                solver.iteration += 1
                table[row] = solver.constants(rate)
        finally:
            solver.iteration = start
        self._table[:count].set(table[:count])
        weights = [x.weight for x in self.losses]
        terms = [p.l1 if kind == "l1" else p.l2 / 2 for p, kind in self.terms]
        self._factors.set(np.array([*weights, *terms], "float64"))
        for layer in self.losses:
            if layer.name in self.plan.losses:
                net.blobs[layer.tops[0]].diff.fill(layer.weight / net.rows)
        return count

    def _step(self) -> None:
        if not (self.solver.record and self.recordable):
            self._body()
        elif self._replay is not None:
            self._replay()
        elif not self._called:
            self._body()
            self._called = True
        else:
            sources = self.net.sources()
            positions = [x.position for x in sources]
            try:
                self._replay = self.net.backend.capture(self._body)
            except Exception as error:  # CUDA's, CuPy's and a layer's own
                warnings.warn(
                    f"a step of this net cannot be recorded ({error}); the GPU is given call after "
                    "call instead, which is slower", RuntimeWarning, stacklevel=5,
                )
                self.recordable = False
            for source, position in zip(sources, positions, strict=True):
                source.position = position
            self._step()

    def _body(self) -> None:
        """One step, without a word from the host."""
        net, device, launch = self.net, self.device, self.device.launch
        launch(
            STEP, "begin_step", 1, len(net.sources()), net.rows, self._table,
            self.update.constants, device.clock,
        )
        for step in self.plan.forward:
            step.call(step.bottoms, step.tops)
        for i, (p, kind) in enumerate(self.terms):
            sizes = net.xp.abs(p.data) if kind == "l1" else net.xp.square(p.data)
            net.xp.sum(sizes, dtype="float64", out=self._term[i : i + 1].reshape(()))
        launch(
            STEP, "objective", 1, net.rows, len(self.losses), *net.values.shape, len(self.terms),
            net.values, self._term, self._factors, self._results, device.clock,
        )
        net.run_backward(self.plan, {})
        for i, span in enumerate(self.spans):
            blocks = slice(i * NORM_BLOCKS, (i + 1) * NORM_BLOCKS)
            diff, limit = net.arena.diff[span], np.float64(self.solver.largest_gradient())
            launch(
                STEP, "look", NORM_BLOCKS, diff.size, diff, limit, self._squares[blocks],
                self._beyond[blocks],
            )
        launch(
            STEP, "check", 1, self._squares.size, self._squares, self._beyond,
            np.float64(self.solver.clip or 0), self._shrink, device.clock,
        )
        for span in self.spans:
            w, g = net.arena.data[span], net.arena.diff[span]
            launch(
                self.update.source + UPDATE_FLAT, "update_flat", device.blocks(w.size), w.size, g,
                w, *(a[span] for a in self.update.flat), self.update.constants, self._shrink,
                device.clock,
            )


# CUDA.

STEP = cuda.source(r"""
// The clock moves on to the next step, whose constants are laid out.
KERNEL begin_step(i64 sources, i64 rows, const double* table, double* constants, i64* clock)
{
    if (threadIdx.x != 0 || clock[HALTED]) return;
    clock[ROW] += 1;
    clock[PASS] += 1;
    for (i64 i = 0; i < sources; ++i) clock[POSITION + i] += rows;
    for (int k = 0; k < 8; ++k) constants[k] = table[clock[ROW] * 8 + k];
}

// Into a row of `results`: the objective, its terms of regularisation, and the mean of each row of
// `values`, of which the first `losses` are part of the objective.  One block.
KERNEL objective(
    i64 rows, i64 losses, i64 tops, i64 stride, i64 terms, const real* values, const double* term,
    const double* factors, double* results, i64* clock)
{
    if (clock[HALTED]) return;
    double* result = results + clock[ROW] * (2 + tops);
    double total = 0, regularisation = 0;
    for (i64 i = 0; i < tops; ++i) {
        double sum = 0;
        for (i64 row = threadIdx.x; row < rows; row += THREADS) sum += values[i * stride + row];
        double mean = lanes_sum(sum, THREADS) / rows;
        if (i < losses) total += factors[i] * mean;
        if (threadIdx.x == 0) result[2 + i] = mean;
    }
    for (i64 i = 0; i < terms; ++i) regularisation += factors[losses + i] * term[i];
    if (threadIdx.x == 0) {
        result[0] = total + regularisation;
        result[1] = regularisation;
        if (!isfinite(result[0])) clock[HALTED] = 1;
    }
}

// The sum of a gradient's squares, and how many of its numbers are none or beyond `limit`, in as
// many parts as there are blocks.
KERNEL look(i64 size, const real* g, double limit, double* squares, double* beyond)
{
    double sum = 0, count = 0;
    for (i64 i = place(); i < size; i += (i64)gridDim.x * THREADS) {
        sum += (double)g[i] * g[i];
        count += fabs((double)g[i]) <= limit ? 0 : 1;
    }
    sum = lanes_sum(sum, THREADS);
    count = lanes_sum(count, THREADS);
    if (threadIdx.x == 0) {
        squares[blockIdx.x] = sum;
        beyond[blockIdx.x] = count;
    }
}

// Halts the clock where any number was beyond the limit; works out what the gradient must be
// multiplied by to have at most the norm `clip`.  One block.
KERNEL check(
    i64 parts, const double* squares, const double* beyond, double clip, real* shrink, i64* clock)
{
    double sum = 0, count = 0;
    for (i64 i = threadIdx.x; i < parts; i += THREADS) {
        sum += squares[i];
        count += beyond[i];
    }
    count = lanes_sum(count, THREADS);
    double norm = sqrt(lanes_sum(sum, THREADS));
    if (threadIdx.x != 0) return;
    if (count > 0) clock[HALTED] = 1;
    if (shrink) shrink[0] = norm > clip ? (real)(clip / norm) : (real)1;
}
""")

# In front of it stands a solver's `update`.
UPDATE_FLAT = r"""
KERNEL update_flat(
    i64 size, const real* g, real* w, real* first, real* second, const double* constants,
    const real* shrink, const i64* clock)
{
    i64 i = place();
    if (i >= size || clock[HALTED]) return;
    update(shrink ? shrink[0] * g[i] : g[i], w + i, first + i, second + i, constants);
}
"""
