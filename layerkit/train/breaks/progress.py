"""Breaks that tell: a progress bar, and whatever a function does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from layerkit.errors import NetError
from layerkit.settings import Count, Flag, Positive, Rule, Text
from layerkit.system.bars import bar
from layerkit.train.breaks.base import Break

if TYPE_CHECKING:
    from layerkit.train.trainer import Trainer


class Progress(Break):
    """A progress bar on standard error, with the objective and the values published last.

    To show something else, subclass, and define `shown`.

    Args:
        description: what the bar begins with, default "training".
        unit: what is counted, default "steps".
        each: how many of them an iteration is, default 1: the batch size, say, for a unit of
            images.

    Source: Mocha's TrainingSummary.
    """

    place = 80
    everywhere = False

    def __init__(self, description: Text = "training", unit: Text = "steps", each: Count = 1):
        super().__init__()
        self.description, self.unit, self.each = description, unit, each
        self._bar: Any = None
        self._loss: float | None = None
        self._done = 0  # iterations that the bar shows

    def begin(self, trainer: Trainer) -> None:
        """Show the bar."""
        super().begin(trainer)
        total, done = trainer.target * self.each, trainer.iteration * self.each
        self._bar, self._done = bar(total, self.description, self.unit, done), trainer.iteration

    def shown(self, trainer: Trainer) -> dict[str, str]:
        """Return what stands beside the bar."""
        found = {} if self._loss is None else {"objective": f"{self._loss:.4g}"}
        return {**found, **{name: f"{value:.4g}" for name, value in trainer.values.items()}}

    def after(self, trainer: Trainer, losses: np.ndarray) -> None:
        """Move the bar on."""
        self._loss = float(losses[-1])
        more, self._done = trainer.iteration - self._done, trainer.iteration
        if self._bar.update(more * self.each):  # drawn: prepare what is drawn next
            self._bar.set_postfix(self.shown(trainer), refresh=False)

    def due(self, trainer: Trainer) -> bool:
        """Tell whether there is a new value to show."""
        return trainer.iteration in trainer.published.values() or self._ends(trainer)

    def _ends(self, trainer: Trainer) -> bool:
        return trainer.iteration == trainer.target

    def take(self, trainer: Trainer) -> None:
        """Show it with the next move of the bar."""
        self._bar.set_postfix(self.shown(trainer), refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Function(Rule):
    """A function."""

    expected = "a function, which is given the trainer"

    def accept(self, value: Any) -> Callable[[Any], object]:
        """Return the function."""
        if not callable(value) or isinstance(value, type):
            raise ValueError
        return value


class Call(Break):
    """A function that is called between steps.

        lk.breaks.Call(lambda trainer: print(trainer.iteration, trainer.values), every=100)

    Args:
        function: takes the trainer.
        every: iterations from one call to the next; None, the default, leaves it to `seconds`.
        seconds: time from one call to the next, None by default; beside `every`, whichever comes
            first.
        everywhere: False calls it, where processes share the steps of the solver, in the one that
            leads only; True, the default, in all.

    Source: Mocha's coffee breaks.
    """

    def __init__(
        self,
        function: Annotated[Callable[[Any], object], Function()],
        every: Count | None = None,
        seconds: Positive | None = None,
        everywhere: Flag = True,
    ):
        super().__init__(every, seconds)
        if every is None and seconds is None:
            raise NetError("Call: say how often the function is called, with every= or seconds=")
        self.function, self.everywhere = function, everywhere

    def take(self, trainer: Trainer) -> None:
        """Call the function."""
        self.function(trainer)
