"""The compiled engine for CPUs: which runner belongs to which layer.

The C++ sources in this folder are built into the extension module `_cpu` when layerkit is installed.
Where that failed, for want of a compiler, nets run on array code.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from layerkit.engines.base import Runner
from layerkit.engines.cpu import runners
from layerkit.layer import Layer

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
UPDATES = {"adam": 1, "momentum": 2}  # as numbered in updates.h


def thread_count() -> int:
    """Return how many threads to use: the cores of this process, or fewer where a variable says so."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    given = [os.environ.get(name, "").split(",")[0].strip() for name in LIMITS]
    return min([count, *(int(n) for n in given if n.isdecimal() and int(n) > 0)])


@functools.cache
def extension() -> Any:
    """Return the extension module with its threads started, or None where it was not built."""
    try:
        from layerkit.engines.cpu import _cpu
    except ImportError:
        return None
    _cpu.set_threads(thread_count())
    return _cpu


class CpuEngine:
    """The engine that runs layers by compiled kernels where there are any, else by array code.

    Attributes:
        kernels: the extension module.
        threads: how many threads share the work of a kernel, the calling one included.
    """

    name = "cpu"

    def __init__(self) -> None:
        self.kernels = extension()
        self.threads: int = self.kernels.threads()

    def bind(self, layer: Layer) -> Runner:
        """Return the runner registered for exactly this class, or the layer with its array code."""
        make = runners.RUNNERS.get(type(layer))
        return make(layer, self.kernels) if make and make.fits(layer) else Runner(layer)
