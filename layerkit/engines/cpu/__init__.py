"""The compiled engine for CPUs: which runner belongs to which layer.

The C++ sources in this folder are built into the extension module `_cpu` when layerkit is
installed.  Where that failed, for want of a compiler, nets run on array code.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.engines.base import ArrayEngine, Runner, Update
from layerkit.engines.cpu import runners
from layerkit.layer import Layer

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORMULAS = {"adam": 1, "momentum": 2}  # as numbered in updates.h
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

    def bind(self, layer: Layer) -> Runner:
        """Return the runner registered for exactly this class, or the layer with its array code."""
        make = runners.RUNNERS.get(type(layer))
        return make(layer, self) if make and make.fits(layer) else Runner(layer)

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Make a `with` block in which denormal numbers count as zero in the calling thread."""
        before = self.kernels.flush()
        try:
            yield
        finally:
            self.kernels.restore(before)

    def magnitude(self, array: Array) -> float:
        """Return the largest |a| of an array of neighbouring elements; NaN where it holds one."""
        found: float = self.kernels.magnitude(array)
        return found

    def formula(self, name: str | None) -> int:
        """Return the number of a solver's formula, 0 where the engine does not have it."""
        return FORMULAS.get(name or "", 0)

    def update(self, update: Update, span: slice, w: Array, g: Array) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does."""
        self.kernels.update(update.kind, w, g, *(a[span] for a in update.flat), update.constants)

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
