"""Backends: arrays and matrix products of one kind of device.  `get` finds one by name."""

from __future__ import annotations

from layerkit.backends.base import Array, Backend
from layerkit.backends.numpy import NumpyBackend
from layerkit.errors import BackendError

__all__ = ["Array", "Backend", "get"]

NAMES = ("numpy", "cupy", "auto")


def get(name: str = "numpy", tf32: bool = False) -> Backend:
    """Return the backend called `name`.

    "numpy" runs everywhere; "cupy" needs CuPy and an NVIDIA GPU that responds; "auto" is "cupy" if
    both are there and "numpy" otherwise.  `tf32` lets "cupy" round the factors of matrix products.

    Raises:
        BackendError: an unknown name, or "cupy" without CuPy or without a GPU; it says which.
    """
    if name == "numpy":
        return NumpyBackend()
    if name == "cupy":
        return _cupy(tf32)
    if name == "auto":
        try:
            return _cupy(tf32)
        except BackendError:
            return NumpyBackend()
    raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")


def _cupy(tf32: bool) -> Backend:
    install = "in your clone, pip install '.[cuda13]' (or '.[cuda12]'), or choose backend numpy"
    try:
        import cupy
    except Exception as error:  # not only ImportError: a broken installation fails in many ways
        raise BackendError(
            f"backend cupy: CuPy cannot be imported ({_reason(error)}); {install}"
        ) from error
    try:
        cupy.cuda.runtime.getDeviceCount()
        cupy.zeros(1).sum().item()
    except Exception as error:  # the driver's own exceptions differ from version to version
        raise BackendError(
            f"backend cupy: CuPy {cupy.__version__} is installed but no GPU answers "
            f"({_reason(error)}); check nvidia-smi, or choose backend numpy"
        ) from error
    from layerkit.backends.cupy import CupyBackend

    return CupyBackend(tf32)


def _reason(error: Exception) -> str:
    """Return an error in one line: CuPy's own are banners that end with what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[-1] if lines else type(error).__name__
