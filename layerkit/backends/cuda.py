"""CUDA kernels: sources beside the layers' array code, compiled by CuPy when first launched.

A layer's array code is its specification; kernels do the same in fewer passes over memory.  Their
source is a string in the layer's file, below the array code:

    CUDA = cuda.source(r'''
    KERNEL double_it(i64 count, const real* x, real* y)
    {
        i64 i = place();
        if (i < count) y[i] = 2 * x[i];
    }
    ''')

and the layer launches it from `forward_cuda`:

    device.launch(CUDA, "double_it", device.blocks(y.size), y.size, x, y)

Sources are C++17 without headers.  `PRELUDE` stands before each of them and says what they can use.
Sums are taken in a fixed order, without atomic operations, so that two runs are equal to the last
bit.  Nothing here imports CuPy, so that layers can be imported without it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.errors import NetError

THREADS = 256  # of a block, unless a kernel says otherwise
HALTED, ROW, PASS, POSITION = range(4)  # places of the clock; positions of data layers come last

PRELUDE = f"""
typedef REAL real;  // float or double, the net's dtype
typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL extern "C" __global__ void
#define THREADS {THREADS}u
#define HALTED {HALTED}
#define ROW {ROW}
#define PASS {PASS}
#define POSITION {POSITION}
""" + r"""
// The element that belongs to a thread, where each has one.
__device__ inline i64 place()
{
    return (i64)blockIdx.x * blockDim.x + threadIdx.x;
}

// The sum over each group of `lanes` neighbouring threads, a power of two, in a fixed order.
// Every thread of the block must call it; all of a group get the sum.
__device__ inline double lanes_sum(double value, u32 lanes)
{
    __shared__ double sums[THREADS];
    u32 lane = threadIdx.x % lanes;
    sums[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        if (lane < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    double total = sums[threadIdx.x - lane];
    __syncthreads();
    return total;
}
"""

NULL = np.uint64(0)  # the address of an array that is not there
SOURCES: list[str] = []


def literal(value: float) -> str:
    """A number as it stands in a source; NumPy's own `repr` is no C++."""
    number = float(value)
    if not math.isfinite(number):
        raise NetError(f"a kernel's setting must be a finite number, got {value}")
    return f"(real){number!r}"


def source(code: str) -> str:
    """Registers a source, so that tests find and compile it, and returns it."""
    SOURCES.append(code)
    return code


@functools.cache
def _function(xp: Any, code: str, name: str, dtype: np.dtype) -> Any:
    return _module(xp, code, dtype).get_function(name)


@functools.cache
def _module(xp: Any, code: str, dtype: np.dtype) -> Any:
    return xp.RawModule(code=PRELUDE + code, options=options(dtype))


def options(dtype: np.dtype) -> tuple[str, ...]:
    """The compiler's options for nets of this dtype."""
    return "-std=c++17", f"-DREAL={'float' if dtype == np.float32 else 'double'}"


class Device:
    """What the layers of a net on a GPU share.

    Attributes:
        xp: cupy.
        dtype: of the net.
        clock: int64 in the device's memory: whether training has come to a halt (because a loss was
            not finite), the row of the solver's table that holds the constants of this step, the
            number of the pass, and for each data layer how many examples it had served before it.
            Kernels read there what changes from step to step, so a recorded step can be replayed.
    """

    def __init__(self, xp: Any, dtype: np.dtype, sources: int):
        self.xp = xp
        self.dtype = dtype
        self.clock = xp.zeros(POSITION + sources, "int64")
        self._now: tuple[int, ...] = ()

    def set_clock(self, passes: int, positions: Sequence[int], row: int = 0) -> None:
        """Writes the number of a pass and where data layers begin to read, if it is news."""
        now = (0, row, passes, *positions)
        if now != self._now:
            self.clock.set(np.array(now, "int64"))
            self._now = now

    def forget_clock(self) -> None:
        """Called where the device has changed the clock by itself."""
        self._now = ()

    @staticmethod
    def blocks(count: int) -> int:
        """How many blocks have a thread for each of `count` elements."""
        return -(-count // THREADS)

    def launch(self, code: str, name: str, blocks: int, *args: Any) -> None:
        """Runs a kernel on so many blocks of THREADS threads, on the current stream.

        Args:
            args: arrays are passed by address, None as an address of 0, whole numbers with a sign
                as `i64`, Python floats as `real`, NumPy's other numbers as they are.
        """
        if blocks:
            function = _function(self.xp, code, name, self.dtype)
            function((blocks,), (THREADS,), tuple(map(self._argument, args)))

    def _argument(self, value: Any) -> Any:
        if value is None:
            return NULL
        if isinstance(value, bool | int | np.signedinteger):
            return np.int64(value)
        return self.dtype.type(value) if type(value) is float else value
