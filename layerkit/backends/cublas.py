"""Matrix products on the GPU with our own cuBLAS handle, called through ctypes.

CuPy does not call cuBLAS while a stream is being captured ("currently unsupported", CuPy issue
6290), though cuBLAS itself allows it if a handle was given its work space beforehand, as this one
is.  The library is the one that CuPy loads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from typing import Any

from layerkit.backends.base import GPUArray
from layerkit.errors import BackendError

WORKSPACE = 32 << 20  # bytes, what NVIDIA recommends for Hopper; older GPUs need an eighth
NO, TRANSPOSED = 0, 1  # cublasOperation_t
DEFAULT_MATH, TF32_MATH = 0, 3  # cublasMath_t
STATUS = {  # cublasStatus_t
    1: "not initialised",
    3: "out of memory",
    7: "invalid value",
    8: "no such GPU architecture",
    11: "memory cannot be reached",
    13: "execution failed",
    14: "internal error",
    15: "not supported",
    16: "licence",
}


@functools.cache
def library() -> Any:
    """Return the libcublas that CuPy uses."""
    import cupy

    try:
        cupy.cuda.cublas  # noqa: B018  # makes CuPy load it, wherever it is
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
        tf32: True if products of float32 matrices may round their factors to 10 bits (TF32).
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

    def gemm(self, a: GPUArray, b: GPUArray, out: GPUArray, add: bool = False) -> None:
        """Compute out = a @ b, or add it to `out`.

        Either of `a` and `b` may be a transposed view; `out` is none, but its rows may lie apart.
        All are of one dtype, float32 or float64.
        """
        number = self._number(out)
        before, of_b, of_a, of_out = self._arguments(a, b, out)
        self._call(
            out,
            "gemm_v2",
            *before,
            ctypes.byref(number(1)),
            *of_b,
            *of_a,
            ctypes.byref(number(int(add))),
            *of_out,
        )

    def gemms(
        self,
        a: Sequence[GPUArray],
        b: Sequence[GPUArray],
        out: Sequence[GPUArray],
        places: Sequence[GPUArray],
    ) -> None:
        """Compute out[i] = a[i] @ b[i], matrices that differ only in address, in one call.

        Args:
            places: the addresses of `a`, of `b` and of `out`, as arrays of uint64 on the GPU.
        """
        number = self._number(out[0])
        before, (_, apart_b), (_, apart_a), (_, apart_out) = self._arguments(a[0], b[0], out[0])
        of_a, of_b, of_out = (ctypes.c_void_p(place.data.ptr) for place in places)
        self._call(
            out[0],
            "gemmBatched",
            *before,
            ctypes.byref(number(1)),
            of_b,
            apart_b,
            of_a,
            apart_a,
            ctypes.byref(number(0)),
            of_out,
            apart_out,
            ctypes.c_int(len(out)),
        )

    @staticmethod
    def _number(out: GPUArray) -> Any:
        return ctypes.c_float if out.dtype == "float32" else ctypes.c_double

    def _arguments(self, a: GPUArray, b: GPUArray, out: GPUArray) -> tuple[tuple[Any, ...], ...]:
        """Return the arguments that cuBLAS takes: operations and sizes, and each matrix."""
        (left, apart_a), (right, apart_b) = self._layout(a), self._layout(b)
        apart_out = self._layout(out)[1]
        # cuBLAS stores by columns, so it sees the transposes: out' = b' a'.
        operations = ctypes.c_int(right), ctypes.c_int(left)
        sizes = (out.shape[1], out.shape[0], a.shape[1])
        return (
            (*operations, *map(ctypes.c_int, sizes)),
            (ctypes.c_void_p(b.data.ptr), ctypes.c_int(apart_b)),
            (ctypes.c_void_p(a.data.ptr), ctypes.c_int(apart_a)),
            (ctypes.c_void_p(out.data.ptr), ctypes.c_int(apart_out)),
        )

    def _call(self, out: GPUArray, name: str, *arguments: Any) -> None:
        self._use_current_stream()
        kind = "S" if out.dtype == "float32" else "D"
        self._check(f"cublas{kind}{name}", self._handle, *arguments)

    def forget_stream(self) -> None:
        """Forget the stream in use, which may be gone and its address another's."""
        self._stream = None

    @staticmethod
    def _layout(matrix: GPUArray) -> tuple[int, int]:
        """Return the operation for a matrix and its leading dimension."""
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
                "cublasSetWorkspace_v2",
                self._handle,
                ctypes.c_void_p(self._workspace.data.ptr),
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
