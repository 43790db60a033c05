"""Solver: one training step, and what all solvers have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.backends.kernels import call_update, kernel, parallel_for
from layerkit.errors import NetError, NotFiniteError
from layerkit.layer import overrides
from layerkit.net import Net, Plan
from layerkit.profile import Profile, profile
from layerkit.solvers.rates import RatePolicy, get
from layerkit.solvers.recorded import CONSTANTS, CudaUpdate, Recorded


@dataclass
class Update:
    """What a layer needs to change its parameters by itself.

    Attributes:
        address: of the compiled update, for `call_update` in a kernel.
        constants: its float64 constants, of this step.
        histories: name of a parameter -> two histories of its shape (twice the same, if the solver
            has one only).
        flat: the same histories beside the whole arena.
    """

    address: int
    constants: np.ndarray
    histories: dict[str, list[Array]]
    flat: list[Array]


class Solver:
    """Minimises a net's objective; a subclass defines `update`.

    Args:
        net: the net to train; it needs at least one loss layer.
        rate: learning rate, a number or a policy from layerkit.rates.
        clip: largest allowed Euclidean norm of the whole gradient; a larger one is scaled down to
            it (a GPU scales it while it is used, and leaves the diffs as they were).  None, the
            default, does not clip.

    Attributes:
        iteration: how many steps have been made.
        history: name -> flat array beside the net's arena, such as Adam's moments.
        fuse: whether `step` lets layers change their parameters in the backward pass, which is
            faster and leaves such parameters' diffs as they were.  True by default; without effect
            where the gradient is clipped, a parameter regularised or frozen, or without kernels.
        curves: name of each loss and metric layer -> its value in each step of the last call of
            `steps`.
        record: whether a GPU replays a recorded step, which is faster; True by default, without
            effect where a layer cannot be recorded (see Layer).
    """

    histories: ClassVar[tuple[str, ...]] = ()

    def __init__(self, net: Net, rate: float | RatePolicy, clip: float | None = None):
        if not any(layer.is_loss for layer in net.layers.values()):
            raise NetError("this net has no loss layer, so there is nothing to minimise; add one")
        if net.gradients == "none":
            raise NetError("this net has no gradients (phase 'test'); train one of phase 'train'")
        if clip is not None and not clip > 0:
            raise NetError(f"clip must be positive or None, got {clip}")
        self.net = net
        self.rate = get(rate)
        self.clip = clip
        self.iteration = 0
        size = net.arena.data.shape
        self.history = {name: net.backend.zeros(size, net.dtype) for name in self.histories}
        self.fuse = self.record = True
        self.curves: dict[str, np.ndarray] = {}
        self._update: Update | None = None
        if net.run.team is not None and overrides(type(self), "update_kernel", ("update",)):
            self._update = self._make_update()
        self._cuda: CudaUpdate | None = None
        if net.run.device is not None and overrides(type(self), "update_cuda", ("update",)):
            constants = net.backend.zeros((CONSTANTS,), "float64")
            self._cuda = CudaUpdate(self.update_cuda(), constants, *self._histories())
        self._recorded: dict[Any, Recorded] = {}
        self._plan: Plan | None = None
        self._planned: Any = None

    def _make_update(self) -> Update:
        return Update(self.update_kernel(), np.zeros(8), *self._histories())

    def _histories(self) -> tuple[dict[str, list[Array]], list[Array]]:
        """Two histories of each parameter, and of the whole arena."""
        arrays = [self.history[name] for name in self.histories]
        pair = [arrays[0], arrays[-1]]
        of_each = {
            p.name: [a[p.offset : p.offset + p.size].reshape(p.shape) for a in pair]
            for p in self.net.arena.parameters.values()
        }
        return of_each, pair

    def step(self, **inputs: Any) -> float:
        """Forward, backward, update; returns the objective before the update.

        Args:
            inputs: one array for each Input layer of the net; see Net.forward.

        Raises:
            NotFiniteError: the objective is infinite or not a number; no parameter has changed.

        To look at gradients afterwards, set `fuse` to False or call net.forward and net.backward.
        """
        if self._cuda is not None:
            return float(self.steps(1, **inputs)[0])
        net = self.net
        plan = self.plan()
        loss = net.run_forward(plan, inputs)
        if not math.isfinite(loss):
            raise NotFiniteError(self.not_finite(loss))
        rate = self.rate(self.iteration)
        self.iteration += 1
        if self._update is not None:
            self._update.constants[:] = self.constants(rate)
        net.run_backward(plan, {})
        if self.clip is not None:
            self._clip([net.arena.diff[span] for span in self._rest])
        for span in self._rest:
            self._update_span(span, rate)
        return loss

    def steps(self, count: int, **inputs: Any) -> np.ndarray:
        """Makes `count` steps; returns the objective before each, float64 of shape (count,).

        On a GPU this is the fast way to train, as nothing is waited for between the steps.

        Args:
            inputs: as for `step`, the same for all steps.

        Raises:
            NotFiniteError: as `step`; the steps before the one that failed have been made.
        """
        if count < 1:
            raise NetError(f"steps: count must be at least 1, got {count}")
        names = [layer.name for layer in self.net.reported]
        if self._cuda is not None:
            results = self._recorder(inputs).run(count)
        else:
            results = np.empty((count, 1 + len(names)))
            for row in results:
                row[0] = self.step(**inputs)
                row[1:] = [{**self.net.losses, **self.net.metrics}[name] for name in names]
        self.curves = dict(zip(names, results.T[1:], strict=True))
        return results[:, 0]

    def _recorder(self, inputs: dict[str, Any]) -> Recorded:
        """The recorded step for what is asked now."""
        assert self._cuda is not None
        before, plan, net = self._plan, self.plan(), self.net
        if plan is not before:
            self._recorded.clear()
        net.feed(inputs)
        apart = [x.weight for x in net.layers.values() if x.is_loss and x.name not in plan.losses]
        key = net.rows, self.clip, tuple(apart)
        if key not in self._recorded:
            if len(self._recorded) > 7:  # numbers of rows, or weights, that come and go
                self._recorded.clear()
            self._recorded[key] = Recorded(self, self._cuda, plan, self._rest)
        return self._recorded[key]

    def not_finite(self, loss: float) -> str:
        """What is wrong, where the last pass gave this loss."""
        where = self.net.first_non_finite() or "the sum of the losses"
        return (
            f"the loss is {loss} at iteration {self.iteration}: first in {where}; lower the rate, "
            "clip the gradient, or look at the data"
        )

    def plan(self) -> Plan:
        """What `step` calls, decided anew whenever a setting on which that depends changes."""
        net = self.net
        update = (self._update or self._cuda) if self.fuse and self.clip is None else None
        settings = (
            net.version, update is None, [(p.trainable, p.l1, p.l2) for p in net.params.values()]
        )
        if self._plan is None or self._planned != settings:
            self._planned = settings
            self._plan = net.plan(update)
            self._rest = net.arena.trainable_spans(self._plan.updated)
        return self._plan

    def profile(self, iterations: int = 50, **inputs: Any) -> Profile:
        """Measures where the time of a step goes, by training for 2 * iterations + 3 steps.

        Args:
            iterations: steps to take the median of.
            inputs: as for `step`.

        Returns:
            A table: print it.
        """
        return profile(self, iterations, inputs)

    def _update_span(self, span: slice, rate: float) -> None:
        w, g = self.net.arena.data[span], self.net.arena.diff[span]
        if self._update is None:
            self.update(w, g, rate, **{name: a[span] for name, a in self.history.items()})
        else:
            assert self.net.run.team is not None
            first, second = (a[span] for a in self._update.flat)
            update_flat(
                self.net.run.team.board, self._update.address, w, g, first, second,
                self._update.constants,
            )

    def _clip(self, diffs: list[Array]) -> None:
        norm = math.sqrt(sum(float(self.net.xp.dot(d, d)) for d in diffs))
        if self.clip is not None and norm > self.clip:
            for diff in diffs:
                diff *= self.clip / norm

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Changes the parameters `w` given their gradient `g`; all arrays are flat.

        `self.iteration` counts this step, from 1.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        trained = [p for p in self.net.params.values() if p.trainable]
        return (
            f"{type(self).__name__}(rate={self.rate!r}, clip={self.clip}, "
            f"iteration={self.iteration}, {sum(p.size for p in trained):,} numbers in "
            f"{len(trained)} parameters)"
        )

    # With kernels.

    def update_kernel(self) -> int:
        """The address of the compiled update; see backends.kernels.update_kernel."""
        raise NotImplementedError

    def constants(self, rate: float) -> tuple[float, ...]:
        """The eight numbers that the compiled update of step `self.iteration` takes."""
        raise NotImplementedError

    def update_cuda(self) -> str:
        """The update of one element in CUDA.

        It defines `__device__ inline void update(real g, real* w, real* first, real* second, const
        double* constants)`, which changes one parameter and its histories given its gradient.
        """
        raise NotImplementedError


# Kernels.


@kernel
def _update_piece(i, address, w, g, first, second, constants, size):
    piece = slice(i * size, min((i + 1) * size, w.size))
    call_update(address, w[piece], g[piece], first[piece], second[piece], constants)


@kernel
def update_flat(team, address, w, g, first, second, constants):
    """A solver's update of flat arrays of one length, in pieces of a fixed size."""
    size = 16384
    parallel_for(team, _update_piece, -(-w.size // size), (
        address, w, g, first, second, constants, size
    ))
