"""Matrix products on the GPU by a cuBLAS handle of our own, called through ctypes.

CuPy does not call cuBLAS while a stream is being captured ("currently unsupported", CuPy issue
6290), though cuBLAS itself allows it to a handle that has been given its work space beforehand.
This one has; the library is the one that CuPy loads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any

from layerkit.backends.base import Array
from layerkit.errors import BackendError

WORKSPACE = 32 << 20  # bytes, what NVIDIA recommends for Hopper; older GPUs need an eighth
NO, TRANSPOSED = 0, 1  # cublasOperation_t
DEFAULT_MATH, TF32_MATH = 0, 3  # cublasMath_t
STATUS = {  # cublasStatus_t
    1: "not initialised", 3: "out of memory", 7: "invalid value", 8: "no such GPU architecture",
    11: "memory cannot be reached", 13: "execution failed", 14: "internal error",
    15: "not supported", 16: "licence",
}


@functools.cache
def library() -> Any:
    """The libcublas that CuPy uses."""
    import cupy

    try:
        cupy.cuda.cublas  # noqa: B018  # makes CuPy load it, from wherever it finds it
        version = cupy.cuda.runtime.runtimeGetVersion() // 1000
        return ctypes.CDLL(f"libcublas.so.{version}")  # a library that is loaded is found by name
    except (ImportError, AttributeError, OSError) as error:
        raise BackendError(
            f"backend cupy: cuBLAS cannot be loaded ({error}); install it with CuPy: "
            "pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x[ctk])"
        ) from error


class Handle:
    """A cuBLAS handle with its own work space, on the current device.

    Args:
        xp: cupy.
        tf32: whether products of float32 matrices may round their factors to 10 bits (TF32).
    """

    def __init__(self, xp: Any, tf32: bool = False):
        self.xp = xp
        self._library = library()
        self._handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(self._handle))
        self._check(
            "cublasSetMathMode", self._handle, ctypes.c_int(TF32_MATH if tf32 else DEFAULT_MATH)
        )
        self._workspace = xp.zeros(WORKSPACE, "uint8")
        self._stream: int | None = None

    def gemm(self, a: Array, b: Array, out: Array) -> None:
        """out = a @ b; each of `a` and `b` may be a transposed view, `out` has contiguous rows.

        All are of one dtype, float32 or float64.
        """
        self._use_current_stream()
        single = out.dtype == "float32"
        number = ctypes.c_float if single else ctypes.c_double
        (left, of_a), (right, of_b) = self._layout(a), self._layout(b)
        # cuBLAS stores by columns, so what it sees are the transposes: out' = b' a'.
        self._check(
            "cublasSgemm_v2" if single else "cublasDgemm_v2", self._handle,
            ctypes.c_int(right), ctypes.c_int(left),
            ctypes.c_int(out.shape[1]), ctypes.c_int(out.shape[0]), ctypes.c_int(a.shape[1]),
            ctypes.byref(number(1)), ctypes.c_void_p(b.data.ptr), ctypes.c_int(of_b),
            ctypes.c_void_p(a.data.ptr), ctypes.c_int(of_a),
            ctypes.byref(number(0)), ctypes.c_void_p(out.data.ptr), ctypes.c_int(out.shape[1]),
        )

    def forget_stream(self) -> None:
        """Called where a stream that was in use may be gone, and its address another's."""
        self._stream = None

    @staticmethod
    def _layout(matrix: Array) -> tuple[int, int]:
        """Tell whether a matrix is a transposed view, and how far apart its rows or columns lie."""
        (rows, columns), item = matrix.shape, matrix.dtype.itemsize
        by_row, by_column = (s // item for s in matrix.strides)
        if by_column == 1 or columns == 1:
            return NO, max(by_row if rows > 1 else columns, 1)
        if by_row == 1 or rows == 1:
            return TRANSPOSED, max(by_column, 1)
        raise ValueError(f"a matrix of strides {matrix.strides} is no matrix to cuBLAS")

    def _use_current_stream(self) -> None:
        stream = self.xp.cuda.get_current_stream().ptr
        if stream != self._stream:
            self._check("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
            # Changing the stream takes the work space away.
            self._check(
                "cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(self._workspace.data.ptr),
                ctypes.c_size_t(WORKSPACE),
            )
            self._stream = stream

    def _check(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise BackendError(f"{name} failed with status {status} ({STATUS.get(status, '?')})")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            with contextlib.suppress(Exception):  # the program is ending, the library may be gone
                self._library.cublasDestroy_v2(self._handle)
