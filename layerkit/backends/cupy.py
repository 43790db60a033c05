"""The GPU backend: CuPy arrays in the memory of an NVIDIA GPU.

This module imports CuPy, so it is imported only when the backend is asked for.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np

from layerkit.backends.cublas import Handle


class CupyBackend:
    """Backend of cupy.ndarray on the current device; calls return before the work is done.

    Args:
        tf32: True if matrix products may round float32 to 10 bits, which is several times faster.
    """

    name = "cupy"
    xp: Any = cp

    def __init__(self, tf32: bool = False):
        self.tf32 = tf32

    @functools.cached_property
    def _cublas(self) -> Handle:
        return Handle(cp, self.tf32)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a new array filled with zeros."""
        return cp.zeros(shape, dtype)

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """Return `array` on the GPU, copied only if need be."""
        return cp.asarray(array, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """Return a NumPy copy, after the work that produces the array."""
        return cp.asnumpy(array)

    def gemm(self, a: Any, b: Any, out: Any, add: bool = False) -> None:
        """Compute out = a @ b with cuBLAS, or add it to `out`; can be recorded."""
        self._cublas.gemm(a, b, out, add)

    def gemms(self, a: list[Any], b: list[Any], out: list[Any], places: dict[Any, Any]) -> None:
        """Compute out[i] = a[i] @ b[i], matrices of equal shapes and strides; can be recorded.

        Args:
            places: a dictionary in which the caller keeps the addresses, which must be on the GPU,
                from call to call; a call with new addresses cannot be recorded.
        """
        if len(out) == 1:
            self.gemm(a[0], b[0], out[0])
            return
        key = tuple(tuple(array.data.ptr for array in arrays) for arrays in (a, b, out))
        if key not in places:
            places[key] = [cp.asarray(np.array(addresses, np.uint64)) for addresses in key]
        self._cublas.gemms(a, b, out, places[key])

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `step` gives the GPU as a CUDA graph; return a call that replays it.

        `step` is called once to be recorded, which does none of its work.  It must have been called
        before, so that all kernels are loaded, and it must not wait for the GPU.  Temporary arrays
        that it makes belong to the graph.
        """
        pool = cp.cuda.MemoryPool()
        stream = cp.cuda.Stream(non_blocking=True)
        gc.collect()  # memory freed while recording would spoil it
        enabled = gc.isenabled()
        gc.disable()
        try:
            with stream, cp.cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                try:
                    step()
                finally:
                    graph = stream.end_capture()
        finally:
            if enabled:
                gc.enable()
            self._cublas.forget_stream()

        def replay(kept: Any = (pool, stream)) -> None:
            graph.launch()  # on the current stream

        return replay

    def synchronize(self) -> None:
        """Wait for the current stream."""
        cp.cuda.get_current_stream().synchronize()
