"""A layer that is run by kernels of the extension module."""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.activations import formula, has_formula
from layerkit.engines.base import EngineRunner
from layerkit.layers.elementwise.neuron import Neuron

NOTHING = np.zeros((0, 0))  # stands for an array that is not wanted


def flat_rows(array: Array) -> Array:
    """Return (n, ...) as (n, size)."""
    return array.reshape(len(array), -1)


def piece(array: Array, span: slice) -> Array:
    """Return those columns of (n, size) that a span of the first axis of each example is."""
    inner = math.prod(array.shape[2:])
    return flat_rows(array)[:, span.start * inner : span.stop * inner]


def or_nothing(array: Array | None) -> Array:
    """Return an array, or one of no elements where there is none."""
    return NOTHING if array is None else array


@dataclass(frozen=True)
class Following:
    """An activation that kernels of its own compute, after those of the layer that has it.

    Attributes:
        kind: its number; see `numbers`.
        setting: its setting, or 0.
    """

    kind: int
    setting: float

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = a(x); see Neuron."""
        kernels().activate(self.kind, self.setting, x, y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * a'(x), from y or x; see Neuron."""
        kernels().differentiate(self.kind, self.setting, known, dy, dx)

    def enter(self, xp: Any, y: Array, inner: Blob | None) -> None:
        """Compute y = a(y) in place; see Neuron."""
        if inner is not None:
            kernels().copy(y, inner.data)
        self.activate(xp, y if inner is None else inner.data, y)

    def leave(self, xp: Any, y: Array, inner: Blob | None, dy: Array, dx: Array) -> None:
        """Compute dx = dy * a'(x), after `enter`; see Neuron."""
        self.differentiate(xp, y if inner is None else inner.data, dy, dx)


@functools.cache
def kernels() -> Any:
    """Return the extension module."""
    return importlib.import_module("layerkit.engines.cpu._cpu")


@functools.cache
def numbers() -> dict[str, int]:
    """Return the number by which the extension module knows the formula of each activation."""
    return {name: number for number, name in enumerate(kernels().activations().split())}


def following(neuron: Neuron) -> Following:
    """Return an activation that has a formula, in kernels of its own."""
    name, setting = formula(neuron)
    return Following(numbers()[name], setting)


def straight(neuron: Neuron | None) -> tuple[float, Neuron | Following | None]:
    """Return the slope below zero of an activation of two straight lines, else 1 and the neuron.

    The first kind is part of the kernels; others follow them.
    """
    if type(neuron) is L.ReLU:
        return 0.0, None
    if type(neuron) is L.LeakyReLU:
        return float(neuron.slope), None
    if neuron is None or not has_formula(neuron):  # none, or of a user's own class
        return 1.0, neuron
    return 1.0, following(neuron)


class KernelRunner(EngineRunner):
    """A layer that is run by kernels of the extension module.

    Attributes:
        kernels: the extension module.
    """

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.kernels = engine.kernels
