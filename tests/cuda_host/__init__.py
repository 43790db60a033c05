"""A stand-in for CuPy and a GPU: layerkit's CUDA code, run and watched on the host.

    with cuda_host.installed() as cupy:
        backend = layerkit.backends.get("cupy")

Within the context `import cupy` finds the stand-in (module.py): arrays that cannot be mixed with
NumPy's (array.py), streams, capture into graphs and kernel launches (device.py), cuBLAS
(cublas.py).  Kernels are compiled by g++ (compiler.py, cuda_host.h) and run thread by thread under
watch (runtime.cpp).  What CUDA would not forgive, or might not, is a KernelError or CUDA's error.

It says whether code is right, not whether it is fast, and knows only what layerkit uses.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

from cuda_host import compiler, cublas, device, module
from cuda_host.device import CUDADriverError, CUDARuntimeError, KernelError

__all__ = [
    "CUDADriverError", "CUDARuntimeError", "KernelError", "installed", "launches", "missing",
]


def missing() -> str | None:
    """Why CUDA code cannot be tested on this machine, or None."""
    return None if compiler.compiler() else "CUDA code is tested on the host by g++ on Linux"


def launches() -> list[str]:
    """Names of the kernels that have run since the stand-in was installed."""
    return device.state.launches


@contextlib.contextmanager
def installed(seed: int = 0, races: bool = True) -> Iterator[ModuleType]:
    """Puts the stand-in in CuPy's place, with a device that has done nothing yet.

    Args:
        seed: of the order in which blocks and threads run; 0 runs them by number.
        races: whether kernels are watched for races between threads.
    """
    device.state.reset(seed, races)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    modules = module.make()
    sys.modules.update(modules)
    undo = _use_cublas()
    try:
        yield modules["cupy"]
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            _forget(name)
        sys.modules.update(kept)
        for name, old in kept.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, old)
        undo()
        device.state.reset()


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in ("cupy", "cupyx") or name == "layerkit.backends.cupy"


def _forget(name: str) -> None:
    del sys.modules[name]
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(child, None)


def _use_cublas() -> Callable[[], None]:
    """Lets layerkit find the stand-in's cuBLAS; returns what undoes it."""
    try:
        from layerkit.backends import cublas as ours
    except ImportError:
        return lambda: None
    original, library = ours.library, cublas.Library()
    ours.library = lambda: library

    def undo() -> None:
        ours.library = original

    return undo
