"""libcublas on the host: what layerkit calls of it, with its C signatures, computed by NumPy.

The functions are real C functions behind ctypes, without declared arguments, as those of a library
that has just been loaded: a Python int is passed as a C int there, and a pointer loses its upper
half.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_host.device import KernelError, Stream, memory_at, state, submit

SUCCESS, NOT_INITIALIZED, INVALID_VALUE = 0, 1, 7
P, I = ctypes.c_void_p, ctypes.c_int  # noqa: E741
GEMM = (P, I, I, I, I, I, P, P, I, P, I, P, P, I)
SIGNATURES = {
    "cublasCreate_v2": (P,), "cublasDestroy_v2": (P,), "cublasSetStream_v2": (P, P),
    "cublasSetWorkspace_v2": (P, P, ctypes.c_size_t), "cublasSetMathMode": (P, I),
    "cublasSgemm_v2": GEMM, "cublasDgemm_v2": GEMM,
}


class Handle:
    """What a cublasHandle_t points to."""

    def __init__(self) -> None:
        self.stream = 0
        self.workspace: tuple[int, int] | None = None


class Library:
    """Stands for the ctypes.CDLL of libcublas."""

    def __init__(self) -> None:
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(0x7000_0000_1000, 0x100)  # more than 32 bits
        self._error: BaseException | None = None
        self._kept: list[Any] = []
        for name, arguments in SIGNATURES.items():
            setattr(self, name, self._function(name, arguments))

    def _function(self, name: str, arguments: tuple[Any, ...]) -> Callable[..., int]:
        method = getattr(self, "_" + name.removesuffix("_v2").removeprefix("cublas").lower())

        def called(*values: Any) -> int:
            try:
                return method(*values)
            except BaseException as error:
                self._error = error
                return 14

        callback = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(called)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        raw = ctypes.CFUNCTYPE(ctypes.c_int)(address)  # takes whatever it is given, as C does
        self._kept += [callback, raw]

        def function(*values: Any) -> int:
            if len(values) != len(arguments):
                raise TypeError(f"{name} takes {len(arguments)} arguments, got {len(values)}")
            status = raw(*values)
            error, self._error = self._error, None
            if error is not None:
                raise error
            return status

        return function

    def _create(self, pointer: int) -> int:
        number = next(self._numbers)
        self._handles[number] = Handle()
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[0] = number
        return SUCCESS

    def _destroy(self, handle: int) -> int:
        return SUCCESS if self._handles.pop(handle, None) else NOT_INITIALIZED

    def _setstream(self, handle: int, stream: int | None) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        self._handles[handle].stream = stream or 0
        self._handles[handle].workspace = None  # back to cuBLAS's own
        return SUCCESS

    def _setworkspace(self, handle: int, pointer: int, size: int) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        memory_at(pointer, size, "cublasSetWorkspace")
        if pointer % 256:
            return INVALID_VALUE
        self._handles[handle].workspace = (pointer, size)
        return SUCCESS

    def _setmathmode(self, handle: int, mode: int) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        return SUCCESS if mode in (0, 2, 3, 16) else INVALID_VALUE

    def _sgemm(self, *args: Any) -> int:
        return self._gemm(np.dtype("float32"), *args)

    def _dgemm(self, *args: Any) -> int:
        return self._gemm(np.dtype("float64"), *args)

    def _gemm(
        self, dtype: np.dtype, handle: int, trans_a: int, trans_b: int, m: int, n: int, k: int,
        alpha: int, a: int, lda: int, b: int, ldb: int, beta: int, c: int, ldc: int,
    ) -> int:
        """C = alpha op(A) op(B) + beta C, by columns: op(A) is (m, k), op(B) (k, n), C (m, n)."""
        if handle not in self._handles:
            return NOT_INITIALIZED
        rows_a, columns_a = (k, m) if trans_a else (m, k)
        rows_b, columns_b = (n, k) if trans_b else (k, n)
        if min(m, n, k) < 0 or not {trans_a, trans_b} <= {0, 1, 2} or not (alpha and beta):
            return INVALID_VALUE
        if lda < max(1, rows_a) or ldb < max(1, rows_b) or ldc < max(1, m):
            return INVALID_VALUE
        if m == 0 or n == 0:
            return SUCCESS
        scalar = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        # By value: in host pointer mode they are read when the call is made.
        factor, keep = (ctypes.cast(p, ctypes.POINTER(scalar))[0] for p in (alpha, beta))
        views, memories = [], []
        for name, address, rows, columns, ld in (
            ("A", a, rows_a, columns_a, lda), ("B", b, rows_b, columns_b, ldb), ("C", c, m, n, ldc)
        ):
            size = ((columns - 1) * ld + rows) * dtype.itemsize if rows * columns else 0
            memory = memory_at(address or 0, size, f"cublas{dtype.char.upper()}gemm, matrix {name}")
            start = (address or 0) - memory.ptr
            if start % dtype.itemsize:
                raise KernelError(f"gemm: matrix {name} at {address:#x} is not aligned")
            flat = memory.bytes[start : start + size].view(dtype)
            strides = dtype.itemsize, ld * dtype.itemsize
            views.append(np.lib.stride_tricks.as_strided(flat, (rows, columns), strides))
            memories.append(memory)
        left, right, out = views
        if any(np.shares_memory(out, other) for other in (left, right)):
            raise KernelError("gemm: the result shares memory with a factor")
        stream = self._stream(self._handles[handle])
        workspace = self._handles[handle].workspace
        if stream.capture is not None:
            if workspace is None:
                stream.capture.error = "cuBLAS without a work space of its own"
                raise KernelError(
                    "gemm during capture needs cublasSetWorkspace, after cublasSetStream"
                )
            memories.append(memory_at(*workspace, "cuBLAS's work space"))

        def run() -> None:
            value = factor * ((left.T if trans_a else left) @ (right.T if trans_b else right))
            out[...] = value if keep == 0 else value + keep * out  # what is there may be NaN

        submit(run, memories, "gemm", stream)
        return SUCCESS

    @staticmethod
    def _stream(handle: Handle) -> Stream:
        """The handle's stream, which must still be there."""
        if handle.stream == 0:
            return state.streams[0]
        for reference in state.created:
            stream = reference()
            if stream is not None and stream.ptr == handle.stream:
                return stream
        raise KernelError("cuBLAS's stream has been destroyed")
