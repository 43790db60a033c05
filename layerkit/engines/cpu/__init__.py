"""The compiled engine for CPUs: which runner belongs to which layer.

The C++ sources below this folder are built into the extension module `_cpu` when layerkit is
installed.  If that failed, for want of a compiler, nets run on array code.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import ReboundError
from layerkit.engines.base import ArrayEngine, Make, Runner, Update
from layerkit.engines.cpu import runners
from layerkit.layer import Layer
from layerkit.system.uninterrupted import undoing
from layerkit.wiring import contract

ZERO = np.zeros(1)
PROGRAMS = 8  # that a net keeps for one thing, such as for batches of different sizes
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORMULAS = {"adam": 1, "momentum": 2, "rmsprop": 3}  # as numbered in updates.h
MISSING = (
    "layerkit's compiled kernels are not installed, so nets run on array code, which is slower; "
    "install layerkit again where there is a C++ compiler (such as g++)"
)


def thread_count() -> int:
    """Return how many threads to use: the cores of this process, or fewer where a variable says."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    given = [os.environ.get(name, "").split(",")[0].strip() for name in LIMITS]
    # No limit: what is no number, is not above zero, or has more digits than any number of cores.
    return min([count, *(int(n) for n in given if n.isdecimal() and len(n) < 9 and int(n) > 0)])


@functools.cache
def extension() -> Any:
    """Return the extension module with its threads started, or None where it was not built."""
    try:
        kernels = importlib.import_module(f"{__name__}._cpu")
    except ImportError:
        warnings.warn(MISSING, RuntimeWarning, stacklevel=2)
        return None
    kernels.set_threads(thread_count())
    return kernels


class Program:
    """Calls of layers that are made again, those of kernels without Python in between.

    Args:
        kernels: the extension module.
    """

    def __init__(self, kernels: Any):
        self.kernels = kernels
        self.layers: list[Layer] = []  # whose calls they are, by label, from 1
        self.parts: list[Any] = [kernels.Program()]  # of kernels, and calls of array code

    def note(self, calls: Callable[[], object]) -> None:
        """Make calls; the kernels that this thread calls meanwhile become part of the program."""

        def noted() -> None:
            self.kernels.record(self.parts[-1])
            calls()

        undoing(noted, lambda: self.kernels.record(None))

    def record(
        self, recordable: bool, layer: Layer, call: Callable[..., Any], *arguments: Any, way: str
    ) -> None:
        """Make a call of a layer, and keep it."""
        if recordable:
            self.layers.append(layer)
            self.parts[-1].label = len(self.layers)
            contract.make(layer, call, *arguments, way=way)
            return
        self.kernels.record(None)
        part = functools.partial(contract.make, layer, call, *arguments, way=way)
        part()
        self.parts += [part, self.kernels.Program()]
        self.kernels.record(self.parts[-1])

    def run(self) -> None:
        """Make all calls again."""
        for part in self.parts:
            if isinstance(part, functools.partial):
                part()
                continue
            try:
                part.run()
            except (ReboundError, MemoryError) as error:
                if not part.at:  # a call of the net or the solver, before any layer's
                    raise
                contract.failed(self.layers[part.at - 1], error)


class CpuEngine(ArrayEngine):
    """The engine that runs layers by compiled kernels where there are any, else by array code.

    Attributes:
        kernels: the extension module.
        threads: how many threads share the work of a kernel, the calling one included.
    """

    name = "cpu"

    def __init__(self, kernels: Any):
        super().__init__(np)
        self.kernels = kernels
        self.threads: int = kernels.threads()
        self._usual = kernels.flush()  # how threads of this program count denormal numbers
        kernels.restore(self._usual)

    def describe(self) -> str:
        """Return in words what runs the layers."""
        return f"compiled kernels ({self.kernels.name()}), {self.threads} threads"

    def bind(self, layer: Layer) -> Runner:
        """Return the runner registered for exactly this class, or the layer with its array code."""
        make = runners.RUNNERS.get(type(layer))
        return make(layer, self) if make and make.takes(layer, self) else Runner(layer)

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Make a `with` block in which denormal numbers count as zero in the calling thread."""
        before = None  # an interrupt may come when it is flushed, and this not yet known
        try:
            try:
                before = self.kernels.flush()
                yield
            finally:
                self.kernels.restore(self._usual if before is None else before)
        except BaseException:  # which may have come before the state was restored
            self.kernels.restore(self._usual if before is None else before)
            raise

    def repeat(self, programs: dict[Any, Any], key: Any, calls: Callable[[Make], None]) -> None:
        """Make calls of layers: the first time from Python, then by a program that they make."""
        program = programs.get(key)
        if program is not None:
            program.run()
            return
        if len(programs) >= PROGRAMS:
            programs.clear()
        program = Program(self.kernels)
        program.note(lambda: calls(program.record))
        programs[key] = program

    def largest(self, array: Array, found: np.ndarray) -> None:
        """Fill `found`, float64 of one number, with the largest |a|; NaN where there is one."""
        self.kernels.magnitude(array, found)

    def mean(self, array: Array, found: np.ndarray) -> None:
        """Fill `found`, float64 of one number, with the mean of an array."""
        self.kernels.mean(array, found)

    def add_up(self, diffs: Sequence[Array], out: Array) -> None:
        """Compute out = the sum of the diffs, at least two, or zero where there are none."""
        if not diffs:
            self.kernels.fill(out, ZERO)
            return
        total = diffs[0]
        for diff in diffs[1:]:
            self.kernels.add(total, diff, out)
            total = out

    def add_to(self, total: Array, part: Array) -> None:
        """Compute total = total + part."""
        self.kernels.add(total, part, total)

    def add_number(self, number: np.ndarray, out: Array) -> None:
        """Add number[0], float64, to every element."""
        self.kernels.add_number(out, number)

    def formula(self, name: str | None) -> int:
        """Return the number of a solver's formula, 0 where the engine does not have it."""
        return FORMULAS.get(name or "", 0)

    def update(self, update: Update, span: slice, w: Array, g: Array, constants: Array) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does."""
        self.kernels.update(update.kind, w, g, *(a[span] for a in update.flat), constants)

    def approach(self, average: Array, w: Array, share: float) -> None:
        """Compute average = average + share * (w - average)."""
        self.kernels.approach(average, w, share)

    def constrain(self, w: Array, most: float) -> None:
        """Scale each column of `w` that has a larger Euclidean norm than `most` down to it."""
        self.kernels.constrain(w, most)

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """Compute out = a * b, element by element."""
        self.kernels.multiply_elements(a, b, out)

    def products(self, a: Array, b: Array, out: Array) -> None:
        """Compute out[i] = a[i] @ b[i], each by one thread."""
        self.kernels.products(a, b, out)

    def copy(self, source: Array, target: Array) -> None:
        """Copy one array of neighbouring elements to another, shared among the threads."""
        self.kernels.copy(source, target)


@functools.cache
def engine() -> CpuEngine | None:
    """Return the engine of this process, or None where the extension was not built."""
    kernels = extension()
    return None if kernels is None else CpuEngine(kernels)
