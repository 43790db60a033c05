"""Dense: a fully connected layer."""

from __future__ import annotations

import functools
import math

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.neuron import FUNCTIONS, Activation, Neuron
from layerkit.settings import Count, NotNegative, Tops


class Dense(Layer):
    """y = a(x W + b), the inner product layer of Caffe and Mocha.

    Shapes: bottom (n, ...), flattened to (n, inputs); top (n, units).

    Args:
        units: number of outputs.
        neuron: activation a, by name ("relu", "tanh", ...); None for a linear layer.
        weight: initialiser of W, by default "he" before a (leaky) ReLU and "xavier" otherwise.
        bias: initialiser of b, default 0.
        l1, l2: regularisation of W (not of b); see Parameter.

    Parameters: weight (inputs, units), bias (units,).
    """

    decided = (*Layer.decided, "units", "neuron", "weight_init", "bias_init", "l1", "l2")

    def __init__(
        self, name: str, bottom: str, *, units: Count, neuron: Activation | None = None,
        weight: Init | None = None, bias: Init = 0.0, l1: NotNegative = 0.0, l2: NotNegative = 0.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.units = units
        self.neuron = Neuron.named(neuron) if neuron else None
        rectifies = neuron in ("relu", "leaky_relu")
        self.weight_init = weight if weight is not None else "he" if rectifies else "xavier"
        self.bias_init = bias
        self.l1, self.l2 = l1, l2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declares W and b; the top has shape (units,)."""
        inputs = math.prod(shapes[0])
        self.w = self.parameter("weight", (inputs, self.units), self.weight_init, self.l1, self.l2)
        self.b = self.parameter("bias", (self.units,), self.bias_init)
        if self.neuron:
            self.before = self.buffer((self.units,))  # d loss / d (x W + b)
        if self.run.device is not None:
            slices = -(-self.run.batch_size // SLICE)
            shape = (slices if slices > 1 else 0, self.units)
            self.sums = self.backend.zeros(shape, self.run.dtype)
            spans = -(-self.units // SPAN) if self.run.batch_size <= FEW_CUDA else 1
            shape = (spans if spans > 1 else 0, self.run.batch_size * inputs)
            self.dx_sums = self.backend.zeros(shape, self.run.dtype)
        return [(self.units,)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = a(x W + b)."""
        x, y = bottoms[0].data, tops[0].data
        self.backend.gemm(x.reshape(len(x), -1), self.w.data, out=y)
        y += self.b.data
        if self.neuron:
            self.neuron.activate(self.xp, y, y)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """With d = dy * a': dW = x^T d, db = sum of d over the batch, dx = d W^T."""
        x, y, d = bottoms[0].data, tops[0].data, tops[0].diff
        if self.neuron:
            self.neuron.differentiate(self.xp, y, d, self.before.data)
            d = self.before.data
        if self.w.trainable:
            self.backend.gemm(x.reshape(len(x), -1).T, d, out=self.w.diff)
        if self.b.trainable:
            self.xp.sum(d, axis=0, out=self.b.diff)
        dx = bottoms[0].diff
        if dx is not None:
            self.backend.gemm(d, self.w.data.T, out=dx.reshape(len(x), -1))

    def multiplications(self) -> int:
        """As many as there are weights."""
        return self.w.size

    # With CUDA.

    def can_use_kernels(self) -> bool:
        """CUDA's need the activation's, and count elements with 32 bits."""
        known = self.neuron is None or self.neuron.functions() is not None
        return known and max(self.run.batch_size * self.units, self.w.size + self.units) < 2**32

    @property
    def _functions(self) -> str:
        """The activation; that of a linear layer is nothing."""
        functions = FUNCTIONS % ("x", "dy") if self.neuron is None else self.neuron.functions()
        assert functions is not None
        return functions

    @property
    def _source(self) -> str:
        return _with_functions(self._functions)

    def _few(self, kernel: str) -> str:
        """The source of a kernel for few examples."""
        return _for_few(self.run.batch_size, self._functions, kernel)

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The product by cuBLAS, bias and activation in one pass; all of it in one if small."""
        device, x, y = self.run.device, bottoms[0].data, tops[0].data
        assert device is not None
        inputs = self.w.size // self.units
        if self.run.batch_size <= FEW_CUDA and inputs <= NEAR:
            device.launch(
                self._few(FEW_FORWARD), "few_forward", -(-self.units // 32), len(x), inputs,
                self.units, x, self.w.data, self.b.data, y,
            )
            return
        self.backend.gemm(x.reshape(len(x), -1), self.w.data, out=y)
        blocks = device.blocks(y.size)
        device.launch(
            self._source, "bias_activation", blocks, y.size, self.units, self.b.data, y
        )

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The activation's derivative and the sums for db in one pass; the rest by cuBLAS.

        For few examples, all of it in one pass.
        """
        if self.run.batch_size <= FEW_CUDA:
            self._backward_few(bottoms, tops)
            return
        x = bottoms[0].data
        d = self._before_cuda(tops, self.b.trainable)
        if self.w.trainable:
            self.backend.gemm(x.reshape(len(x), -1).T, d, out=self.w.diff)
        self._dx_cuda(bottoms, d)

    def _backward_few(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        device, x, top, dx = self.run.device, bottoms[0].data, tops[0], bottoms[0].diff
        assert device is not None
        inputs, spans = self.w.size // self.units, max(len(self.dx_sums), 1)
        to = dx if dx is None or spans == 1 else self.dx_sums
        device.launch(
            self._few(FEW_BACKWARD), "few_backward", -(-(inputs + 1) // 8) * spans, len(x), inputs,
            self.units, x, top.data, top.diff, self.w.data,
            self.w.diff if self.w.trainable else None, self.b.diff if self.b.trainable else None,
            to,
        )
        if dx is not None and spans > 1:
            blocks = device.blocks(dx.size)
            device.launch(
                self._source, "sum_slices", blocks, spans, dx.size, self.dx_sums, dx
            )

    def _before_cuda(self, tops: list[Blob], sums: bool) -> Array:
        """d loss / d (x W + b); fills db if `sums` is true."""
        device, top = self.run.device, tops[0]
        assert device is not None
        d = self.before.data if self.neuron else None
        if sums or self.neuron:
            n = len(top.data)
            slices = -(-n // SLICE)
            to = None if not sums else self.b.diff if slices == 1 else self.sums
            device.launch(
                self._source, "columns", -(-self.units // 32) * slices, n, self.units, top.data,
                top.diff, d, to,
            )
            if sums and slices > 1:
                blocks = device.blocks(self.units)
                device.launch(
                    self._source, "sum_slices", blocks, slices, self.units, self.sums, self.b.diff
                )
        return top.diff if d is None else d

    def _dx_cuda(self, bottoms: list[Blob], d: Array) -> None:
        dx = bottoms[0].diff
        if dx is not None:
            self.backend.gemm(d, self.w.data.T, out=dx.reshape(len(dx), -1))


# CUDA.  Elements are counted with 32 bits, whose division is fast.

SLICE = 64  # rows of which a block adds up the gradients of the biases
FEW_CUDA = 16  # examples up to which one kernel for all is faster than several by cuBLAS
SPAN = 256  # units whose weights a block then reads
NEAR = 1024  # inputs up to which one block then adds up a unit


@functools.cache  # one object for each setting, whose hash is known
def _with_functions(functions: str) -> str:
    return functions + CUDA


@functools.cache
def _for_few(rows: int, functions: str, kernel: str) -> str:
    return f"#define ROWS {rows}u\n#define SPAN {SPAN}u\n{functions}{kernel}"



CUDA = f"#define SLICE {SLICE}u\n" + r"""
KERNEL bias_activation(i64 size, i64 units, const real* b, real* y)
{
    u32 i = (u32)place();
    if (i < (u32)size) y[i] = activate(y[i] + b[i % (u32)units]);
}

// d = dy * a'(y) unless d is 0, and sums over a slice of rows unless those are 0.  A block has 32
// columns and looks at 8 rows at a time.
KERNEL columns(i64 rows, i64 units, const real* y, const real* dy, real* d, real* sums)
{
    __shared__ real parts[8][32];
    u32 groups = ((u32)units + 31) / 32, slice = blockIdx.x / groups;
    u32 x = threadIdx.x % 32, part = threadIdx.x / 32, column = (blockIdx.x % groups) * 32 + x;
    u32 stop = (slice + 1) * SLICE < (u32)rows ? (slice + 1) * SLICE : (u32)rows;
    real sum = 0;
    if (column < (u32)units) {
        for (u32 row = slice * SLICE + part; row < stop; row += 8) {
            u32 i = row * (u32)units + column;
            real value = d ? differentiate(y[i], dy[i]) : dy[i];
            if (d) d[i] = value;
            sum += value;
        }
    }
    parts[part][x] = sum;
    __syncthreads();
    if (part == 0 && column < (u32)units && sums) {
        for (u32 other = 1; other < 8; ++other) sum += parts[other][x];
        sums[slice * (u32)units + column] = sum;
    }
}

KERNEL sum_slices(i64 slices, i64 units, const real* sums, real* db)
{
    i64 column = place();
    if (column >= units) return;
    real total = 0;
    for (i64 slice = 0; slice < slices; ++slice) total += sums[slice * units + column];
    db[column] = total;
}
"""

# For up to ROWS examples, where it is the number of kernels and the traffic of W that take time.
# 32 neighbouring units of W are read by 32 neighbouring threads.
FEW_FORWARD = r"""
KERNEL few_forward(
    i64 rows, i64 inputs, i64 units, const real* x, const real* w, const real* b, real* y)
{
    __shared__ real parts[8][32];
    u32 lane = threadIdx.x % 32, part = threadIdx.x / 32, unit = blockIdx.x * 32 + lane;
    real sums[ROWS] = {};
    if (unit < (u32)units) {
        for (u32 k = part; k < (u32)inputs; k += 8) {
            real weight = w[k * (u32)units + unit];
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row)
                if (row < (u32)rows) sums[row] += x[row * (u32)inputs + k] * weight;
        }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; ++row) {
        parts[part][lane] = sums[row];
        __syncthreads();
        if (part == 0 && unit < (u32)units && row < (u32)rows) {
            real sum = parts[0][lane];
            for (u32 other = 1; other < 8; ++other) sum += parts[other][lane];
            y[row * (u32)units + unit] = activate(sum + b[unit]);
        }
        __syncthreads();
    }
}
"""

# A row of W is read, and one of dW written, by 32 threads, SPAN units of it in a block; the bias is
# the row of one more input, which is 1.  The sums for dx go to `dx` itself where a block sees whole
# rows, else to a place for each block.
FEW_BACKWARD = r"""
KERNEL few_backward(
    i64 rows, i64 inputs, i64 units, const real* x, const real* y, const real* dy, const real* w,
    real* dw, real* db, real* dx)
{
    u32 spans = ((u32)units + SPAN - 1) / SPAN, span = blockIdx.x % spans;
    u32 lane = threadIdx.x % 32, input = blockIdx.x / spans * 8 + threadIdx.x / 32;
    u32 stop = (span + 1) * SPAN < (u32)units ? (span + 1) * SPAN : (u32)units;
    bool is_weight = input < (u32)inputs;
    real sums[ROWS] = {};
    if (input <= (u32)inputs) {
        for (u32 unit = span * SPAN + lane; unit < stop; unit += 32) {
            u32 i = input * (u32)units + unit;
            real g = 0, weight = is_weight ? w[i] : (real)0;
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row) {
                if (row < (u32)rows) {
                    u32 j = row * (u32)units + unit;
                    real d = differentiate(y[j], dy[j]);
                    g += is_weight ? x[row * (u32)inputs + input] * d : d;
                    sums[row] += d * weight;
                }
            }
            if (is_weight && dw) dw[i] = g;
            if (!is_weight && db) db[unit] = g;
        }
    }
    if (!dx) return;
#pragma unroll
    for (u32 row = 0; row < ROWS; ++row) {
        double sum = lanes_sum(sums[row], 32);
        if (lane == 0 && is_weight && row < (u32)rows)
            dx[(span * (u32)rows + row) * (u32)inputs + input] = (real)sum;
    }
}
"""
