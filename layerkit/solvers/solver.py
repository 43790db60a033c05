"""Solver: one training step, and the base class of solvers."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, ClassVar

import numpy as np

from layerkit import copying
from layerkit.backends.base import Array
from layerkit.engines.base import Make, Update, call_layer
from layerkit.errors import NetError, NotFiniteError, brief
from layerkit.layer import overrides
from layerkit.memory import in_words
from layerkit.methods import QUIET, serialised
from layerkit.names import Named
from layerkit.net import Net
from layerkit.plan import Plan
from layerkit.profile import Profile, profile
from layerkit.settings import Checked, Flag, Positive, Whole, accept, checked
from layerkit.solvers.rates import Rate, RatePolicy, at
from layerkit.uninterrupted import Uninterrupted, undoing


def smallest_normal(dtype: np.dtype) -> float:
    """Return the smallest positive number of a dtype that has its full precision."""
    return 2.0**-126 if dtype == np.float32 else 2.0**-1022


def flush_denormals(xp: Any, array: Array) -> None:
    """Set numbers below the smallest normal one to zero, in place.

    The history of a weight without a gradient decays for ever.  It would soon be denormal, and
    each denormal number costs many processors a hundred cycles.
    """
    array *= xp.abs(array) >= smallest_normal(array.dtype)


class Solver(Checked):
    """Base class of solvers, which minimise a net's objective; a subclass defines `update`.

    Args:
        net: the net to train; it needs at least one loss layer.
        rate: learning rate, a number or a policy from layerkit.rates.
        clip: largest allowed Euclidean norm of the whole gradient, above 0; a larger gradient is
            scaled down to it (on a GPU as it is used, which leaves the diffs as they were).  None,
            the default, does not clip.

    Attributes:
        iteration: number of steps made.
        history: name -> flat array beside the net's arena, such as Adam's moments.
        fuse: True, the default, lets `step` have layers with many parameters update them without
            filling their diffs, which is faster and leaves the diffs as they were.  It has no
            effect if the gradient is clipped, a parameter is regularised or frozen, on a GPU, or
            without kernels.
        curves: name of each loss and metric layer -> its value in each step of the last call of
            `steps`.
        spans: the spans of the arena that `update` changes, as `plan` last found them.
        record: True, the default, lets a GPU replay a recorded step, which is faster; it has no
            effect if a layer cannot be recorded (see Layer).
    """

    histories: ClassVar[tuple[str, ...]] = ()
    fixed = ("net", "history")
    instead = "make another solver for another net"

    rate: RatePolicy
    iteration: Annotated[int, Whole(0, 2**62)]
    fuse: Flag
    record: Flag

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make a wrong setting an error that names the solver; see layerkit.settings."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, net: Net, rate: Rate, clip: Positive | None = None):
        if not isinstance(net, Net):
            raise NetError(f"{self.label()}: expected a net to train, got {brief(net)}")
        if not any(layer.is_loss for layer in net.layers.values()):
            raise NetError("this net has no loss layer, so there is nothing to minimise; add one")
        if net.gradients == "none":
            raise NetError("this net has no gradients (phase 'test'); train one of phase 'train'")
        self.net = net
        self.rate = rate  # type: ignore[assignment]  # a number becomes a policy
        self.clip = clip
        self.iteration = 0
        size = net.arena.data.shape
        need, free = net.arena.data.nbytes * len(self.histories), net.run.memory()
        if need > free:
            raise NetError(
                f"{self.label()}: its histories of {net.arena.data.size:,} parameters would take "
                f"{in_words(need)}, and {in_words(free)} are free"
            )
        self.history: Named[Array] = Named(
            "history",
            {name: net.backend.zeros(size, net.dtype) for name in self.histories},
            "write into its array: solver.history[name][...] = values",
        )
        self.fuse = self.record = True
        self.curves: Named[np.ndarray] = Named("curve")
        self._update: Update | None = None
        kind = net.engine.formula(self.formula)
        if kind and overrides(type(self), "formula", ("update",)):
            self._update = Update(kind, np.zeros(8), *self._histories())
        self._steps = net.engine.steps(self, self._update)
        self.spans: list[slice] = []
        self._plan: Plan | None = None
        self._planned: Any = None

    def _histories(self) -> tuple[dict[str, list[Array]], list[Array]]:
        """Return two histories of each parameter, and two of the whole arena."""
        arrays = [self.history[name] for name in self.histories]
        pair = [arrays[0], arrays[-1]]
        of_each = {
            p.name: [a[p.offset : p.offset + p.size].reshape(p.shape) for a in pair]
            for p in self.net.arena.parameters.values()
        }
        return of_each, pair

    @property
    def lock(self) -> Any:
        """The lock of the net, so that one thread at a time runs a whole step."""
        return self.net.lock

    @serialised
    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return copying.reduced_solver(self)

    @serialised
    def __copy__(self) -> Solver:
        return copying.solver_of(type(self), self.net, copying.parts_of_solver(self))

    @serialised
    def __deepcopy__(self, memo: dict[int, Any], /) -> Solver:
        parts = copying.parts_of_solver(self)
        return copying.solver_of(type(self), copy.deepcopy(self.net, memo), parts)

    @serialised
    @QUIET
    def step(self, /, **inputs: Any) -> float:
        """Run forward, backward and update; return the objective before the update.

        Args:
            inputs: one array for each Input layer of the net; see Net.forward.

        Raises:
            NotFiniteError: the objective or a gradient is infinite or not a number, or too large
                for this solver; neither a parameter nor a history has changed.
            NetError: a rate policy gave something that is no rate; nothing has changed.

        If anything else goes wrong the step counts as not made: iteration, pass and position in the
        data are as before, so that the step can be tried again.  Ctrl-C, and other signals whose
        handlers raise, interrupt before any parameter changes or after all have; see
        layerkit.uninterrupted.

        To look at gradients afterwards, set `fuse` to False or call net.forward and net.backward.
        """
        if self._steps is not None:
            return float(self.steps(1, **inputs)[0])
        net, iteration, before, made = self.net, self.iteration, self.net.state(), False
        try:
            with net.engine.flushed():
                plan, rate = self.plan(), self.rate_now()
                loss = net.run_forward(plan, inputs)
                if not math.isfinite(loss):
                    raise NotFiniteError(self.not_finite(loss))
                with Uninterrupted():  # parameters change from here on
                    self._follow(plan, rate, loss)
                    made = True
        except NotFiniteError:
            raise
        except BaseException:
            if not made:
                self.iteration = iteration
                net.set_state(before)
            raise
        return loss

    def rate_now(self) -> float:
        """Return the rate of the next step.

        Raises:
            NetError: it is no finite number of at least 0, in the net's dtype.
        """
        self.check()
        return at(self.rate, self.iteration, float(np.finfo(self.net.dtype).max))

    def check(self) -> None:
        """Fail if settings do not suit the net; called before each step, as they may change."""

    def largest_gradient(self) -> float:
        """Return the largest derivative by a weight that an update can take; here any number."""
        return float(np.finfo(self.net.dtype).max)

    def _follow(self, plan: Plan, rate: float, loss: float) -> None:
        """Make the backward pass and, once all gradients are known to be finite, the update."""
        net, limit = self.net, self.largest_gradient()
        net.run_backward(plan, {})
        updates, spans, planned = plan.updates, self.spans, self._update is not None
        bounds, sizes = np.split(self._look(plan), [len(updates)])
        if not (bounds <= limit).all():
            for layer, _, bottoms, tops, *_ in updates:  # bounds do not tell: look at each
                net.runners[layer.name].backward(bottoms, tops)
            updates, spans, planned = [], net.arena.trainable_spans(), False
            sizes = np.array([net.engine.magnitude(net.arena.diff[span]) for span in spans])
        if not (sizes <= limit).all():
            raise NotFiniteError(self.not_finite(loss))
        self.iteration += 1
        if self._update is not None:
            self._update.constants[:] = self.constants(rate)
        net.passed = False  # blobs still belong to the parameters before the update
        if self.clip is not None:
            self._clip([net.arena.diff[span] for span in spans], float(sizes.max(initial=0.0)))

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable, _ in updates:
                make(recordable, layer, call, bottoms, tops, way="update")
            for span in spans:
                self._update_span(span, rate)

        if planned:
            net.engine.repeat(plan.programs["update"], net.program_key(), calls)
        else:
            calls(call_layer)

    def _look(self, plan: Plan) -> np.ndarray:
        """Bound the diffs that layers update by, and measure those that the solver itself applies.

        Returns:
            Magnitudes that no derivative exceeds, one for each layer of `plan.updates` and one for
            each span of the rest.
        """
        net, found = self.net, self._found

        def calls(make: Make) -> None:
            places = (found[i : i + 1] for i in range(len(found)))
            for layer, _, bottoms, tops, recordable, _ in plan.updates:
                bound = net.runners[layer.name].gradient_bound
                make(recordable, layer, bound, bottoms, tops, next(places), way="update")
            for span in self.spans:
                net.engine.largest(net.arena.diff[span], next(places))

        net.engine.repeat(plan.programs["look"], net.program_key(), calls)
        return found

    @serialised
    def steps(self, count: int, /, **inputs: Any) -> np.ndarray:
        """Make `count` steps; return the objective before each, float64 of shape (count,).

        On a GPU this is the fast way to train, as it does not wait between the steps.

        Args:
            inputs: as for `step`; every step gets these arrays.

        Raises:
            NotFiniteError: as `step`; the steps before the one that failed have been made.
        """
        count = accept(Whole(least=1), count, "count", "steps")
        names = [layer.name for layer in self.net.reported]
        if self._steps is not None:
            self.net.passed = False
            results = self._steps.run(int(count), inputs)
        else:
            results = np.empty((count, 1 + len(names)))
            for row in results:
                row[0] = self.step(**inputs)
                row[1:] = [{**self.net.losses, **self.net.metrics}[name] for name in names]
        self.curves = Named("curve", dict(zip(names, results.T[1:], strict=True)))
        return results[:, 0]

    def not_finite(self, loss: float) -> str:
        """Return a message that says what is wrong, if the last pass gave this loss.

        Raises:
            DataError: a layer finds what is wrong with its data.
        """
        if not math.isfinite(loss):
            self.net.check_data()
        if (where := self.net.non_finite_data()) is not None:
            wrong = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
            return (
                f"{wrong} at iteration {self.iteration}: the data hold an infinity or "
                f"not-a-number, first in {where}; leave such rows out, or fill them"
            )
        where = self.net.first_non_finite()
        if not math.isfinite(loss):
            return (
                f"the loss is {loss} at iteration {self.iteration}: first in "
                f"{where or 'the sum of the losses'}; lower the rate, clip the gradient, or look "
                "at the data"
            )
        if where is not None:
            return (
                f"a gradient is not finite at iteration {self.iteration}, where the loss is "
                f"{loss:g}: first in {where}; look at the derivative of the layer that fills it, "
                "and at the data"
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

    def plan(self) -> Plan:
        """Return the calls that `step` makes, planned anew if a setting they depend on changes."""
        net = self.net
        update = self._update if self.fuse and self.clip is None else None
        settings = (
            net.version,
            update is None,
            [(p.trainable, p.l1, p.l2) for p in net.params.values()],
        )
        if self._plan is None or self._planned != settings:
            self._plan = net.plan(update)
            self.spans = net.arena.trainable_spans(self._plan.updated)
            self._found = np.zeros(len(self._plan.updates) + len(self.spans))
            self._planned = settings  # last, as an interrupt may come before
        return self._plan

    @serialised
    def profile(self, /, iterations: int = 50, **inputs: Any) -> Profile:
        """Measure where the time of a step goes, by training for 2 * iterations + 3 steps.

        Parameters, histories and everything else that decides the next step are then restored.

        Args:
            iterations: steps to take the median of.
            inputs: as for `step`.

        Returns:
            A table: print it.
        """
        iterations = accept(Whole(least=1), iterations, "iterations", "profile")
        net, curves = self.net, self.curves
        arrays = [net.arena.data, *self.history.values()]
        arrays += [statistic.data for statistic in net.statistics.values()]
        state, iteration, kept = net.state(), self.iteration, [array.copy() for array in arrays]

        def undo() -> None:
            for array, values in zip(arrays, kept, strict=True):
                array[...] = values
            self.iteration, self.curves = iteration, curves
            net.set_state(state)

        return undoing(lambda: profile(self, iterations, inputs), undo)

    def _update_span(self, span: slice, rate: float) -> None:
        w, g = self.net.arena.data[span], self.net.arena.diff[span]
        if self._update is None:
            update: Any = self.update  # perhaps a user's own
            if update(w, g, rate, **{k: a[span] for k, a in self.history.items()}) is not None:
                raise NetError(
                    f"{type(self).__name__}.update returned something, but must change the "
                    "parameters in place (w -= step), and return nothing"
                )
        else:
            self.net.engine.update(self._update, span, w, g)

    def _clip(self, diffs: list[Array], largest: float) -> None:
        """Scale the gradient down to the norm `clip`; `largest` is its largest magnitude."""
        count = sum(d.size for d in diffs)
        if largest**2 * count < 0.5 * float(np.finfo(self.net.dtype).max):
            norm = math.sqrt(sum(float(self.net.xp.dot(d, d)) for d in diffs))
        else:  # squares would overflow
            scaled = (d / largest for d in diffs)
            norm = largest * math.sqrt(sum(float(self.net.xp.dot(d, d)) for d in scaled))
        if self.clip is not None and norm > self.clip:
            for diff in diffs:
                diff *= self.clip / norm

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Change the parameters `w` given their gradient `g`; all arrays are flat.

        `self.iteration` counts this step, from 1.
        """
        raise NetError(
            f"{self.label()}: its class does not define update(w, g, rate, **history), which "
            "changes the parameters w in place"
        )

    def __repr__(self) -> str:
        trained = [p for p in self.net.params.values() if p.trainable]
        return (
            f"{type(self).__name__}(rate={self.rate!r}, clip={self.clip}, "
            f"iteration={self.iteration}, {sum(p.size for p in trained):,} numbers in "
            f"{len(trained)} parameters)"
        )

    # With kernels.

    formula: ClassVar[str | None] = None  # name in engines/formulas/updates.h of what `update` does

    def constants(self, rate: float) -> tuple[float, ...]:
        """Return the eight numbers that the formula takes in step `self.iteration`."""
        raise NotImplementedError
