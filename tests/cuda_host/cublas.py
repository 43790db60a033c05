"""libcublas on the host: what layerkit calls of it, computed by NumPy.

Nothing says to ctypes what the functions of a library that has just been loaded take: a Python int
would be passed as a C int, and a pointer lose its upper half.  So arguments must be of its types.
"""

import ctypes
import functools
import itertools
import re

import numpy as np

from cuda_host.device import KernelError, Use, Work, memory_at, state, submit

SUCCESS, NOT_INITIALIZED, INVALID_VALUE = 0, 1, 7
C = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_longlong,
    "z": ctypes.c_size_t,
    "h": ctypes.c_void_p,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


class Library:
    """Stands for the ctypes.CDLL of libcublas."""

    def __init__(self):
        self._handles = {}  # a handle's stream and work space, by its address
        self._addresses = itertools.count(0x7000_0000_1000, 0x100)
        self.cublasCreate_v2 = self._function("&h", self._create)
        self.cublasDestroy_v2 = self._function("p", lambda handle: self._handles.pop(handle) and 0)
        self.cublasSetMathMode = self._function(
            "pi", lambda handle, mode: SUCCESS if mode in (0, 3) else INVALID_VALUE
        )
        self.cublasSetStream_v2 = self._function("pp", self._set_stream)
        self.cublasSetWorkspace_v2 = self._function("ppz", self._set_workspace)
        for c in "fd":
            name = f"cublas{'S' if c == 'f' else 'D'}gemm"
            gemm, batched = (
                functools.partial(method, np.dtype(c)) for method in (self._gemm, self._batched)
            )
            setattr(self, f"{name}_v2", self._function(f"piiiii&{c}pipi&{c}pi", gemm))
            batched = self._function(f"piiiii&{c}pipi&{c}pii", batched)
            setattr(self, f"{name}Batched", batched)

    def _function(self, signature, method):
        """Make a function of C; letters of `C` are its arguments, behind & those by reference."""
        kinds = re.findall("&?.", signature)

        def function(*values):
            if len(values) != len(kinds):
                raise TypeError(f"{len(kinds)} arguments are needed, got {len(values)}")
            plain = []
            for value, kind in zip(values, kinds, strict=True):
                value = getattr(value, "_obj", None) if kind[0] == "&" else value
                if not isinstance(value, C[kind[-1]]):
                    raise TypeError(f"{values} do not have the types of ctypes that are needed")
                plain.append(value if kind == "&h" else value.value)
            if kinds[0] == "p" and plain[0] not in self._handles:
                return NOT_INITIALIZED
            return method(*plain)

        return function

    def _create(self, pointer):
        pointer.value = next(self._addresses)
        self._handles[pointer.value] = 0, None
        return SUCCESS

    def _set_stream(self, handle, stream):
        self._handles[handle] = stream or 0, None  # back to cuBLAS's own work space
        return SUCCESS

    def _set_workspace(self, handle, pointer, size):
        memory_at(pointer, size, "cublasSetWorkspace")
        self._handles[handle] = self._handles[handle][0], (pointer, size)
        return INVALID_VALUE if pointer % 256 else SUCCESS

    def _gemm(self, dtype, handle, *args):
        status, run, needs, stream = self._product(dtype, handle, *args)
        if run:
            submit(Work(run, "gemm", needs), stream)
        return status

    def _batched(self, dtype, handle, *args):
        """Make as many products as there are addresses in arrays on the device."""
        *before, a, lda, b, ldb, beta, c, ldc, count = args
        lists = []
        for pointer in (a, b, c):
            memory = memory_at(pointer, 8 * count, "gemmBatched: addresses")
            start = pointer - memory.ptr
            addresses = memory.bytes[start : start + 8 * count].view(np.uint64).tolist()
            lists.append((addresses, (memory, Use(pointer, pointer + 8 * count, False))))
        products, stream = [], None
        for a, b, c in zip(*(addresses for addresses, _ in lists), strict=True):
            status, run, needs, stream = self._product(
                dtype, handle, *before, a, lda, b, ldb, beta, c, ldc
            )
            if status:
                return status
            products.append((run, needs))
        written = sorted((u.begin, u.end) for _, needs in products for _, u in needs if u.write)
        if any(end > begin for (_, end), (begin, _) in itertools.pairwise(written)):
            raise KernelError("gemm: one result shares memory with another")

        def run_all(stream):
            for run, _ in products:
                run(stream)

        needs = [need for _, needs in products for need in needs] + [need for _, need in lists]
        submit(Work(run_all, "gemm", needs), stream)
        return SUCCESS

    def _product(
        self, dtype, handle, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc
    ):
        """Compute C = alpha op(A) op(B) + beta C, by columns: op(A) is (m, k), C (m, n)."""
        of_a, of_b = (k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)
        if (
            min(m, n, k) < 0
            or not {trans_a, trans_b} <= {0, 1}
            or (lda < max(1, of_a[0]) or ldb < max(1, of_b[0]) or ldc < max(1, m))
        ):
            return INVALID_VALUE, None, [], None
        if m == 0 or n == 0:
            return SUCCESS, None, [], None
        needs = []

        def view(name, address, shape, ld):
            """Return a matrix, as (rows, columns)."""
            strides = dtype.itemsize, ld * dtype.itemsize
            sizes = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
            size = sum(sizes) + dtype.itemsize if min(shape) else 0
            memory = memory_at(address or 0, size, f"gemm: matrix {name}")
            start = (address or 0) - memory.ptr
            if start % dtype.itemsize:
                raise KernelError(f"gemm: matrix {name} is not aligned")
            needs.append((memory, Use(address, address + size, name == "C")))
            flat = memory.bytes[start : start + size].view(dtype)
            return np.lib.stride_tricks.as_strided(flat, shape, strides)

        left, right = view("A", a, of_a, lda), view("B", b, of_b, ldb)
        out = view("C", c, (m, n), ldc)
        if any(np.shares_memory(out, other) for other in (left, right)):
            raise KernelError("gemm: the result shares memory with a factor")
        number, workspace = self._handles[handle]
        stream = state.created.get(number)
        if stream is None:
            raise KernelError("gemm: cuBLAS's stream has been destroyed")
        if workspace:
            begin, size = workspace
            memory = memory_at(begin, size, "cuBLAS's work space")
            needs.append((memory, Use(begin, begin + size, False)))  # each product, by itself
        elif stream.capture is not None:
            stream.error = "cuBLAS without a work space of its own"
            raise KernelError("gemm during capture needs cublasSetWorkspace, after cublasSetStream")
        left, right = left.T if trans_a else left, right.T if trans_b else right

        def run(stream):
            value = alpha * (left @ right)
            out[...] = value if beta == 0 else value + beta * out  # what is there may be NaN

        return SUCCESS, run, needs, stream
