"""libcublas on the host: what layerkit calls of it, with its C signatures, computed by NumPy.

The functions are real C functions behind ctypes, without declared arguments, as those of a library
that has just been loaded: a Python int is passed as a C int there, and a pointer loses its upper
half.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_host.device import KernelError, Stream, Use, Work, memory_at, state, submit

SUCCESS, NOT_INITIALIZED, INVALID_VALUE = 0, 1, 7
P, I, N = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
GEMM = (P, I, I, I, I, I, P, P, I, P, I, P, P, I)
BATCHED = (P, I, I, I, I, I, P, P, I, N, P, I, N, P, P, I, N, I)


class Library:
    """Stands for the ctypes.CDLL of libcublas."""

    def __init__(self) -> None:
        # A handle's stream and work space, by its address, which has more than 32 bits.
        self._handles: dict[int, tuple[int, tuple[int, int] | None]] = {}
        self._numbers = itertools.count()
        self._error: BaseException | None = None
        self._kept: list[Any] = []
        self.cublasCreate_v2 = self._function(self._create, P)
        self.cublasDestroy_v2 = self._function(self._destroy, P)
        self.cublasSetMathMode = self._function(self._set_math_mode, P, I)
        self.cublasSetStream_v2 = self._function(self._set_stream, P, P)
        self.cublasSetWorkspace_v2 = self._function(self._set_workspace, P, P, ctypes.c_size_t)
        for letter, dtype in ("S", np.dtype("float32")), ("D", np.dtype("float64")):
            gemm, batched = (functools.partial(f, dtype) for f in (self._gemm, self._batched))
            setattr(self, f"cublas{letter}gemm_v2", self._function(gemm, *GEMM))
            setattr(
                self, f"cublas{letter}gemmStridedBatched", self._function(batched, *BATCHED)
            )

    def _function(self, method: Callable[..., int], *arguments: Any) -> Callable[..., int]:
        def called(handle: int, *values: Any) -> int:
            try:
                known = handle in self._handles or method == self._create
                return method(handle, *values) if known else NOT_INITIALIZED
            except BaseException as error:
                self._error = error
                return 14

        callback = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(called)
        # Takes whatever it is given, as C does.
        raw = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(callback, P).value)
        self._kept += [callback, raw]

        def function(*values: Any) -> int:
            if len(values) != len(arguments):
                raise TypeError(f"{len(arguments)} arguments are needed, got {len(values)}")
            status = raw(*values)
            error, self._error = self._error, None
            if error is not None:
                raise error
            return status

        return function

    def _create(self, pointer: int) -> int:
        number = 0x7000_0000_1000 + 0x100 * next(self._numbers)
        self._handles[number] = 0, None
        ctypes.cast(pointer, ctypes.POINTER(P))[0] = number
        return SUCCESS

    def _destroy(self, handle: int) -> int:
        del self._handles[handle]
        return SUCCESS

    def _set_math_mode(self, handle: int, mode: int) -> int:
        return SUCCESS if mode in (0, 3) else INVALID_VALUE

    def _set_stream(self, handle: int, stream: int | None) -> int:
        self._handles[handle] = stream or 0, None  # back to cuBLAS's own work space
        return SUCCESS

    def _set_workspace(self, handle: int, pointer: int, size: int) -> int:
        memory_at(pointer, size, "cublasSetWorkspace")
        self._handles[handle] = self._handles[handle][0], (pointer, size)
        return INVALID_VALUE if pointer % 256 else SUCCESS

    def _batched(
        self, dtype: np.dtype, handle: int, trans_a: int, trans_b: int, m: int, n: int, k: int,
        alpha: int, a: int, lda: int, to_a: int, b: int, ldb: int, to_b: int, beta: int, c: int,
        ldc: int, to_c: int, count: int,
    ) -> int:
        if count < 0:
            return INVALID_VALUE
        if count > 1 and abs(to_c) < ldc * (n - 1) + m:
            raise KernelError("gemm: one result shares memory with the next")
        for i in range(count):
            at = (p + i * step * dtype.itemsize for p, step in ((a, to_a), (b, to_b), (c, to_c)))
            left, right, out = at
            status = self._gemm(
                dtype, handle, trans_a, trans_b, m, n, k, alpha, left, lda, right, ldb, beta, out,
                ldc,
            )
            if status:
                return status
        return SUCCESS

    def _gemm(
        self, dtype: np.dtype, handle: int, trans_a: int, trans_b: int, m: int, n: int, k: int,
        alpha: int, a: int, lda: int, b: int, ldb: int, beta: int, c: int, ldc: int,
    ) -> int:
        """C = alpha op(A) op(B) + beta C, by columns: op(A) is (m, k), op(B) (k, n), C (m, n)."""
        of_a, of_b = (k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)
        if min(m, n, k) < 0 or not {trans_a, trans_b} <= {0, 1, 2} or not (alpha and beta):
            return INVALID_VALUE
        if lda < max(1, of_a[0]) or ldb < max(1, of_b[0]) or ldc < max(1, m):
            return INVALID_VALUE
        if m == 0 or n == 0:
            return SUCCESS
        scalar = ctypes.POINTER(ctypes.c_float if dtype == np.float32 else ctypes.c_double)
        # By value: in host pointer mode they are read when the call is made.
        factor, keep = (ctypes.cast(p, scalar)[0] for p in (alpha, beta))
        views, needs = [], []
        for name, address, (rows, columns), ld in (
            ("A", a or 0, of_a, lda), ("B", b or 0, of_b, ldb), ("C", c or 0, (m, n), ldc)
        ):
            size = ((columns - 1) * ld + rows) * dtype.itemsize if rows * columns else 0
            memory = memory_at(address, size, f"gemm: matrix {name}")
            if address % dtype.itemsize:
                raise KernelError(f"gemm: matrix {name} at {address:#x} is not aligned")
            start = address - memory.ptr
            flat = memory.bytes[start : start + size].view(dtype)
            strides = dtype.itemsize, ld * dtype.itemsize
            views.append(np.lib.stride_tricks.as_strided(flat, (rows, columns), strides))
            needs.append((memory, Use(address, address + size, name == "C")))
        left, right, out = views
        if any(np.shares_memory(out, other) for other in (left, right)):
            raise KernelError("gemm: the result shares memory with a factor")
        number, workspace = self._handles[handle]
        stream: Stream | None = state.created.get(number)
        if stream is None:
            raise KernelError("gemm: cuBLAS's stream has been destroyed")
        if workspace:
            begin, size = workspace
            needs.append((memory_at(begin, size, "cuBLAS's work space"),
                          Use(begin, begin + size, True)))
        elif stream.capture is not None:
            stream.error = "cuBLAS without a work space of its own"
            raise KernelError(
                "gemm during capture needs cublasSetWorkspace, after cublasSetStream"
            )

        def run(stream: Stream) -> None:
            value = factor * ((left.T if trans_a else left) @ (right.T if trans_b else right))
            out[...] = value if keep == 0 else value + keep * out  # what is there may be NaN

        submit(Work(run, "gemm", needs), stream)
        return SUCCESS
