"""Breaks that look at a value from time to time, and decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from layerkit.errors import NetError, brief
from layerkit.net import Net
from layerkit.settings import Choice, Count, Name, NotNegative, Number, Rule, Text, Whole
from layerkit.settings.names import closest, quoted
from layerkit.solvers.rates import RatePolicy
from layerkit.train.breaks.base import Break

if TYPE_CHECKING:
    from layerkit.train.trainer import Trainer

Watched = Annotated[str, Name()] | None
Mode = Annotated[str, Choice("min", "max")]
Margin = NotNegative


class Validate(Break):
    """The mean of each loss and metric over examples that are not trained on.

    They are published, under names such as "validation/loss", for other breaks: `EarlyStop`,
    `KeepBest` and `Plateau` decide by them, `Log` writes them, `Progress` shows them.

        lk.breaks.Validate(net, {"x": images, "t": labels}, every=500)

    Args:
        net: the net that is trained, or one that shares its parameters.
        data: arrays by blob, or a data layer; None, the default, for the data layers of a net of
            phase "test".  See Net.evaluate.
        every: iterations from one evaluation to the next, default 1000.
        name: stands before the slash, default "validation".

    Raises:
        NetError: when training begins: the net has parameters, and shares none with the net that is
            trained.

    Source: Mocha's ValidationPerformance.
    """

    place = 20

    def __init__(self, net: Net, data: Any = None, every: Count = 1000, name: Text = "validation"):
        super().__init__(every)
        if not isinstance(net, Net):
            raise NetError(f"Validate: expected a net, got {brief(net)}")
        self.net, self.data, self.name = net, data, name

    def begin(self, trainer: Trainer) -> None:
        """Check that what is validated is what is trained."""
        super().begin(trainer)
        # Nets that share parameters have one lock.
        if self.net.params and self.net.lock is not trainer.net.lock:
            raise NetError(
                "Validate: its net shares no parameter with the net that is trained, so training "
                "would not change its values; make it with lk.Net(layers, share=net)"
            )

    def publishes(self, trainer: Trainer) -> list[str]:
        """Return a name for each loss and metric layer, losses first."""
        return [f"{self.name}/{layer.name}" for layer in self.net.reported]

    def take(self, trainer: Trainer) -> None:
        """Evaluate, and publish the means."""
        if self.net is not trainer.net:
            self.net.run.passes = trainer.net.run.passes  # the same noise, resumed or not
        team = trainer.solver.team
        processes = None if team is None else team.comm
        for name, value in self.net.evaluate(self.data, processes=processes).items():
            trainer.publish(f"{self.name}/{name}", value)


class Watching(Break):
    """Base class of breaks that look at each new value of a name.

    Args:
        of: the name of a published value; None stands for the only loss of the only `Validate`.
        mode: "min", the default, if smaller values are better, or "max".
        margin: how much better a value must be to count as an improvement, default 0.

    Attributes:
        best: the best value so far; None before the first.
    """

    memory: ClassVar[tuple[str, ...]] = ("best",)
    best: Annotated[float, Number()] | None

    def __init__(self, of: Watched = None, mode: Mode = "min", margin: Margin = 0.0):
        super().__init__()
        self.of, self.mode, self.margin = of, mode, margin
        self.best = None
        self._name = of or ""

    def begin(self, trainer: Trainer) -> None:
        """Find the name to be watched."""
        super().begin(trainer)
        names = [name for one in trainer.breaks for name in one.publishes(trainer)]
        if self.of is None:
            losses = [
                f"{one.name}/{layer.name}"
                for one in trainer.breaks
                if isinstance(one, Validate)
                for layer in one.net.reported
                if layer.is_loss
            ]
            if len(losses) != 1:
                raise NetError(
                    f"{self.label()}: say which value to watch, with of=; there are {quoted(names)}"
                )
            self._name = losses[0]
        elif self.of not in names:
            raise NetError(
                f"{self.label()}: no break publishes {self.of!r}; {closest(self.of, names)}"
            )

    def due(self, trainer: Trainer) -> bool:
        """Tell whether the value is new."""
        return trainer.published.get(self._name) == trainer.iteration

    def improves(self, trainer: Trainer) -> bool:
        """Tell whether the value is better than the best so far; if so, it is the best now."""
        value = trainer.values[self._name]
        if not math.isfinite(value):
            return False
        if self.best is not None:
            gain = value - self.best if self.mode == "max" else self.best - value
            if gain <= 0 or gain < self.margin:
                return False
        self.best = value
        return True


class EarlyStop(Watching):
    """An end to training that no longer improves.

        lk.breaks.EarlyStop("validation/loss", patience=5)

    Args:
        of: the name of a published value; None, the default, stands for the only loss of the only
            `Validate` break.
        patience: how many values may come without an improvement, default 10.
        mode: "min", the default, if smaller values are better, or "max".
        margin: how much better a value must be to count as an improvement, default 0.

    Attributes:
        best: the best value so far.
        waited: how many values have come since then.

    Source: Prechelt, "Early stopping, but when?" (1998).
    """

    memory = (*Watching.memory, "waited")
    waited: Annotated[int, Whole(0)]

    def __init__(
        self, of: Watched = None, patience: Count = 10, mode: Mode = "min", margin: Margin = 0.0
    ):
        super().__init__(of, mode, margin)
        self.patience, self.waited = patience, 0

    def begin(self, trainer: Trainer) -> None:
        """Stop training that had been stopped."""
        super().begin(trainer)
        self._decide(trainer)

    def take(self, trainer: Trainer) -> None:
        """Count values that are no better than the best."""
        self.waited = 0 if self.improves(trainer) else self.waited + 1
        self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            trainer.stop(f"{self._name} has not improved for {self.waited} values")


@dataclass(frozen=True)
class Dropped:
    """A rate policy times `factor`, but not below `least`, unless the policy is."""

    policy: RatePolicy
    factor: float
    least: float

    def __call__(self, iteration: int) -> float:
        """Return the rate at this iteration."""
        rate = self.policy(iteration)
        return max(rate * self.factor, min(rate, self.least))


class Plateau(Watching):
    """A rate that drops when a value no longer improves.

        lk.breaks.Plateau("validation/loss", factor=0.3, patience=3)

    The solver's own rate, a number or a policy, is multiplied by factor^drops.

    Args:
        of: the name of a published value; None, the default, stands for the only loss of the only
            `Validate` break.
        factor: what the rate is multiplied by, above 0 and below 1, default 0.1.
        patience: how many values may come without an improvement before a drop, default 10.
        mode: "min", the default, if smaller values are better, or "max".
        margin: how much better a value must be to count as an improvement, default 0.
        least: smallest rate, default 0.

    Attributes:
        best: the best value so far.
        waited: how many values have come since then, or since the last drop.
        drops: how often the rate has dropped.

    Source: PyTorch's ReduceLROnPlateau.
    """

    memory = (*Watching.memory, "waited", "drops")
    waited: Annotated[int, Whole(0)]
    drops: Annotated[int, Whole(0)]

    def __init__(
        self,
        of: Watched = None,
        factor: Annotated[float, Number(above=0, below=1)] = 0.1,
        patience: Count = 10,
        mode: Mode = "min",
        margin: Margin = 0.0,
        least: NotNegative = 0.0,
    ):
        super().__init__(of, mode, margin)
        self.factor, self.patience, self.least = factor, patience, least
        self.waited = self.drops = 0
        self._policy: RatePolicy | None = None  # of the solver, without drops
        self._dropped: Any = None

    def begin(self, trainer: Trainer) -> None:
        """Take the solver's rate; one that it has been given since the last run has no drops."""
        super().begin(trainer)
        if trainer.solver.rate is not self._dropped:
            if self._policy is not None:
                self.drops = 0
            self._policy = trainer.solver.rate
        self._apply(trainer)

    def take(self, trainer: Trainer) -> None:
        """Count values that are no better than the best, and drop the rate."""
        self.waited = 0 if self.improves(trainer) else self.waited + 1
        if self.waited >= self.patience:
            self.drops, self.waited = self.drops + 1, 0
            self._apply(trainer)

    def _apply(self, trainer: Trainer) -> None:
        if self._policy is not None and self.drops:
            self._dropped = Dropped(self._policy, self.factor**self.drops, self.least)
            trainer.solver.rate = self._dropped
        else:
            self._dropped = trainer.solver.rate


class Weight(Rule):
    """A callable that turns an iteration into the weight of a loss, such as a rate policy."""

    expected = "a function of the iteration, or a policy such as lk.rates.WarmUp(1.0, 1000)"

    def accept(self, value: Any) -> Callable[[int], float]:
        """Return the callable."""
        if not callable(value) or isinstance(value, type):
            raise ValueError
        return value


class Schedule(Break):
    """The weight of a loss as a function of the iteration, such as a warm-up of the KL term.

        lk.breaks.Schedule("kl", lk.rates.WarmUp(1.0, iterations=5000))

    The layer keeps the last weight when training ends.

    Args:
        layer: name of the loss layer.
        weight: a policy of layerkit.rates, or any function: iteration, from 0 -> weight.

    Raises:
        NetError: when training begins: no such layer, or no loss; later: a weight that is none.

    Source: Bowman et al., "Generating sentences from a continuous space" (2016), section 3.1, for a
    KL term.
    """

    place = 0

    def __init__(self, layer: Text, weight: Annotated[Callable[[int], float], Weight()]):
        super().__init__()
        self.layer, self.weight = layer, weight

    def begin(self, trainer: Trainer) -> None:
        """Find the layer."""
        super().begin(trainer)
        losses = [x.name for x in trainer.net.layers.values() if x.is_loss]
        if self.layer not in losses:
            raise NetError(
                f"Schedule: no loss layer {self.layer!r} in the net; {closest(self.layer, losses)}"
            )

    def before(self, trainer: Trainer, most: int) -> int:
        """Set the weight; return for how many steps it stays."""
        start = trainer.iteration
        weight = self.weight(start)
        trainer.net.layers[self.layer].weight = weight
        return next((k for k in range(1, most) if self.weight(start + k) != weight), most)
