"""Break: something that is done between the steps of training; the base class of all breaks."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from layerkit.errors import NetError, SnapshotError, brief
from layerkit.settings import Checked, Count, Positive, checked

if TYPE_CHECKING:
    from layerkit.train.trainer import Trainer


class Break(Checked):
    """Base class of breaks; a subclass defines `take`.

    A break of one's own is a class, or a function in `Call`:

        class Samples(lk.breaks.Break):
            def take(self, trainer):
                draw(trainer.net.infer("x_mean", z=z))

        lk.Trainer(solver, every=[Samples(every=500)])

    Breaks that are due after one step are taken in the order of their `place`, and those of equal
    places in the order of the trainer's list.

    Args:
        every: number of iterations, which are updates of the parameters, from one `take` to the
            next, counted from iteration 0.  None, the default, leaves it to `seconds`, or to a
            subclass that defines `due`.
        seconds: time from one `take` to the next; beside `every`, whichever comes first.

    Attributes:
        place: 0 is before the steps, 20 values are published, 40 decisions are made of them, 60
            they are logged, 80 shown, and 100 everything is saved.
        everywhere: False for a break that, where processes share the steps of a solver, is taken
            in the one that leads only: it shows or writes something.  All others must decide alike
            in all processes.
        memory: names of the attributes that a snapshot stores and `Trainer.resume` puts back: all
            that later breaks depend on.  Numbers, text, None, and lists and dicts of these.
    """

    place: ClassVar[int] = 40
    memory: ClassVar[tuple[str, ...]] = ()
    everywhere: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make a wrong setting an error that names the break; see layerkit.settings."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, every: Count | None = None, seconds: Positive | None = None):
        self.every, self.seconds = every, seconds
        self._taken = math.inf  # when, by time.perf_counter

    # For a subclass to define.

    def take(self, trainer: Trainer) -> None:
        """Do what the break is for; `trainer.iteration` updates have been made."""
        raise NetError(f"{self.label()}: its class does not define take(trainer)")

    def publishes(self, trainer: Trainer) -> list[str]:
        """Return the names under which the break publishes values; see Trainer.publish."""
        return []

    def writes(self) -> Path | None:
        """Return the file or folder that is this break's alone, if there is one."""
        return None

    def begin(self, trainer: Trainer) -> None:
        """Prepare for the steps that `Trainer.run` is about to make."""
        self._taken = time.perf_counter()

    def before(self, trainer: Trainer, most: int) -> int:
        """Prepare for the next steps, at most so many; return for how many of them that holds."""
        if self.every is None:
            return most
        return min(most, self.every - trainer.iteration % self.every)

    def after(self, trainer: Trainer, losses: np.ndarray) -> None:
        """Look at steps that have just been made: their objectives, and `trainer.solver.curves`.

        Not every step is an update if the solver accumulates gradients.
        """

    def due(self, trainer: Trainer) -> bool:
        """Tell whether `take` is to be called now, after an update."""
        if self.every is not None and trainer.iteration % self.every == 0:
            return True
        return self.seconds is not None and time.perf_counter() - self._taken > self.seconds

    def end(self, trainer: Trainer) -> None:
        """Finish, as training has: all steps are made, or it was stopped or interrupted."""

    def close(self) -> None:
        """Let go of what `begin` has opened, after `end` or an error."""

    # For the trainer to call.

    def taken(self, trainer: Trainer) -> None:
        """Call `take`, and count `seconds` from its end."""
        self.take(trainer)
        self._taken = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Return what the break remembers, for a snapshot."""
        return {name: getattr(self, name) for name in self.memory}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that the break remembers, for a snapshot."""
        return {}

    def set_state(self, trainer: Trainer, state: Any, arrays: dict[str, np.ndarray]) -> None:
        """Put back what `state` and `arrays` returned.

        Raises:
            SnapshotError: something is missing, or is not what the break remembers.
        """
        if not isinstance(state, dict) or state.keys() != set(self.memory):
            raise SnapshotError(
                f"{self.label()}: a snapshot must hold {list(self.memory)} for it, got "
                f"{brief(state)}"
            )
        try:
            for name, value in state.items():
                setattr(self, name, value)
        except NetError as error:
            raise SnapshotError(f"the snapshot holds no state of a break: {error}") from error


def finite(value: float) -> float | None:
    """Return a number, or None for infinities and not-a-number, which JSON lacks."""
    return value if math.isfinite(value) else None
