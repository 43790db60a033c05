"""Solver: one training step, and the base class of solvers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.engines.base import Update
from layerkit.errors import NetError, NotFiniteError, brief
from layerkit.inspection.profile import Profile, profile
from layerkit.layer import overrides
from layerkit.net import Net
from layerkit.passes.methods import QUIET, serialised
from layerkit.saving import copying
from layerkit.settings import Count, Flag, Number, Positive, Whole, accept, checked
from layerkit.settings.names import Named
from layerkit.solvers.rates import Rate, RatePolicy, at, get_state, set_state
from layerkit.solvers.updates.histories import make_histories, of_parameters
from layerkit.solvers.updates.hooks import Hooks
from layerkit.solvers.updates.updating import Updater
from layerkit.system.uninterrupted import Uninterrupted
from layerkit.wiring.plan import Plan

Average = Annotated[float, Number(above=0, below=1)]


class Solver(Updater):
    """Base class of solvers, which minimise a net's objective; a subclass defines `update`.

    Args:
        net: the net to train.  Without a loss layer its gradients come from `net.backward`, and
            `apply` follows them.
        rate: learning rate, a number or a policy from layerkit.rates.
        clip: largest allowed Euclidean norm of the whole gradient, above 0; a larger gradient is
            scaled down to it (on a GPU as it is used, which leaves the diffs as they were).  None,
            the default, does not clip.
        accumulate: k, default 1: parameters are updated in every k-th step only, by the mean of
            the gradients of k steps, as if their minibatches, of equal size, were one.  Gradients
            are added up as a binary tree over the steps, and the sum is multiplied by 1 / k: so the
            bits may differ from those of one pass over the large minibatch, but never from run to
            run, nor from those of k shards of layerkit.Distributed.  On a GPU such steps are not
            recorded.
        ema: decay d, in (0, 1), of an exponential moving average of all parameters, such as 0.999;
            None, the default, keeps none.  It begins as the parameters before the first update,
            and each update then moves it: average = d average + (1 - d) w.  See `averaged`.

    Attributes:
        iteration: number of updates made, which is that of steps unless gradients accumulate.
        accumulated: number of gradients kept for the next update, below `accumulate`.
        history: name -> flat array beside the net's arena, such as Adam's moments; "accumulated",
            "accumulated 2", "accumulated 4" and so on are sums of gradients, "average" the moving
            average.
        hooks: functions that are called with the solver in each update, when `net.params` hold the
            gradient (the mean of accumulated ones) in their diffs, before it is clipped; they may
            change the diffs in place, but make no step of the net, nor save or load it with a
            solver.  Empty at first: `solver.hooks.append(function)`.  On a GPU steps with hooks
            are not recorded.
        fuse: True, the default, lets `step` have layers with many parameters update them without
            filling their diffs, which is faster and leaves the diffs as they were.  It has no
            effect if the gradient is clipped, accumulated or given to hooks, a parameter is
            regularised, shared, frozen or given a rate of its own, on a GPU, or without kernels.
        curves: name of each loss and metric layer -> its value in each step of the last call of
            `steps`.
        spans: the spans of the arena that `update` changes, as `plan` last found them.
        team: the processes that share each step, or None; see layerkit.Distributed.
        record: True, the default, lets a GPU replay a recorded step, which is faster; it has no
            effect if a layer cannot be recorded (see Layer).
    """

    fixed = ("net", "history", "accumulate", "ema")
    instead = "make another solver for another net"

    rate: RatePolicy
    iteration: Annotated[int, Whole(0, 2**62)]
    accumulated: Annotated[int, Whole(0, 2**62)]
    fuse: Flag
    record: Flag
    hooks: Annotated[list[Callable[[Any], None]], Hooks()]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make a wrong setting an error that names the solver; see layerkit.settings."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        net: Net,
        rate: Rate,
        clip: Positive | None = None,
        accumulate: Count = 1,
        ema: Average | None = None,
    ):
        if not isinstance(net, Net):
            raise NetError(f"{self.label()}: expected a net to train, got {brief(net)}")
        if net.gradients == "none":
            raise NetError("this net has no gradients (phase 'test'); train one of phase 'train'")
        self.net = net
        self.rate = rate  # type: ignore[assignment]  # a number becomes a policy
        self.clip = clip
        self.accumulate, self.ema = accumulate, ema
        self.iteration = self.accumulated = 0
        self.hooks = []
        self.history: Named[Array] = make_histories(self)
        self.fuse = self.record = True
        self.curves: Named[np.ndarray] = Named("curve")
        self._update: Update | None = None
        kind = net.engine.formula(self.formula)
        if kind and overrides(type(self), "formula", ("update",)):
            arrays = [self.history[name] for name in self.histories]
            pair = [arrays[0], arrays[-1]]  # twice the same, if there is one only
            self._update = Update(kind, np.zeros(8), of_parameters(net, pair), pair)
        self._steps = net.engine.steps(self, self._update)
        self.spans: list[slice] = []
        self._constants: dict[tuple[float, float], np.ndarray] = {}
        self._plan: Plan | None = None
        self._planned: Any = None
        self.team: Any = None
        self._has_loss = any(layer.is_loss for layer in net.layers.values())

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
        if get_state(self.rate):  # a policy that remembers what it has seen
            parts["settings"]["rate"] = copy.deepcopy(self.rate, memo)
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
            NetError: a rate policy gave something that is no rate, or the net has no loss layer;
                nothing has changed.

        If anything else goes wrong the step counts as not made: iteration, pass and position in the
        data are as before, so that the step can be tried again.  Ctrl-C, and other signals whose
        handlers raise, interrupt before any parameter changes or after all have; see
        layerkit.system.uninterrupted.

        To look at gradients afterwards, set `fuse` to False or call net.forward and net.backward.
        """
        if self.recorded:
            return float(self.steps(1, **inputs)[0])
        self._check_loss("step")
        if self.team is not None:
            return self.team.step(self, inputs)
        self.net.differentiated = False
        net, iteration, before, made = self.net, self.iteration, self.net.state(), False
        try:
            with net.engine.flushed():
                plan, rate = self.plan(), self.rate_now()
                loss = net.passes.forward(plan, inputs)
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

    @serialised
    @QUIET
    def gradients(self, /, **inputs: Any) -> float:
        """Run forward and backward, and leave the gradient in the diffs; return the objective.

        `apply` then updates the parameters; both together are a `step`, between which the diffs can
        be looked at and changed: `net.params["g1/weight"].diff[...] *= 0.1`.

        Args:
            inputs: as for `step`.

        Raises:
            NotFiniteError: the objective is infinite or not a number.
            NetError: the net has no loss layer.
        """
        self._check_alone("gradients")
        self._check_loss("gradients")
        net, before = self.net, self.net.state()
        try:
            loss = net.forward(**inputs)
            if not math.isfinite(loss):
                raise NotFiniteError(self.not_finite(loss))
            net.backward()
        except NotFiniteError:
            raise
        except BaseException:
            net.set_state(before)
            raise
        return loss

    @serialised
    @QUIET
    def apply(self) -> None:
        """Update the parameters by the gradient in their diffs, or accumulate it.

        With `accumulate=k` it is added to the gradients of the calls of `apply` and `step` before;
        the k-th call updates the parameters by the mean, which the diffs then hold.

        The diffs come from `gradients`, or from the net's own `backward`, which takes derivatives
        by any blobs: a net without a loss, such as the generator of a GAN, is trained by
        `generator.backward(image=discriminator.blobs["x"].diff)` and `solver.apply()`.  A gradient
        is applied once.

        Raises:
            NotFiniteError: a gradient is infinite or not a number, or too large for this solver;
                neither a parameter nor a history has changed.
            NetError: there is no gradient, or a rate policy gave something that is no rate.
        """
        net, iteration = self.net, self.iteration
        self._check_alone("apply")
        if not net.differentiated:
            raise NetError(
                "apply: there is no gradient that has not been applied; call solver.gradients(...) "
                "or net.backward(...) first"
            )
        try:
            with net.engine.flushed():
                net.engine.set_pass(net.run)
                rate = self.rate_now()
                with Uninterrupted():
                    self._apply(rate, None)
        except BaseException:
            self.iteration = iteration
            raise

    def _check_loss(self, method: str) -> None:
        self._check_shown(method)
        if not self._has_loss:
            raise NetError(
                f"{method}: this net has no loss layer, so there is nothing to minimise; add one, "
                "or give derivatives to net.backward(blob=diff) and call solver.apply()"
            )

    def state(self) -> dict[str, Any]:
        """Return what decides the next update, but for rates given as functions and the arrays.

        Returns:
            Numbers by name, for `set_state`; "rate" is the state of the rate policy.
        """
        return {
            "iteration": self.iteration,
            "accumulated": self.accumulated,
            "rate": get_state(self.rate),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned.

        Raises:
            NetError: something in it does not fit this solver; nothing has changed then.
        """
        before = self.iteration, self.accumulated
        if not isinstance(state, dict):
            raise NetError(f"{self.label()}: expected what state() returned, got {brief(state)}")
        try:
            self.iteration = state.get("iteration", 0)
            self.accumulated = state.get("accumulated", 0)
            if self.accumulated >= self.accumulate:
                raise NetError(
                    f"{self.label()}: {self.accumulated} gradients are kept for the next update, "
                    f"which comes after {self.accumulate} (accumulate=)"
                )
            set_state(self.rate, state.get("rate", {}))
        except BaseException:
            self.iteration, self.accumulated = before
            raise

    def rate_now(self) -> float:
        """Return the rate of the next step.

        Raises:
            NetError: it is no finite number of at least 0, in the net's dtype.
        """
        self.check()
        return at(self.rate, self.iteration, float(np.finfo(self.net.dtype).max))

    def check(self) -> None:
        """Fail if settings do not suit the net; called before each step, as they may change."""

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
        if self.recorded:
            self._check_loss("steps")
            self.net.passed = self.net.differentiated = False
            if self.team is None:
                results = self._steps.run(count, inputs)
            else:
                results = self.team.steps(self, self._steps, count, inputs)
        else:
            results = np.empty((count, 1 + len(names)))
            for row in results:
                row[0] = self.step(**inputs)
                row[1:] = [{**self.net.losses, **self.net.metrics}[name] for name in names]
        self.curves = Named("curve", dict(zip(names, results.T[1:], strict=True)))
        return results[:, 0]

    @property
    def recorded(self) -> bool:
        """True if a GPU makes the steps by itself, and many at once; see `steps`."""
        if self._steps is None or self.team is None:
            return self._steps is not None and self.plain
        return self._steps.can_share()

    def plan(self) -> Plan:
        """Return the calls that `step` makes, planned anew if a setting they depend on changes."""
        net = self.net
        update = self._update if self.fuse and self.clip is None and self.plain else None
        settings = (
            net.version,
            update is None,
            [(p.trainable, p.penalty, p.rate, p.decay, p.max_norm) for p in net.params.values()],
        )
        if self._plan is None or self._planned != settings:
            self._plan = net.passes.plan(update)
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
        self._check_alone("profile")
        iterations = accept(Whole(least=1), iterations, "iterations", "profile")
        return profile(self, iterations, inputs)

    def __repr__(self) -> str:
        trained = [p for p in self.net.params.values() if p.trainable]
        return (
            f"{type(self).__name__}(rate={self.rate!r}, clip={self.clip}, "
            f"iteration={self.iteration}, {sum(p.size for p in trained):,} numbers in "
            f"{len(trained)} parameters)"
        )
