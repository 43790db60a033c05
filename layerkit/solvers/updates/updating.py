"""Updating: from the gradient in the diffs of a net to new parameters, and what may stop it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.engines.base import Make, Update, call_layer
from layerkit.errors import NetError, NotFiniteError
from layerkit.net import Net
from layerkit.passes.finite import check_data, first_non_finite, non_finite_data
from layerkit.settings import Checked
from layerkit.solvers.updates.histories import AVERAGE, accumulated_names, tree_levels
from layerkit.solvers.updates.hooks import call_hooks
from layerkit.wiring.plan import Plan

SHOWN = (
    "the net holds the average of its parameters until the block of solver.averaged() has ended, "
    "after which they are what they were"
)


def check_epsilon(solver: Updater, epsilon: float) -> None:
    """Fail unless the net's dtype holds `epsilon`, which keeps a solver from dividing by zero."""
    least = float(np.finfo(solver.net.dtype).tiny)
    if epsilon < least:
        raise NetError(
            f"{solver.label()}: epsilon must be at least {least:g} in a net of "
            f"{solver.net.dtype}, got {epsilon}"
        )


class Updater(Checked):
    """The part of a solver that makes updates; see Solver, which has the attributes."""

    histories: ClassVar[tuple[str, ...]] = ()
    formula: ClassVar[str | None] = None  # name in engines/formulas/updates.h of what `update` does

    net: Net
    clip: float | None
    accumulate: int
    ema: float | None
    iteration: int
    accumulated: int
    history: Any
    team: Any
    hooks: list[Callable[[Any], None]]
    spans: list[slice]
    weight_decay: float = 0.0  # w shrinks by rate * weight_decay in each update
    _constants: dict[tuple[float, float], np.ndarray]
    _update: Update | None
    _found: np.ndarray

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Change the parameters `w` given their gradient `g`; all arrays are flat.

        `self.iteration` counts this update, from 1.
        """
        raise NetError(
            f"{self.label()}: its class does not define update(w, g, rate, **history), which "
            "changes the parameters w in place"
        )

    def constants(self, rate: float, decay: float = 1.0) -> tuple[float, ...]:
        """Return the eight numbers that the formula takes in update `self.iteration`.

        Args:
            rate: of the parameters that are updated.
            decay: what `weight_decay` is multiplied by for them.
        """
        raise NotImplementedError

    def largest_gradient(self) -> float:
        """Return the largest derivative by a weight that an update can take; here any number."""
        return float(np.finfo(self.net.dtype).max)

    def _follow(self, plan: Plan, rate: float, loss: float) -> None:
        """Make the backward pass and, once all gradients are known to be finite, the update."""
        net, limit = self.net, self.largest_gradient()
        net.passes.backward(plan, {})
        if not self.plain:
            self._apply(rate, loss)
            return
        updates, spans, planned = plan.updates, self.spans, self._update is not None
        bounds, sizes = np.split(self._look(plan), [len(updates)])
        if not (bounds <= limit).all():
            for layer, _, bottoms, tops, *_ in updates:  # bounds do not tell: look at each
                net.runners[layer.name].backward(bottoms, tops)
            updates, spans, planned = [], net.arena.trainable_spans(), False
            sizes = self._sizes(spans)
        if not (sizes <= limit).all():
            raise NotFiniteError(self.not_finite(loss))
        self._begin(rate, spans)
        if self.clip is not None:
            self._clip([net.arena.diff[span] for span in spans], float(sizes.max(initial=0.0)))

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable, *_ in updates:
                make(recordable, layer, call, bottoms, tops, way="update")
            for span in spans:
                self._update_span(span, rate)

        if planned:
            net.engine.repeat(plan.programs["update"], net.passes.key(), calls)
        else:
            calls(call_layer)
        self.constrain()
        self.take_average()

    @property
    def plain(self) -> bool:
        """True if each gradient is followed at once, with nothing done to it but clipping."""
        return self.accumulate == 1 and not self.hooks and self.team is None

    def _apply(self, rate: float, loss: float | None) -> None:
        """Follow the gradient that is in the diffs, or keep it until there are enough."""
        net, limit = self.net, self.largest_gradient()
        spans = net.arena.trainable_spans()
        diffs = [net.arena.diff[span] for span in spans]
        sizes = self._sizes(spans)
        if not (sizes <= limit).all():
            raise NotFiniteError(self.not_finite(loss))
        net.differentiated = False
        if self.accumulate > 1:
            names = accumulated_names(self.accumulate)
            levels, keep = tree_levels(self.accumulated, self.accumulate)
            if not self.accumulated:
                for name in names:
                    self.history[name].fill(0)  # also where nothing is trained, by now
            for span, diff in zip(spans, diffs, strict=True):
                for level in levels:
                    net.engine.add_to(diff, self.history[names[level]][span])
                if keep is not None:
                    self.history[names[keep]][span] = diff
            if keep is not None:
                self.accumulated += 1
                return
            for diff in diffs:
                diff *= 1 / self.accumulate
        self.apply_mean(rate, loss, spans, sizes)
        self.accumulated = 0

    def apply_mean(
        self, rate: float, loss: float | None, spans: list[slice], sizes: np.ndarray
    ) -> None:
        """Follow the gradient in the diffs, which is complete.

        Args:
            rate: of this update.
            loss: the objective, or None where the gradient came without one.
            spans: those of the arena that are trained.
            sizes: the largest magnitude in each, where nothing is done to the gradient but
                clipping; else it is measured here.
        """
        net, limit = self.net, self.largest_gradient()
        diffs = [net.arena.diff[span] for span in spans]
        call_hooks(self)
        if not self.plain:
            sizes = self._sizes(spans)
            if not (sizes <= limit).all():
                raise NotFiniteError(self.not_finite(loss))
        self._begin(rate, spans)
        if self.clip is not None:
            self._clip(diffs, float(sizes.max(initial=0.0)))
        for span in spans:
            self._update_span(span, rate)
        self.constrain()
        self.take_average()

    def _begin(self, rate: float, spans: list[slice]) -> None:
        """Count an update, which changes parameters from here on."""
        net = self.net
        self.start_average()
        self.iteration += 1
        if self._update is not None:
            self._update.constants[:] = self.constants(rate)
            for of_rate, of_decay in map(net.arena.multipliers, spans):
                self._constants_of(of_rate, of_decay)[:] = self.constants(rate * of_rate, of_decay)
        net.passed = False  # blobs are of the parameters before the update

    def _constants_of(self, rate: float, decay: float) -> np.ndarray:
        """Return the array that holds the formula's constants for these multipliers."""
        if rate == decay == 1 and self._update is not None:
            return self._update.constants
        return self._constants.setdefault((rate, decay), np.zeros(8))

    def constrain(self) -> None:
        """Scale the weights of outputs down to the largest norm that they may have."""
        for p in self.net.params.values():
            if p.max_norm is not None and p.trainable and p.groups:
                for w in p.data.reshape(p.groups, -1, p.shape[-1]):
                    self.net.engine.constrain(w, p.max_norm)

    def start_average(self) -> None:
        """Let the average of the parameters begin with what they are before the first update."""
        if self.ema is not None and not self.iteration:
            self.history[AVERAGE][...] = self.net.arena.data

    def take_average(self) -> None:
        """Move the average of the parameters after an update."""
        if self.ema is not None:
            self.net.engine.approach(self.history[AVERAGE], self.net.arena.data, 1 - self.ema)

    @contextmanager
    def averaged(self) -> Iterator[Net]:
        """Make a `with` block in which the net holds the moving average of its parameters.

        All that uses the net then sees the average: `infer`, `forward`, nets that share with it,
        and `layerkit.save(path, net)`.  Afterwards the parameters are what they were; the net is
        this thread's own meanwhile, no solver makes a step, and nothing is loaded.  Running
        statistics, such as BatchNorm's, are not averaged.

        Raises:
            NetError: the solver was made without `ema`.
        """
        if self.ema is None:
            raise NetError(f"averaged: make the solver with {self.label()}(net, ema=0.999), say")
        net = self.net
        with net.lock:
            self._check_shown("averaged")
            self.start_average()
            kept = net.arena.data.copy()
            net.arena.data[...] = self.history[AVERAGE]
            net.passed = False
            net.lock.held.append((net.arena.data, SHOWN))
            try:
                yield net
            finally:
                net.arena.data[...] = kept
                net.passed = False
                net.lock.held.pop()

    def _check_shown(self, method: str) -> None:
        self.net.lock.check_own(self.net.arena.data, NetError, method)

    def _check_alone(self, method: str) -> None:
        self._check_shown(method)
        if self.team is not None:
            raise NetError(
                f"{method}: processes share each step of this solver; call step, or take a "
                "solver that is not shared"
            )

    def _look(self, plan: Plan) -> np.ndarray:
        """Bound the diffs that layers update by, and measure those that the solver itself applies.

        Returns:
            Magnitudes that no derivative exceeds, one for each layer of `plan.updates` and one for
            each span of the rest.
        """
        net, found = self.net, self._found

        def calls(make: Make) -> None:
            places = (found[i : i + 1] for i in range(len(found)))
            for layer, _, bottoms, tops, recordable, *_ in plan.updates:
                bound = net.runners[layer.name].gradient_bound
                make(recordable, layer, bound, bottoms, tops, next(places), way="update")
            for span in self.spans:
                net.engine.largest(net.arena.diff[span], next(places))

        net.engine.repeat(plan.programs["look"], net.passes.key(), calls)
        return found

    def _sizes(self, spans: list[slice]) -> np.ndarray:
        """Return the largest magnitude in each span of the gradient."""
        net = self.net
        return np.array([net.engine.magnitude(net.arena.diff[span]) for span in spans])

    def _update_span(self, span: slice, rate: float) -> None:
        w, g = self.net.arena.data[span], self.net.arena.diff[span]
        of_rate, of_decay = self.net.arena.multipliers(span)
        if self._update is None:
            rate *= of_rate
            if self.weight_decay:
                w *= 1 - rate * of_decay * self.weight_decay
            update: Any = self.update  # perhaps a user's own
            if update(w, g, rate, **{k: self.history[k][span] for k in self.histories}) is not None:
                raise NetError(
                    f"{type(self).__name__}.update returned something, but must change the "
                    "parameters in place (w -= step), and return nothing"
                )
        else:
            constants = self._constants_of(of_rate, of_decay)
            self.net.engine.update(self._update, span, w, g, constants)

    def _clip(self, diffs: list[Array], largest: float) -> None:
        """Scale the gradient down to the norm `clip`; `largest` is its largest magnitude."""
        count = sum(d.size for d in diffs)
        square = self.net.engine.square
        if largest**2 * count < 0.5 * float(np.finfo(self.net.dtype).max):
            norm = math.sqrt(sum(map(square, diffs)))
        else:  # squares would overflow
            norm = largest * math.sqrt(sum(square(d / largest) for d in diffs))
        if self.clip is not None and norm > self.clip:
            for diff in diffs:
                diff *= self.clip / norm

    def not_finite(self, loss: float | None) -> str:
        """Return a message that says what is wrong, if the last pass gave this loss.

        Args:
            loss: the objective, or None where a gradient came without one.

        Raises:
            DataError: a layer finds what is wrong with its data.
        """
        finite = loss is None or math.isfinite(loss)
        if not finite:
            check_data(self.net)
        if (where := non_finite_data(self.net)) is not None:
            wrong = "a gradient is not finite" if finite else f"the loss is {loss}"
            return (
                f"{wrong} at iteration {self.iteration}: the data hold an infinity or "
                f"not-a-number, first in {where}; leave such rows out, or fill them"
            )
        where = first_non_finite(self.net)
        if not finite:
            return (
                f"the loss is {loss} at iteration {self.iteration}: first in "
                f"{where or 'the sum of the losses'}; lower the rate, clip the gradient, or look "
                "at the data"
            )
        if where is not None:
            there = f", where the loss is {loss:g}" if loss is not None else ""
            return (
                f"a gradient is not finite at iteration {self.iteration}{there}: first in {where}; "
                "look at the derivative of the layer that fills it, and at the data"
            )
        limit = self.largest_gradient()
        name, size = next(
            (n, s)
            for n, p in self.net.params.items()
            if p.trainable and not (s := self.net.engine.magnitude(p.diff)) <= limit
        )
        return (
            f"the gradient is too large at iteration {self.iteration}: {size:.3g} in the diff of "
            f"parameter {name!r}, of which {self.label()} in {self.net.dtype} can take "
            f"{limit:.3g}; scale the loss down, or look at the data"
        )
