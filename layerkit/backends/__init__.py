"""Backends: where arrays live and who multiplies them.  `get` finds one by name."""

from __future__ import annotations

from layerkit.backends.base import Array, Backend
from layerkit.backends.numpy import NumpyBackend
from layerkit.errors import BackendError

__all__ = ["Array", "Backend", "get"]

NAMES = ("numpy", "cupy", "auto")


def get(name: str = "numpy") -> Backend:
    """The backend called `name`.

    "numpy" runs everywhere; "cupy" needs CuPy and an NVIDIA GPU that answers; "auto" is "cupy" if
    that is so and "numpy" otherwise.

    Raises:
        BackendError: an unknown name, or "cupy" without CuPy or without a GPU; says which.
    """
    if name == "numpy":
        return NumpyBackend()
    if name == "cupy":
        return _cupy()
    if name == "auto":
        try:
            return _cupy()
        except BackendError:
            return NumpyBackend()
    raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")


def _cupy() -> Backend:
    install = "pip install 'layerkit[cuda13]' (or [cuda12]), or choose backend numpy"
    try:
        import cupy
    except ImportError as error:
        raise BackendError(f"backend cupy: CuPy cannot be imported ({error}); {install}") from error
    try:
        cupy.cuda.runtime.getDeviceCount()
        cupy.zeros(1).sum().item()
    except Exception as error:  # the driver's own exceptions differ from version to version
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(
            f"backend cupy: CuPy {cupy.__version__} is installed but no GPU answers ({reason}); "
            "check nvidia-smi, or choose backend numpy"
        ) from error
    from layerkit.backends.cupy import CupyBackend

    return CupyBackend()
