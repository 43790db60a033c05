"""The GPU backend: CuPy arrays in the memory of an NVIDIA GPU.

This module imports CuPy, so it is itself imported only when the backend is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np


class CupyBackend:
    """Arrays are cupy.ndarray on the current device; calls return before the work is done."""

    name = "cupy"
    xp: Any = cp

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array filled with zeros."""
        return cp.zeros(shape, dtype)

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """`array` on the GPU, copied only if need be."""
        return cp.asarray(array, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """A NumPy copy; waits for the work that produces it."""
        return cp.asnumpy(array)

    def gemm(self, a: Any, b: Any, out: Any) -> None:
        """out = a @ b by cuBLAS."""
        cp.matmul(a, b, out=out)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """`step` itself: CuPy refuses cuBLAS calls while a stream is being captured."""
        return step

    def synchronize(self) -> None:
        """Waits for the current stream."""
        cp.cuda.get_current_stream().synchronize()
