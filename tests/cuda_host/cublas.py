"""libcublas on the host: what layerkit calls of it, with its C signatures, computed by NumPy.

The functions are real C functions behind ctypes, without declared arguments, as those of a library
that has just been loaded: a Python int is passed as a C int there, and a pointer loses its upper
half.
"""

import ctypes
import functools
import itertools

import numpy as np

from cuda_host.device import KernelError, Use, Work, memory_at, state, submit

SUCCESS, NOT_INITIALIZED, INVALID_VALUE = 0, 1, 7
P, I, N = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
GEMM = (P, I, I, I, I, I, P, P, I, P, I, P, P, I)
BATCHED = (P, I, I, I, I, I, P, P, I, N, P, I, N, P, P, I, N, I)


class Library:
    """Stands for the ctypes.CDLL of libcublas."""

    def __init__(self):
        self._handles = {}  # a handle's stream and work space, by its address
        self._addresses = itertools.count(0x7000_0000_1000, 0x100)  # of more than 32 bits
        self._error = None
        self._kept = []
        self.cublasCreate_v2 = self._function(self._create, P)
        self.cublasDestroy_v2 = self._function(lambda handle: self._handles.pop(handle) and 0, P)
        self.cublasSetMathMode = self._function(
            lambda handle, mode: SUCCESS if mode in (0, 3) else INVALID_VALUE, P, I
        )
        self.cublasSetStream_v2 = self._function(self._set_stream, P, P)
        self.cublasSetWorkspace_v2 = self._function(self._set_workspace, P, P, ctypes.c_size_t)
        for letter, dtype in ("S", np.dtype("float32")), ("D", np.dtype("float64")):
            gemm, batched = (functools.partial(f, dtype) for f in (self._gemm, self._batched))
            setattr(self, f"cublas{letter}gemm_v2", self._function(gemm, *GEMM))
            setattr(self, f"cublas{letter}gemmStridedBatched", self._function(batched, *BATCHED))

    def _function(self, method, *arguments):
        def called(handle, *values):
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

        def function(*values):
            if len(values) != len(arguments):
                raise TypeError(f"{len(arguments)} arguments are needed, got {len(values)}")
            status = raw(*values)
            error, self._error = self._error, None
            if error is not None:
                raise error
            return status

        return function

    def _create(self, pointer):
        address = next(self._addresses)
        self._handles[address] = 0, None
        ctypes.cast(pointer, ctypes.POINTER(P))[0] = address
        return SUCCESS

    def _set_stream(self, handle, stream):
        self._handles[handle] = stream or 0, None  # back to cuBLAS's own work space
        return SUCCESS

    def _set_workspace(self, handle, pointer, size):
        memory_at(pointer, size, "cublasSetWorkspace")
        self._handles[handle] = self._handles[handle][0], (pointer, size)
        return INVALID_VALUE if pointer % 256 else SUCCESS

    def _gemm(self, dtype, *args):
        *before, a, lda, b, ldb, beta, c, ldc = args
        return self._batched(dtype, *before, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1)

    def _batched(
        self, dtype, handle, trans_a, trans_b, m, n, k, alpha, a, lda, to_a, b, ldb, to_b, beta, c,
        ldc, to_c, count,
    ):
        """C = alpha op(A) op(B) + beta C, by columns: op(A) is (m, k), op(B) (k, n), C (m, n)."""
        of_a, of_b = (k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)
        if min(m, n, k, count) < 0 or not {trans_a, trans_b} <= {0, 1} or not (alpha and beta) or (
            lda < max(1, of_a[0]) or ldb < max(1, of_b[0]) or ldc < max(1, m)
        ):
            return INVALID_VALUE
        if m == 0 or n == 0 or count == 0:
            return SUCCESS
        if count > 1 and to_c < ldc * (n - 1) + m:
            raise KernelError("gemm: one result shares memory with the next")
        scalar = ctypes.POINTER(ctypes.c_float if dtype == np.float32 else ctypes.c_double)
        # By value: in host pointer mode they are read when the call is made.
        factor, keep = (ctypes.cast(p, scalar)[0] for p in (alpha, beta))
        needs = []

        def view(name, address, shape, ld, step):
            """The matrices, as (count, rows, columns)."""
            strides = [size * dtype.itemsize for size in (step, 1, ld)]
            sizes = [(n - 1) * stride for n, stride in zip((count, *shape), strides, strict=True)]
            size = sum(sizes) + dtype.itemsize if min(shape) else 0
            memory = memory_at(address or 0, size, f"gemm: matrix {name}")
            start = (address or 0) - memory.ptr
            if start % dtype.itemsize or step < 0:
                raise KernelError(f"gemm: matrix {name} is not aligned, or has a negative stride")
            needs.append((memory, Use(address, address + size, name == "C")))
            flat = memory.bytes[start : start + size].view(dtype)
            return np.lib.stride_tricks.as_strided(flat, (count, *shape), strides)

        left, right = view("A", a, of_a, lda, to_a), view("B", b, of_b, ldb, to_b)
        out = view("C", c, (m, n), ldc, to_c)
        if any(np.shares_memory(out, other) for other in (left, right)):
            raise KernelError("gemm: the result shares memory with a factor")
        number, workspace = self._handles[handle]
        stream = state.created.get(number)
        if stream is None:
            raise KernelError("gemm: cuBLAS's stream has been destroyed")
        if workspace:
            begin, size = workspace
            memory = memory_at(begin, size, "cuBLAS's work space")
            needs.append((memory, Use(begin, begin + size, True)))
        elif stream.capture is not None:
            stream.error = "cuBLAS without a work space of its own"
            raise KernelError("gemm during capture needs cublasSetWorkspace, after cublasSetStream")
        left = left.swapaxes(1, 2) if trans_a else left
        right = right.swapaxes(1, 2) if trans_b else right

        def run(stream):
            value = factor * (left @ right)
            out[...] = value if keep == 0 else value + keep * out  # what is there may be NaN

        submit(Work(run, "gemm", needs), stream)
        return SUCCESS
