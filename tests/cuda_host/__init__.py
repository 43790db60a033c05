"""A stand-in for CuPy and a GPU: layerkit's CUDA code, run and watched on the host.

    with cuda_host.installed() as cupy:
        backend = layerkit.backends.get("cupy")

Within the context `import cupy` finds the stand-in (module.py): arrays that cannot be mixed with
NumPy's (array.py), streams, capture into graphs and kernel launches (device.py), cuBLAS
(cublas.py).  Kernels are compiled by g++ (compiler.py, cuda_host.h) and run thread by thread under
watch (runtime.cpp).  Whatever CUDA would not forgive, or might not, is a KernelError or CUDA's
error.

It says whether code is right, not whether it is fast, and knows only what layerkit uses.
"""

import contextlib
import re
import sys
from unittest import mock

from cuda_host import compiler, cublas, device, module
from cuda_host.device import CUDADriverError, CUDARuntimeError, KernelError
from layerkit import backends
from layerkit.backends import cublas as ours
from layerkit.engines.cuda import program

__all__ = ["CUDADriverError", "CUDARuntimeError", "KernelError", "installed", "launches", "missing"]


def missing():
    """Say why CUDA code cannot be tested on this machine, or return None."""
    return None if compiler.compiler() else "CUDA code is tested on the host by g++ on Linux"


def launches():
    """Return the names of the kernels that have run since the stand-in was installed."""
    return device.state.launches


@contextlib.contextmanager
def installed(seed=0, races=True):
    """Put the stand-in in CuPy's place, with a device that has done nothing yet.

    Args:
        seed: of the order in which blocks and threads run; 0 runs them by number.
        races: whether kernels are watched for races between threads.
    """
    device.state.reset(seed, races)
    modules = module.make()
    kept = _taken()
    sys.modules.update(modules)
    try:
        with (
            mock.patch.object(ours, "library", return_value=cublas.Library()),
            # Fewer blocks than a GPU wants look at a gradient: threads run one by one here.
            mock.patch.object(program, "LOOKING", 3),
        ):
            yield modules["cupy"]
    finally:
        _taken()
        sys.modules.update(kept)
        if "layerkit.backends.cupy" in kept:
            backends.cupy = kept["layerkit.backends.cupy"]
        device.state.reset()


def _taken():
    """Take CuPy, and the backend that was made with it, out of Python's table of modules."""
    vars(backends).pop("cupy", None)
    names = [
        name for name in sys.modules if re.match(r"cupyx?(\.|$)|layerkit\.backends\.cupy$", name)
    ]
    return {name: sys.modules.pop(name) for name in names}
