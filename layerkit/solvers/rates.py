"""Rate policies: the learning rate as a function of the iteration, counted from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from layerkit.errors import NetError, brief
from layerkit.settings import Count, NotNegative, Rule, Whole, checks, real


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
    """Constant `rate`."""

    rate: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return `rate`."""
        return self.rate


@checks
@dataclass(frozen=True)
class Step:
    """Step decay: `rate`, multiplied by `gamma` every `every` iterations."""

    rate: NotNegative
    gamma: NotNegative
    every: Count

    def __call__(self, iteration: int) -> float:
        """Return rate * gamma^floor(iteration / every)."""
        return self.rate * self.gamma ** (iteration // self.every)


@checks
@dataclass(frozen=True)
class Exponential:
    """Exponential decay: `rate`, multiplied by `gamma` after each iteration."""

    rate: NotNegative
    gamma: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return rate * gamma^iteration."""
        return self.rate * self.gamma**iteration


@checks
@dataclass(frozen=True)
class Inverse:
    """Decay by a power of the iteration, Caffe's "inv"."""

    rate: NotNegative
    gamma: NotNegative
    power: NotNegative

    def __call__(self, iteration: int) -> float:
        """Return rate * (1 + gamma * iteration)^-power."""
        return self.rate * (1 + self.gamma * iteration) ** -self.power


@checks
@dataclass(frozen=True)
class Cosine:
    """Cosine decay from `rate` to `final` in `iterations`, then `final`.

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
    """Linear warm-up to another policy over `iterations`, then that policy."""

    policy: Annotated[RatePolicy, RateOrPolicy()]
    iterations: Iterations

    def __call__(self, iteration: int) -> float:
        """Return policy(iteration) * min(1, (iteration + 1) / iterations)."""
        return self.policy(iteration) * min(1.0, (iteration + 1) / max(self.iterations, 1))


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
