"""Rate policies: the learning rate as a function of the iteration, counted from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class RatePolicy(Protocol):
    """Anything that turns an iteration into a learning rate."""

    def __call__(self, iteration: int) -> float:
        """The rate at this iteration."""


@dataclass(frozen=True)
class Fixed:
    """Always `rate`."""

    rate: float

    def __call__(self, iteration: int) -> float:
        """`rate`."""
        return self.rate


@dataclass(frozen=True)
class Step:
    """`rate`, times `gamma` after every `every` iterations."""

    rate: float
    gamma: float
    every: int

    def __call__(self, iteration: int) -> float:
        """rate * gamma^floor(iteration / every)."""
        return self.rate * self.gamma ** (iteration // self.every)


@dataclass(frozen=True)
class Exponential:
    """`rate`, times `gamma` after each iteration."""

    rate: float
    gamma: float

    def __call__(self, iteration: int) -> float:
        """rate * gamma^iteration."""
        return self.rate * self.gamma**iteration


@dataclass(frozen=True)
class Inverse:
    """Falls as a power of the iteration, Caffe's "inv"."""

    rate: float
    gamma: float
    power: float

    def __call__(self, iteration: int) -> float:
        """rate * (1 + gamma * iteration)^-power."""
        return self.rate * (1 + self.gamma * iteration) ** -self.power


@dataclass(frozen=True)
class Cosine:
    """From `rate` to `final` along half a cosine in `iterations`, then `final`.

    Source: Loshchilov and Hutter (2017), without restarts.
    """

    rate: float
    iterations: int
    final: float = 0.0

    def __call__(self, iteration: int) -> float:
        """final + (rate - final) * (1 + cos(pi * iteration / iterations)) / 2."""
        done = min(iteration / max(self.iterations, 1), 1.0)
        return self.final + (self.rate - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class WarmUp:
    """Rises in a straight line to another policy over `iterations`, then is that policy."""

    policy: RatePolicy
    iterations: int

    def __call__(self, iteration: int) -> float:
        """policy(iteration) * min(1, (iteration + 1) / iterations)."""
        return self.policy(iteration) * min(1.0, (iteration + 1) / max(self.iterations, 1))


def get(rate: float | RatePolicy) -> RatePolicy:
    """A policy from itself or from a constant rate."""
    return rate if callable(rate) else Fixed(float(rate))
