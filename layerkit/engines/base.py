"""Runners, which are layers with the code that runs them, and the engine of array code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer
from layerkit.run import Run
from layerkit.wiring import contract

Make = Callable[..., None]  # (recordable, layer, call, *arguments, way=)


def call_layer(
    recordable: bool, layer: Layer, call: Callable[..., Any], *arguments: Any, way: str
) -> None:
    """Make a call of a layer from Python, whether or not it could be recorded."""
    contract.make(layer, call, *arguments, way=way)


class Runner:
    """A layer that is run by its own array code; the base of those run by faster code.

    Its methods are found by properties: a runner that held them would be a cycle, and would keep
    the arrays of a net that is dropped.

    Attributes:
        layer: the layer, set up and with its parameters in place.
        forward, backward: see Layer.
        forward_backward: for a loss: does what `forward` and then `backward` do, given a `top.diff`
            that is known beforehand.  None where they are called one after the other.
        backward_update: changes the parameters by diffs that never reach memory, given bottoms,
            tops and an Update; called after `backward_bottoms`, which is like `backward` without
            the parameters' diffs, and `gradient_bound`, which fills a float64 array of one number
            with one that no element of those diffs exceeds in magnitude (infinity or NaN if there
            is none).  None where diffs are filled and the solver follows them.
        recordable: whether all that these methods do are calls of kernels on arrays that stay where
            they are, so that an engine can make the calls again by itself.
    """

    recordable = False

    def __init__(self, layer: Layer):
        self.layer: Any = layer

    @property
    def forward(self) -> Any:
        """Return the method that makes the forward pass."""
        return self.layer.forward

    @property
    def backward(self) -> Any:
        """Return the method that makes the backward pass."""
        return self.layer.backward

    @property
    def forward_backward(self) -> Any:
        """Return the method that makes both, or None."""
        return None

    @property
    def backward_bottoms(self) -> Any:
        """Return the method that fills the diffs of the bottoms alone, or None."""
        return None

    @property
    def gradient_bound(self) -> Any:
        """Return the method that bounds the diffs of the parameters, or None."""
        return None

    @property
    def backward_update(self) -> Any:
        """Return the method that changes the parameters, or None."""
        return None

    def settings(self) -> tuple[Any, ...]:
        """Return the settings of the layer that recorded calls hold, and that may change."""
        return ()


class EngineRunner(Runner):
    """A layer that is run by kernels of an engine; defines `run_forward` and `run_backward`.

    Attributes:
        engine: the engine.
        integers: whether the kernels can run a layer that has blobs of integers.
    """

    recordable = True
    integers: ClassVar[bool] = False

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer)
        self.engine = engine

    @property
    def forward(self) -> Any:
        """Return `run_forward`."""
        return self.run_forward

    @property
    def backward(self) -> Any:
        """Return `run_backward`."""
        return self.run_backward

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the kernels can do what the layer's settings ask for."""
        return True

    @classmethod
    def takes(cls, layer: Any, engine: Any) -> bool:
        """Return whether the kernels can run the layer."""
        return (cls.integers or not layer.integer_blobs) and cls.fits(layer, engine)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the data of every top; see Layer.forward."""
        raise NotImplementedError

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs of parameters and bottoms; see Layer.backward."""
        raise NotImplementedError


@dataclass
class Update:
    """All that a runner needs to change parameters as a solver does.

    Attributes:
        kind: number of the solver's formula in the engine.
        constants: its float64 constants, of this step, for parameters without multipliers.
        histories: name of a parameter -> two histories of its shape (twice the same, if the solver
            has one only).
        flat: the two histories beside the whole arena.
    """

    kind: int
    constants: np.ndarray
    histories: dict[str, list[Array]]
    flat: list[Array]


PIECE = 8192  # numbers that BLAS multiplies in one thread


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[i : i + PIECE] for i in range(0, array.size, PIECE))


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

    def describe(self) -> str:
        """Return in words what runs the layers."""
        return "array code"

    def bind(self, layer: Layer) -> Runner:
        """Return what runs this layer."""
        return Runner(layer)

    def repeat(self, programs: dict[Any, Any], key: Any, calls: Callable[[Make], None]) -> None:
        """Make calls of layers that are repeated step by step; here one by one, from Python.

        Args:
            programs: of this net or solver, a dictionary for the engine to keep what it needs.
            key: all that decides the calls and their arguments.
            calls: given `make`, does all that there is to do by `make(recordable, layer, call,
                *arguments, way=)` and by methods of the engine, in an order that depends on `key`
                alone.
        """
        calls(call_layer)

    def set_pass(self, run: Run) -> None:
        """Tell kernels which pass this is, where they cannot see it in `run`."""

    def begin_pass(self, run: Run) -> None:
        """Prepare for a pass of the net that is about to begin."""

    def end_pass(self, run: Run) -> None:
        """Prepare for the pass that may follow the one whose calls have been made."""

    def steps(self, solver: Any, update: Update | None) -> Any:
        """Return what makes a solver's steps in its stead, or None where it makes them itself."""
        return None

    def flushed(self) -> AbstractContextManager[None]:
        """Make a `with` block in which denormal numbers count as zero; here they stay."""
        return nullcontext()

    def largest(self, array: Array, found: np.ndarray) -> None:
        """Fill `found`, float64 of one number, with the largest |a|; NaN where there is one."""
        found[...] = 0
        if array.size:
            found[...] = max(abs(float(self.xp.max(array))), abs(float(self.xp.min(array))))

    def magnitude(self, array: Array) -> float:
        """Return the largest |a| of an array; NaN where there is one."""
        found = np.zeros(1)
        self.largest(array, found)
        return float(found[0])

    def square(self, array: Array) -> float:
        """Return the sum of the squares of a flat array, whatever the number of threads."""
        xp = self.xp
        if xp is not np:
            return float(xp.dot(array, array))
        return sum(float(np.dot(a, a)) for a in _pieces(array))

    def mean(self, array: Array, found: Array) -> None:
        """Fill `found`, float64 of one number, with the mean of an array."""
        self.xp.mean(array, dtype="float64", out=found.reshape(()))

    def add_up(self, diffs: Sequence[Array], out: Array) -> None:
        """Compute out = the sum of the diffs, zero where there are none."""
        out.fill(0)
        for diff in diffs:
            out += diff

    def add_to(self, total: Array, part: Array) -> None:
        """Compute total = total + part."""
        total += part

    def gather(self, gathers: Sequence[tuple[Blob, list[Blob]]]) -> None:
        """Set the diff of each blob to the sum of those of its branches."""
        for top, branches in gathers:
            self.add_up([branch.diff for branch in branches], top.diff)

    def add_number(self, number: np.ndarray, out: Array) -> None:
        """Add number[0], float64, to every element."""
        out += float(number[0])

    def formula(self, name: str | None) -> int:
        """Return the number of a solver's formula, 0 where the engine does not have it."""
        return 0

    def update(self, update: Update, span: slice, w: Array, g: Array, constants: Array) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does.

        Args:
            constants: of this step and these parameters.
        """
        raise NotImplementedError("the engine of array code has no formulas")

    def approach(self, average: Array, w: Array, share: float) -> None:
        """Compute average = average + share * (w - average)."""
        average += share * (w - average)

    def constrain(self, w: Array, most: float) -> None:
        """Scale each column of `w` that has a larger Euclidean norm than `most` down to it."""
        norms = self.xp.sqrt(self.xp.square(w, dtype="float64").sum(axis=0))
        w *= (most / self.xp.maximum(norms, most)).astype(w.dtype)

    def products(self, a: Array, b: Array, out: Array) -> None:
        """Compute out[i] = a[i] @ b[i]."""
        self.xp.matmul(a, b, out=out)

    def copy(self, source: Array, target: Array) -> None:
        """Copy one array to another."""
        self.xp.copyto(target, source)
