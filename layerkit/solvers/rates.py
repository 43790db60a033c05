"""Rate policies: the learning rate as a function of the iteration, counted from 0."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from layerkit.errors import NetError, brief
from layerkit.settings import Count, NotNegative, Number, Rule, Whole, accept, checks, real


class RatePolicy(Protocol):
    """A callable that turns an iteration into a learning rate."""

    def __call__(self, iteration: int) -> float:
        """Return the rate at this iteration."""


class RateOrPolicy(Rule):
    """A number of at least 0, or a policy: a callable that turns an iteration into one."""

    expected = "a number, at least 0, or a policy such as those of layerkit.rates"

    def accept(self, value: Any) -> RatePolicy:
        """Return the policy; a number becomes a constant one."""
        if callable(value) and not isinstance(value, type):  # an instance, not Step itself
            return value
        number = float(real(value))
        if not 0 <= number < math.inf:
            raise ValueError
        return Fixed(number)


Rate = Annotated[float | RatePolicy, RateOrPolicy()]
Iterations = Annotated[int, Whole(least=0)]


@checks
@dataclass(frozen=True)
class Fixed:
    """Constant: rate(i) = rate at every iteration i.

    Args:
        rate: the rate, at least 0.

    Source: Caffe's "fixed".
    """

    rate: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return `rate`."""
        return self.rate


@checks
@dataclass(frozen=True)
class Step:
    """Step decay: rate(i) = rate * gamma^floor(i / every) at iteration i.

    Args:
        rate: the rate at the start.
        gamma: factor of each step.
        every: iterations from one step to the next.

    Source: Caffe's "step".
    """

    rate: NotNegative
    gamma: NotNegative
    every: Count

    def __call__(self, iteration: int) -> float:
        """Return rate * gamma^floor(iteration / every)."""
        return self.rate * self.gamma ** (iteration // self.every)


class Milestones(Rule):
    """A list of iterations, each larger than the one before."""

    expected = "a list of whole numbers, at least 0, each larger than the one before"

    def accept(self, value: Any) -> tuple[int, ...]:
        """Return them as a tuple."""
        if not isinstance(value, list | tuple) or not value:
            raise ValueError
        found = tuple(Whole(least=0).accept(number) for number in value)
        if any(b <= a for a, b in itertools.pairwise(found)):
            raise ValueError
        return found


@checks
@dataclass(frozen=True)
class MultiStep:
    """Decay at chosen iterations: rate(i) = rate * gamma^(number of milestones up to i).

    Args:
        rate: the rate at the start.
        gamma: factor at each milestone.
        at: the milestones, iterations that increase.

    Source: Caffe's "multistep".
    """

    rate: NotNegative
    gamma: NotNegative
    at: Annotated[Sequence[int], Milestones()]

    def __call__(self, iteration: int) -> float:
        """Return rate * gamma^(number of milestones that are not above the iteration)."""
        return self.rate * self.gamma ** bisect.bisect_right(self.at, iteration)


@checks
@dataclass(frozen=True)
class Exponential:
    """Exponential decay: rate(i) = rate * gamma^i.

    Args:
        rate: the rate at the start.
        gamma: factor after each iteration.

    Source: Caffe's "exp".
    """

    rate: NotNegative
    gamma: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return rate * gamma^iteration."""
        return self.rate * self.gamma**iteration


@checks
@dataclass(frozen=True)
class Inverse:
    """Decay by a power of the iteration: rate(i) = rate * (1 + gamma i)^-power.

    Args:
        rate: the rate at the start.
        gamma: how fast the rate falls.
        power: how steeply it falls in the end.

    Source: Caffe's "inv".
    """

    rate: NotNegative
    gamma: NotNegative
    power: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return rate * (1 + gamma * iteration)^-power."""
        return self.rate * (1 + self.gamma * iteration) ** -self.power


@checks
@dataclass(frozen=True)
class Polynomial:
    """Decay rate(i) = final + (rate - final) (1 - i / iterations)^power, then `final`.

    Args:
        rate: the rate at the start.
        iterations: iterations until `final`.
        power: default 1, a straight line.
        final: the rate at the end, default 0.

    Source: Caffe's "poly", whose `final` is 0.
    """

    rate: NotNegative
    iterations: Iterations
    power: NotNegative = 1.0
    final: NotNegative = 0.0

    def __call__(self, iteration: int) -> float:
        """Return final + (rate - final) * (1 - iteration / iterations)^power."""
        left = max(1 - iteration / max(self.iterations, 1), 0.0)
        return self.final + (self.rate - self.final) * (left**self.power if left else 0.0)


@checks
@dataclass(frozen=True)
class Cosine:
    """Decay rate(i) = final + (rate - final) (1 + cos(pi i / iterations)) / 2, then `final`.

    Args:
        rate: the rate at the start.
        iterations: iterations until `final`.
        final: the rate at the end, default 0.

    Source: Loshchilov and Hutter (2017), without restarts.
    """

    rate: NotNegative
    iterations: Iterations
    final: NotNegative = 0.0

    def __call__(self, iteration: int) -> float:
        """Return final + (rate - final) * (1 + cos(pi * iteration / iterations)) / 2."""
        done = min(iteration / max(self.iterations, 1), 1.0)
        return self.final + (self.rate - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@checks
@dataclass(frozen=True)
class WarmUp:
    """Linear warm-up: rate(i) = policy(i) * min(1, (i + 1) / iterations).

    Args:
        policy: the policy that is warmed up, or a number for a constant one.
        iterations: iterations until its rate is reached.

    Source: Goyal et al., "Accurate, large minibatch SGD" (2017), section 2.2, "gradual warmup".
    """

    policy: Annotated[RatePolicy, RateOrPolicy()]
    iterations: Iterations

    def __call__(self, iteration: int) -> float:
        """Return policy(iteration) * min(1, (iteration + 1) / iterations)."""
        return self.policy(iteration) * min(1.0, (iteration + 1) / max(self.iterations, 1))


@checks
@dataclass(frozen=True)
class Plateau:
    """Decay by `factor` whenever a measure, such as the loss on validation data, stops falling.

    Tell it each new value: `solver.rate.observe(validation_loss)`.  A value is better if it is
    below (1 - tolerance) of the best before it.  A snapshot keeps what has been observed.

    Args:
        rate: at the start.
        factor: what the rate is multiplied by, at most 1, default 0.1.
        patience: number of values in a row, none better, that make a plateau, default 10.
        least: rate below which it does not fall, default 0.
        tolerance: relative gain that counts as better, in [0, 1), default 1e-4.
        cooldown: values that are ignored after a decay, default 0.

    Source: `optax.contrib.reduce_on_plateau`, whose rule this is.
    """

    rate: NotNegative
    factor: Annotated[float, Number(above=0, most=1)] = 0.1
    patience: Count = 10
    least: NotNegative = 0.0
    tolerance: Annotated[float, Number(least=0, below=1)] = 1e-4
    cooldown: Iterations = 0

    def __post_init__(self) -> None:
        start = {"now": self.rate, "best": math.inf, "waited": 0, "cooling": 0}
        object.__setattr__(self, "_seen", start)  # the settings are frozen, what it saw is not

    @property
    def seen(self) -> dict[str, Any]:
        """The rate now, the best value so far, and two counts of values."""
        return vars(self)["_seen"]

    def __call__(self, iteration: int) -> float:
        """Return the rate, whatever the iteration."""
        return self.seen["now"]

    def observe(self, value: float) -> None:
        """Take note of a value of the measure; one that is not a number is no better.

        Raises:
            NetError: it is no number at all.
        """
        try:
            value = float(real(value))
        except ValueError:
            raise NetError(f"Plateau: observe takes a number, got {brief(value)}") from None
        seen = self.seen
        first = math.isinf(seen["best"])
        better = value < (seen["best"] if first else (1 - self.tolerance) * seen["best"])
        if better:
            seen["best"] = value
        seen["waited"] = 0 if better else seen["waited"] + 1
        if seen["cooling"]:
            seen["cooling"], seen["waited"] = seen["cooling"] - 1, 0
        elif seen["waited"] == self.patience:
            seen["now"] = max(seen["now"] * self.factor, min(self.least, seen["now"]))
            seen["waited"], seen["cooling"] = 0, self.cooldown

    def state(self) -> dict[str, float]:
        """Return what the values so far have led to; without "best" where there are none."""
        return {k: v for k, v in self.seen.items() if not math.isinf(v)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned; what is missing is as at the start.

        Raises:
            NetError: a value that is none of them.
        """
        if not isinstance(state, dict):
            raise NetError(f"Plateau: expected what state() returned, got {brief(state)}")
        rules = {"now": Number(least=0), "waited": Whole(0), "cooling": Whole(0), "best": Number()}
        found = {k: accept(rules[k], v, k, "Plateau") for k, v in state.items() if k in rules}
        self.__post_init__()
        self.seen.update(found)


def get_state(policy: Any) -> dict[str, Any]:
    """Return the state of a rate policy, or of the one inside it; empty where it has none."""
    if hasattr(policy, "state") and hasattr(policy, "set_state"):
        return dict(policy.state())
    return get_state(policy.policy) if hasattr(policy, "policy") else {}


def set_state(policy: Any, state: dict[str, Any]) -> None:
    """Put back the state of a rate policy, or of the one inside it."""
    if hasattr(policy, "state") and hasattr(policy, "set_state"):
        policy.set_state(state)
    elif hasattr(policy, "policy"):
        set_state(policy.policy, state)


def at(policy: RatePolicy, iteration: int, largest: float) -> float:
    """Return the rate at an iteration.

    Args:
        policy: a rate policy.
        iteration: counted from 0.
        largest: the largest number that the parameters can hold.

    Raises:
        NetError: the rate is no finite number of at least 0 and at most `largest`.
    """
    try:
        given: Any = policy(iteration)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        given = f"{type(error).__name__}: {error}"
    try:
        rate = float(real(given))
    except (ArithmeticError, ValueError):
        rate = math.nan
    if not 0 <= rate <= largest:
        raise NetError(
            f"rate: at iteration {iteration} {policy!r} gave {brief(given)}; a rate is a finite "
            f"number, at least 0 and at most {largest:.2g}, as the net's floats end there"
        )
    return rate
