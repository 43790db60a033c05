"""Training steps that a GPU makes by itself, replaying one recorded step.

Reading the next minibatch, noise, forward, backward, clipping, update and the means of the losses
are one CUDA graph.  All that changes from step to step is in the GPU's memory: the number of the
pass and the position in the data on the clock, which a kernel of each step advances; the solver's
constants in a table with a row for each of the next steps, filled by the code that the CPU uses;
losses in another such table, read when all steps are made.  If a loss or a gradient is not finite
the clock is halted, and kernels that change parameters leave them as they are, in all steps
that follow.

The sum of gradients and losses over GPUs that share the steps, one shard each, is part of the
graph; see layerkit.distributed.team.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from layerkit.engines.base import Update
from layerkit.engines.cuda.chain import chained
from layerkit.engines.cuda.runners.data import ResidentData
from layerkit.engines.cuda.siblings import merged_backward, merged_forward
from layerkit.errors import NetError, NotFiniteError
from layerkit.layer import Layer
from layerkit.passes.feeding import feed
from layerkit.system.uninterrupted import Uninterrupted

HALTED, STEP, PASS, POSITION = range(4)  # slots of the clock, as in device.h
STEPS = 1024  # that are made, at most, before losses are looked at
CONSTANTS = 8  # of a solver, in each step
LOOKING = 256  # blocks that look at a gradient
KEPT = 8  # recorded steps, for batches of other sizes and for settings that come and go


def plain_settings(layer: Layer) -> tuple[Any, ...]:
    """Return those attributes of a layer that can decide what its kernels do.

    They are numbers, names and truth values, those of an activation inside the layer included.
    Those that change from step to step are left out: the position in the data, and the weight of a
    loss, which a recorded step reads anew.
    """
    found: list[Any] = []
    for name, value in vars(layer).items():
        if name.startswith("_") or name in ("position", "weight"):
            continue
        if isinstance(getattr(type(layer), name, None), functools.cached_property):
            continue  # follows from the others
        if isinstance(value, Layer):
            found.append((name, plain_settings(value)))
        elif _is_plain(value):
            found.append((name, tuple(value) if isinstance(value, list) else value))
    return tuple(found)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | complex | str | np.generic)


class Steps:
    """The steps of a solver on a GPU, recorded for each setting that they depend on.

    Args:
        solver: a Solver whose update is a formula.
        engine: that of its net.
        update: of this solver.

    Attributes:
        recorded: settings -> the step that was recorded with them.
    """

    def __init__(self, solver: Any, engine: Any, update: Update):
        self.solver, self.engine, self.update = solver, engine, update
        self._plan: Any = None
        self.recorded: dict[Any, Recorded] = {}

    def run(self, count: int, inputs: dict[str, Any]) -> np.ndarray:
        """Make steps.

        Args:
            count: how many.
            inputs: as for Solver.step, equal for all steps.

        Returns:
            (count, 1 + reported): the objective and each loss and metric before each step.

        Raises:
            NotFiniteError: as Solver.step; the steps before the one that failed have been made.
        """
        net = self.solver.net
        # In phase "test" the last batch of an epoch is shorter, so each has to be looked at.
        alike = count if net.run.training or not net.sources() else 1
        runs = [self._recorder(inputs).run(alike) for _ in range(count // alike)]
        return np.concatenate(runs)

    def can_share(self) -> bool:
        """Tell whether the sum over the GPUs of a team can be part of the recorded step.

        Each GPU then has one shard, and data in its memory; running statistics are not shared so.
        A gradient is clipped by a norm that has other bits than the one of steps made call by call.
        """
        solver, net = self.solver, self.solver.net
        if not solver.team.records or (solver.team.exact and solver.clip is not None):
            return False
        resident = all(isinstance(net.runners[x.name], ResidentData) for x in net.sources())
        return resident and not (net.statistics or solver.hooks)

    def _recorder(self, inputs: dict[str, Any]) -> Recorded:
        """Return the recorded step for what is asked now."""
        solver, net = self.solver, self.solver.net
        plan, run = solver.plan(), net.run
        if plan is not self._plan:
            self._plan = plan
            self.recorded.clear()
        feed(net, inputs)
        apart = [x.weight for x in net.layers.values() if x.is_loss and x.name not in plan.losses]
        settings = tuple(plain_settings(layer) for layer in net.layers.values())
        key = net.rows, solver.clip, tuple(apart), run.seed, run.sample, run.training, settings
        if key not in self.recorded:
            if len(self.recorded) >= KEPT:
                self.recorded.clear()
            self.recorded[key] = Recorded(self, plan)
        return self.recorded[key]


class Recorded:
    """The step of a solver for one plan and one number of rows.

    Args:
        steps: of which solver, in which engine.
        plan: see Net.plan.
    """

    def __init__(self, steps: Steps, plan: Any):
        self.solver, self.engine, self.update = steps.solver, steps.engine, steps.update
        self.plan, self.spans, self.team = plan, self.solver.spans, self.solver.team
        net = self.net = self.solver.net
        of_spans = [net.arena.multipliers(span) for span in self.spans]
        self.multipliers = list(dict.fromkeys(of_spans))  # each with constants of its own
        self._groups = [self.multipliers.index(pair) for pair in of_spans]
        width = CONSTANTS * max(len(self.multipliers), 1)
        xp = net.xp
        self.reported, self.losses = net.reported, [x for x in net.reported if x.is_loss]
        self.terms = [(p, kind) for p in net.params.values() for kind in (0, 1) if p.penalty[kind]]
        self._term = xp.zeros(max(len(self.terms), 1), "float64")
        self._factors = xp.zeros(len(self.losses) + len(self.terms), "float64")
        self._table = xp.zeros((STEPS, width), "float64")
        self._constants = xp.zeros(width, "float64")
        self._results = xp.zeros((STEPS, 2 + len(self.reported)), "float64")
        self._squares = xp.zeros(max(len(self.spans), 1) * LOOKING, "float64")
        self._beyond = xp.zeros_like(self._squares)
        self._shrink = xp.ones(1, net.dtype) if self.solver.clip is not None else None
        self.recordable = all(call.recordable for call in [*plan.forward, *plan.backward])
        self._merged = plan
        if self.team is None or not self.team.exact:  # merged calls add up in another order
            self._merged = dataclasses.replace(
                plan,
                forward=chained(merged_forward(plan.forward, net.runners), net, backward=False),
                backward=chained(merged_backward(plan.backward, net.runners), net, backward=True),
            )
        self._called = False  # which loads all kernels; only then can they be recorded
        self._replay: Any = None

    def run(self, count: int) -> np.ndarray:
        """Make steps; see Steps.run."""
        longest = STEPS if self.recordable else 1
        parts: list[np.ndarray] = []
        while (done := sum(map(len, parts))) < count:
            wanted = min(longest, count - done)
            parts.append(self._run(wanted))
            if len(parts[-1]) < wanted and self.team is not None:
                break
        return np.delete(np.concatenate(parts), 1, axis=1)  # without the terms of regularisation

    def _run(self, count: int) -> np.ndarray:
        solver, net, engine = self.solver, self.net, self.engine
        sources, rows = net.sources(), net.rows
        iteration, passes = solver.iteration, net.run.passes
        positions = [x.position for x in sources]
        shards, own = (1, 0) if self.team is None else (self.team.shards, self.team.own.start)

        def count_steps(made: int, shard: int = 0) -> None:
            done = made * shards + shard
            solver.iteration, net.run.passes = iteration + made, passes + done
            for source, position in zip(sources, positions, strict=True):
                source.position = position + done * rows

        count = self._upload(count)
        solver.start_average()
        step = 0
        with Uninterrupted() as interrupt:  # Ctrl-C is heard between two steps
            count_steps(0, own)
            engine.set_clock(
                net.run.passes + 1, [runner.layer.position for runner in engine.sources]
            )
            engine.forget_clock()
            try:
                # GPUs that share steps make equally many.
                while step < count and not (interrupt.requested and self.team is None):
                    count_steps(step, own)
                    net.run.passes += 1
                    for runner in engine.sources:
                        runner.prepare()
                    self._step()
                    step += 1
                    count_steps(step)
                    engine.end_pass(net.run)
            finally:  # data that cannot be read, say: so many steps have been made
                count_steps(step)
            return self._settle(step, count_steps)

    def _settle(self, count: int, count_steps: Callable[[int], None]) -> np.ndarray:
        """Wait for so many steps, and say what came of them."""
        solver, net = self.solver, self.net
        results = net.backend.to_host(self._results[:count])
        clock = net.backend.to_host(self.engine.clock)
        made = int(clock[STEP]) if clock[HALTED] else count
        if count:
            last = results[min(made, count - 1)]
            means = dict(zip((x.name for x in self.reported), last[2:].tolist(), strict=True))
            net.losses.update({x.name: means[x.name] for x in self.losses})
            net.metrics.update({k: v for k, v in means.items() if k not in net.losses})
            net.regularisation = float(last[1])
        if made < count and self.team is not None:
            count_steps(made)  # the next step is made call by call, which finds whose fault it is
            return results[:made]
        if made < count:
            count_steps(made + 1)  # of data and noise, but not of updates
            solver.iteration -= 1
            raise NotFiniteError(solver.not_finite(float(results[made, 0])))
        return results

    def _upload(self, count: int) -> int:
        """Bring to the GPU what the host knows of the next steps; return for how many it does.

        Raises:
            NetError: the rate of the first of them is none.
        """
        solver, net = self.solver, self.net
        table, start = np.zeros((count, self._table.shape[1])), solver.iteration
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
                for group, (of_rate, of_decay) in enumerate(self.multipliers):
                    place = slice(group * CONSTANTS, (group + 1) * CONSTANTS)
                    table[row, place] = solver.constants(rate * of_rate, of_decay)
        finally:
            solver.iteration = start
        self._table[:count].set(table[:count])
        weights = [x.weight for x in self.losses]
        terms = [p.penalty[kind] / (1 + kind) for p, kind in self.terms]
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
                    "call instead, which is slower",
                    RuntimeWarning,
                    stacklevel=6,
                )
                self.recordable = False
            for source, position in zip(sources, positions, strict=True):
                source.position = position
            self._step()

    def _body(self) -> None:
        """Make one step, without a word from the host."""
        net, engine, launch = self.net, self.engine, self.engine.launch
        for _, call, bottoms, tops, *_ in self._merged.forward:
            call(bottoms, tops)
        for i, (p, kind) in enumerate(self.terms):
            sizes = net.xp.square(p.data) if kind else net.xp.abs(p.data)
            net.xp.sum(sizes, dtype="float64", out=self._term[i : i + 1].reshape(()))
        net.passes.backward(self._merged, {})
        means = None if self.team is None else self.team.add_up_recorded(self.spans)
        for i, span in enumerate(self.spans):
            blocks = slice(i * LOOKING, (i + 1) * LOOKING)
            diff, limit = net.arena.diff[span], np.float64(self.solver.largest_gradient())
            launch(
                "step",
                "look",
                LOOKING,
                diff.size,
                diff,
                limit,
                self._squares[blocks],
                self._beyond[blocks],
            )
        launch(
            "step",
            "check",
            1,
            net.rows,
            1 if self.team is None else self.team.shards,
            len(self.losses),
            *net.values.shape,
            len(self.terms),
            net.values,
            means,
            self._term,
            self._factors,
            self._results,
            self._squares.size,
            self._squares,
            self._beyond,
            np.float64(self.solver.clip or 0),
            self._shrink,
            self._constants.size,
            self._table,
            self._constants,
            len(engine.sources),
            engine.clock,
        )
        for span, group in zip(self.spans, self._groups, strict=True):
            w, g = net.arena.data[span], net.arena.diff[span]
            constants = self._constants[group * CONSTANTS : (group + 1) * CONSTANTS]
            engine.change(self.update, span, w, g, constants, self._shrink)
        self.solver.constrain()
        self.solver.take_average()
