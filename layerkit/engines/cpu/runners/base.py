"""A layer that is run by kernels of the extension module."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.engines.base import EngineRunner
from layerkit.layers.neuron import Neuron

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


def straight(neuron: Neuron | None) -> tuple[float, Neuron | None]:
    """Return the slope below zero of an activation of two straight lines, else 1 and the neuron.

    The first kind is part of the kernels; others follow them.
    """
    if isinstance(neuron, L.ReLU):
        return 0.0, None
    if isinstance(neuron, L.LeakyReLU):
        return float(neuron.slope), None
    return 1.0, neuron


class KernelRunner(EngineRunner):
    """A layer that is run by kernels of the extension module.

    Attributes:
        kernels: the extension module.
    """

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.kernels = engine.kernels
