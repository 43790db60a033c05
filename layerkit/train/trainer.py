"""Trainer: steps of a solver, and breaks in between."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from layerkit.errors import BreaksError, LayerkitError, NetError, SnapshotError, brief
from layerkit.net import Net
from layerkit.saving.loading import load
from layerkit.saving.snapshot import read_arrays, read_extra
from layerkit.settings import Closed, Flag, Text, Truth, Whole, accept, checks, fitting
from layerkit.solvers.solver import Solver
from layerkit.system.interrupt import Interrupt
from layerkit.train.breaks.base import Break
from layerkit.train.breaks.saving import last_snapshot

PIECE = 0.5  # seconds that a GPU is given steps for at once; signals are heard afterwards
KEY = "trainer"  # of all that a trainer remembers, in the `extra` of a snapshot

Steps = Annotated[int, Whole(0, 2**62)]


@checks
class Trainer(Closed):
    """A solver whose steps are interrupted by breaks, Mocha's coffee breaks.

        trainer = lk.Trainer(solver, every=[
            lk.breaks.Validate(net, {"x": images, "t": labels}, every=500),
            lk.breaks.Log("run/log.csv", every=10),
            lk.breaks.Snapshot("run", every=1000),
            lk.breaks.EarlyStop(patience=5),
        ])
        trainer.resume("run", missing_ok=True)
        trainer.run(until=20_000)

    Training that is resumed from a snapshot continues, bit for bit on NumPy, as if it had never
    stopped: net, solver, and all that the breaks remember.  A GPU is asked for as many steps at a
    time as the breaks leave between them.

    An iteration is an update of the parameters, which is one step, or k steps of a solver made with
    `accumulate=k`; breaks come between updates.

    Ctrl-C, SIGTERM and SIGHUP end training after the step that is being made; breaks then finish,
    a `Snapshot` saves, and `run` returns "interrupted".  A second Ctrl-C interrupts at once.

    Processes that share the steps (see layerkit.Distributed) run a trainer each, with equal breaks.
    The one that leads shows, logs and saves; a signal in any of them ends training in all after the
    same step.

    Args:
        solver: the solver, which trains its net.
        every: the breaks, a list.
        inputs: arrays for the Input layers of the net: a dict, the same in each step, or a function
            that returns one for the number of a step, from 0, which is that of an iteration unless
            gradients accumulate.  None, the default, where all data come from data layers.
        interrupt: a layerkit.system.interrupt.Interrupt that is listening already; by default `run`
            listens while it runs.

    Attributes:
        net: the net that is trained.
        iteration: number of updates that the solver has made.
        target: the iteration at which the current run ends.
        values: name -> value that breaks have published last, such as "validation/loss".
        published: name -> iteration at which that was.
        seconds: time spent in steps by this trainer, without breaks.
        ending: why the last run ended; see `run`.

    Raises:
        NetError: no solver, or something that is no break.
    """

    fixed = ("solver", "breaks", "inputs")
    instead = "make another trainer"

    def __init__(
        self,
        solver: Solver,
        every: Sequence[Break] = (),
        inputs: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None = None,
        interrupt: Interrupt | None = None,
    ):
        if not isinstance(solver, Solver):
            raise NetError(f"Trainer: expected a solver, such as lk.Adam(net), got {brief(solver)}")
        if isinstance(every, Break | str) or not isinstance(every, Sequence):
            raise NetError(f"Trainer: every must be a list of breaks, got {brief(every)}")
        for one in every:
            if not isinstance(one, Break):
                raise NetError(
                    "Trainer: every must be a list of breaks, such as lk.breaks.Progress() or "
                    f"lk.breaks.Call(function, every=10), and holds {brief(one)}"
                )
        if len({id(one) for one in every}) < len(every):
            raise NetError("Trainer: a break is in the list twice; make two")
        if not (inputs is None or callable(inputs) or isinstance(inputs, Mapping)):
            raise NetError(
                f"Trainer: inputs must be a dict of arrays, or a function that returns one, got "
                f"{brief(inputs)}"
            )
        self.solver, self.inputs, self.interrupt = solver, inputs, interrupt
        self.breaks = tuple(every)
        self.values: dict[str, float] = {}
        self.published: dict[str, int] = {}
        self.target = solver.iteration
        self.seconds = 0.0
        self.ending = ""
        self._order: list[Break] = []
        self._piece = 1
        self._runs = False
        self._check_apart()

    def _check_apart(self) -> None:
        """Fail if two breaks publish values of one name, or write to one place."""
        names = [name for one in self.breaks for name in dict.fromkeys(one.publishes(self))]
        places = [os.path.realpath(path) for one in self.breaks if (path := one.writes())]
        for what, found, hint in (
            ("publish", names, "give one of them another name, as Validate(..., name='test')"),
            ("write to", places, "give each a path of its own"),
        ):
            if twice := [x for i, x in enumerate(found) if x in found[:i]]:
                raise NetError(f"Trainer: two breaks {what} {twice[0]!r}; {hint}")

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self.solver.net

    @property
    def iteration(self) -> int:
        """The number of updates that the solver has made."""
        return self.solver.iteration

    @property
    def leads(self) -> bool:
        """True in the process that shows, logs and saves, where several share the steps."""
        team = self.solver.team
        return team is None or team.comm.leads

    def run(self, steps: int | None = None, until: int | None = None) -> str:
        """Train.

        Args:
            steps: how many more iterations to make; or
            until: the iteration at which to end, which suits a run that may have been resumed.

        Returns:
            Why training ended: "done", "interrupted", or what was given to `stop`.

        Raises:
            NotFiniteError: as `Solver.step`; the steps before have been made.
        """
        if (steps is None) == (until is None):
            raise NetError(
                "Trainer.run: give steps= (how many more) or until= (the last), not both"
            )
        if until is not None:
            self.target = accept(Whole(0, 2**62), until, "until", "Trainer.run")
        else:
            more = accept(Whole(0, 2**62), steps, "steps", "Trainer.run")
            self.target = self.iteration + more
        if self._runs:
            raise NetError("Trainer.run: this trainer is running; a break cannot run it again")
        self.ending, self._runs = "", True
        taken = (one for one in self.breaks if one.everywhere or self.leads)
        self._order = sorted(taken, key=lambda one: one.place)
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            interrupt = self.interrupt or stack.enter_context(Interrupt())
            for one in self._order:
                one.begin(self)
            while not self.ending and self.iteration < self.target and not self._is_over(interrupt):
                self._make_steps(interrupt)
                if self.solver.accumulated:  # no update yet
                    continue
                for one in self._order:
                    if self._is_due(one):
                        one.taken(self)
            if not self.ending:
                self.ending = "done" if self.iteration >= self.target else "interrupted"
            self._end()
        return self.ending

    def _is_over(self, interrupt: Interrupt) -> bool:
        """Tell whether a signal has come: to any process, by the last step that they share."""
        team = self.solver.team
        return interrupt.requested if team is None else team.stopped

    def _is_due(self, one: Break) -> bool:
        """Tell whether a break is due, by the clock of the process that leads: others differ."""
        team, due = self.solver.team, one.due(self)
        if team is None or one.seconds is None or not one.everywhere:
            return due
        return team.comm.broadcast(due)

    def _end(self) -> None:
        """Let every break finish, whatever goes wrong with others."""
        errors: list[Exception] = []
        for one in self._order:
            try:
                one.end(self)
            except (LayerkitError, OSError) as error:
                errors.append(error)
        if len(errors) > 1:
            raise LayerkitError("; ".join(map(str, errors))) from errors[0]
        if errors:
            raise errors[0]

    def _close(self) -> None:
        self._runs = False
        for one in self._order:
            one.close()

    def _make_steps(self, interrupt: Interrupt) -> None:
        """Make as many steps at once as breaks and backend let us."""
        count = self.target - self.iteration
        team = self.solver.team
        if team is not None:
            team.stopping = interrupt.requested
        if callable(self.inputs) or not self.solver.recorded:
            count = 1  # so that signals are heard soon
        count = min(count, self._piece)
        for one in self._order:
            count = min(count, one.before(self, count))
        if team is not None and self.solver.recorded:
            count = team.comm.broadcast(count)  # one that leads has all breaks
        number = self.iteration * self.solver.accumulate + self.solver.accumulated
        inputs = self.inputs(number) if callable(self.inputs) else self.inputs or {}
        started = time.perf_counter()
        losses = self.solver.steps(count, **inputs)
        took = time.perf_counter() - started
        self.seconds += took
        self._piece = max(1, min(2 * self._piece, int(count * PIECE / max(took, 1e-9))))
        for one in self._order:
            one.after(self, losses)

    def stop(self, reason: Text) -> None:
        """End the run after the breaks that are due; `run` returns the reason."""
        self.ending = str(reason)

    def publish(self, name: str, value: float) -> None:
        """Let other breaks see a value, such as "validation/loss", at this iteration."""
        self.values[name] = float(value)
        self.published[name] = self.iteration

    # Snapshots.

    def state(self) -> dict[str, Any]:
        """Return what trainer and breaks remember, for `extra` of layerkit.save.

        Arrays that breaks remember are in `arrays`.
        """
        breaks = {key: one.state() for key, one in self._keyed() if one.memory}
        values = {k: (v if math.isfinite(v) else None) for k, v in self.values.items()}
        return {KEY: {"values": values, "published": self.published, "breaks": breaks}}

    def arrays(self) -> dict[str, Any]:
        """Return the arrays that breaks remember, for `arrays` of layerkit.save."""
        return {f"{key}/{k}": a for key, one in self._keyed() for k, a in one.arrays().items()}

    @fitting(NetError)
    def resume(
        self, path: str | os.PathLike[str], missing_ok: Flag = False, strict: Flag = True
    ) -> dict[str, Any]:
        """Load a snapshot into net and solver, and all that trainer and breaks remembered.

        Args:
            path: a snapshot, or the folder of a `Snapshot` break, whose last one is taken.
            missing_ok: True lets a folder without snapshots be, and training begin.
            strict: False lets breaks be of other kinds than those that the snapshot was made with;
                those that are new begin anew.

        Returns:
            The `extra` that the Snapshot break was given; empty if there is no snapshot.

        Raises:
            SnapshotError: there is none, it is damaged or of another net, solver or trainer; all
                are as they were.
        """
        for name, value in (("missing_ok", missing_ok), ("strict", strict)):
            accept(Truth(), value, name, "Trainer.resume")
        found = last_snapshot(path)
        if found is None:
            if missing_ok:
                return {}
            raise SnapshotError(f"there is no snapshot in {os.fspath(path)!r} to continue from")
        extra = dict(read_extra(found))
        kept, arrays = extra.pop(KEY, None), read_arrays(found)
        values, published, states = self._checked(kept, str(found), strict)
        with self._restoring():
            for key, one in self._keyed():
                own = {k[len(key) + 1 :]: a for k, a in arrays.items() if k.startswith(f"{key}/")}
                if key in states:
                    one.set_state(self, states[key], own)
            load(found, self.net, self.solver)
            self.values, self.published = values, published
        return extra

    def _keyed(self) -> Iterator[tuple[str, Break]]:
        """Yield a name of its own for each break, and the break."""
        kinds: dict[str, int] = {}
        for one in self.breaks:
            kind = type(one).__name__
            kinds[kind] = kinds.get(kind, 0) + 1
            yield (kind if kinds[kind] == 1 else f"{kind} {kinds[kind]}"), one

    def _checked(
        self, kept: Any, file: str, strict: bool
    ) -> tuple[dict[str, float], dict[str, int], dict[str, Any]]:
        """Return the values, their iterations and the breaks' states of a snapshot."""
        if kept is None and not strict:
            return {}, {}, {}
        try:
            values = {k: math.nan if v is None else float(v) for k, v in kept["values"].items()}
            published = {k: int(v) for k, v in kept["published"].items()}
            states = dict(kept["breaks"])
            if values.keys() != published.keys():
                raise ValueError
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise SnapshotError(
                f"{file} holds no state of a trainer; load it with lk.load, or resume with "
                "strict=False, and the breaks begin anew"
            ) from error
        own = {key for key, one in self._keyed() if one.memory}
        if strict and own != states.keys():
            there, here = (", ".join(sorted(names)) or "none" for names in (states, own))
            raise BreaksError(
                f"{file} was made with other breaks that remember something: {there} there, {here} "
                "here; give the trainer those, or resume with strict=False"
            )
        return values, published, states

    @contextlib.contextmanager
    def _restoring(self) -> Iterator[None]:
        """Put the states of all breaks back on an error."""
        before = [(one, one.state(), one.arrays()) for one in self.breaks]
        try:
            yield
        except BaseException:
            for one, state, arrays in before:
                with contextlib.suppress(LayerkitError):
                    one.set_state(self, state, arrays)
            raise

    def __repr__(self) -> str:
        breaks = ", ".join(type(one).__name__ for one in self.breaks)
        return f"Trainer({self.solver!r}, [{breaks}])"
