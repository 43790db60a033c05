"""Runners, which are layers with the code that runs them, and the engine of array code."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.layer import Layer


class Runner:
    """A layer that is run by its own array code; the base of those run by faster code.

    Attributes:
        layer: the layer, set up and with its parameters in place.
        forward, backward: see Layer.
        forward_backward: for a loss: does what `forward` and then `backward` do, given a `top.diff`
            that is known beforehand.  None where they are called one after the other.
        backward_update: changes the parameters by diffs that never reach memory, given bottoms,
            tops and an Update; called after `backward_bottoms`, which is like `backward` without
            the parameters' diffs, and `gradient_bound`, which returns a number that no element of
            those diffs exceeds in magnitude (infinity or NaN if there is none).  None where diffs
            are filled and the solver follows them.
    """

    backward_bottoms: Any = None
    gradient_bound: Any = None
    backward_update: Any = None

    def __init__(self, layer: Layer):
        self.layer: Any = layer
        self.forward: Any = layer.forward
        self.backward: Any = layer.backward
        self.forward_backward: Any = layer.forward_backward


@dataclass
class Update:
    """All that a runner needs to change parameters as a solver does.

    Attributes:
        kind: number of the solver's formula in the engine.
        constants: its float64 constants, of this step.
        histories: name of a parameter -> two histories of its shape (twice the same, if the solver
            has one only).
        flat: the two histories beside the whole arena.
    """

    kind: int
    constants: np.ndarray
    histories: dict[str, list[Array]]
    flat: list[Array]


class ArrayEngine:
    """The engine that runs layers by their array code, on NumPy or CuPy: the specification.

    Args:
        xp: the array module.

    Attributes:
        threads: how many threads share the work of a call.
    """

    name: ClassVar[str] = "array"
    threads = 1

    def __init__(self, xp: Any):
        self.xp = xp

    def bind(self, layer: Layer) -> Runner:
        """Return what runs this layer."""
        return Runner(layer)

    def flushed(self) -> AbstractContextManager[None]:
        """Make a `with` block in which denormal numbers count as zero; here they stay."""
        return nullcontext()

    def magnitude(self, array: Array) -> float:
        """Return the largest |a| of an array of any shape; NaN where it holds one."""
        if not array.size:
            return 0.0
        return max(abs(float(self.xp.max(array))), abs(float(self.xp.min(array))))

    def formula(self, name: str | None) -> int:
        """Return the number of a solver's formula, 0 where the engine does not have it."""
        return 0

    def update(self, update: Update, span: slice, w: Array, g: Array) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does."""
        raise NotImplementedError("the engine of array code has no formulas")

    def products(self, a: Array, b: Array, out: Array) -> None:
        """Compute out[i] = a[i] @ b[i]."""
        self.xp.matmul(a, b, out=out)

    def copy(self, source: Array, target: Array) -> None:
        """Copy one array to another."""
        self.xp.copyto(target, source)
