"""The default backend: NumPy arrays in main memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


class NumpyBackend:
    """Backend of numpy.ndarray; work is done when a call returns."""

    name = "numpy"
    xp: Any = np

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a new array filled with zeros, which starts on a cache line (64 bytes)."""
        dtype = np.dtype(dtype)
        space = np.zeros(math.prod(shape) * dtype.itemsize + 64, np.uint8)
        start = -space.ctypes.data % 64
        return space[start : start + space.size - 64].view(dtype).reshape(shape)

    def asarray(self, array: Any, dtype: Any = None) -> np.ndarray:
        """Return `array` as a numpy.ndarray, copied only if need be."""
        return np.asarray(array, dtype)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """Return a copy, safe to keep."""
        return np.array(array)

    def gemm(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, add: bool = False) -> None:
        """Compute out = a @ b, or add it to `out`; BLAS takes transposed views as they are."""
        if add:
            out += a @ b
        else:
            np.matmul(a, b, out=out)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return `step` itself: there is nothing to record."""
        return step

    def synchronize(self) -> None:
        """Do nothing: there is no work to wait for."""
