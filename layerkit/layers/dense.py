"""Dense: a fully connected layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.backends.kernels import call_update, gemm, kernel, parallel_for
from layerkit.backends.magnitude import Magnitude
from layerkit.blob import Blob
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.leaky_relu import LeakyReLU
from layerkit.layers.neuron import FUNCTIONS, Activation, Neuron
from layerkit.layers.relu import ReLU
from layerkit.settings import Count, NotNegative, Tops

PIECES = 8  # into which kernels cut a long sum; the same whatever the number of threads
LONG = 512  # inputs or units that are worth cutting up
ROWS, COLUMNS = 128, 304  # of a wide layer's top that are computed at a time
BLOCK = 1 << 17  # elements of a weight's gradient, or of the gradient of the top, likewise
HIGHEST, WIDEST = 160, 1216  # rows and columns of such a block
FEW = 32  # examples, with which memory takes longer than the products, so that rows should be whole
LARGE = 1 << 16  # weights of which it is worth while to keep the gradient out of memory
VERY_FEW = 3  # examples, with which a wide layer's forward pass is cut by inputs
FEW_BLOCK = 20_000  # elements of a block then: four rows of an image's length


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
        if self.run.team is not None:
            self._make_work_space(inputs)
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

    # With kernels.

    def can_use_kernels(self) -> bool:
        """CUDA's need the activation's, and count elements with 32 bits."""
        if self.run.device is None:
            return True
        known = self.neuron is None or self.neuron.functions() is not None
        return known and max(self.run.batch_size * self.units, self.w.size + self.units) < 2**32

    def _make_work_space(self, inputs: int) -> None:
        """Room for the partial sums and blocks of gradient that pieces of work need."""
        rows, dtype = self.run.batch_size, self.run.dtype
        # With next to no examples W is read in the order of memory.
        sums = inputs >= LONG > self.units or (rows <= VERY_FEW and self.units >= LONG)
        self.y_partial = np.zeros((PIECES if sums else 0, rows, self.units), dtype)
        across = -(-self.units // _grid(rows, inputs, self.units)[1])  # fewer for fewer examples
        self.x_partial = np.zeros((across if across > 1 else 0, rows, inputs), dtype)
        self.block = np.zeros((PIECES, min(BLOCK, max(self.w.size, WIDEST))), dtype)
        self.nothing = np.zeros((0, 0), dtype)
        self.nothing_flat = np.zeros(0, dtype)
        self.no_constants = np.zeros(8)
        self.magnitude = Magnitude(self.run.team)

    @property
    def slope(self) -> float:
        """Of what is not positive: an activation of two straight lines is part of the kernel."""
        if isinstance(self.neuron, ReLU):
            return 0.0
        return float(self.neuron.slope) if isinstance(self.neuron, LeakyReLU) else 1.0

    @property
    def apart(self) -> Neuron | None:
        """The activation where it follows the kernel."""
        return self.neuron if self.slope == 1 else None

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = a(x W + b), bias and activation added to a piece of y while it is in cache."""
        assert self.run.team is not None
        x, y = bottoms[0].data, tops[0].data
        dense_forward(
            self.run.team.board, x.reshape(len(x), -1), self.w.data, self.b.data, self.slope, y,
            self.y_partial,
        )
        if self.apart:
            self.apart.activate(self.xp, y, y)

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """All gradients, piece by piece."""
        if self.apart:
            self.apart.differentiate(self.xp, tops[0].data, tops[0].diff, self.before.data)
        self._backward(
            bottoms, tops, bottoms[0].diff, self.w.diff if self.w.trainable else self.nothing,
            self.b.diff if self.b.trainable else self.nothing_flat, 0, self.no_constants,
            [self.nothing] * 2, [self.nothing_flat] * 2,
        )

    def backward_bottoms_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """dx alone."""
        if self.apart:
            self.apart.differentiate(self.xp, tops[0].data, tops[0].diff, self.before.data)
        if bottoms[0].diff is not None:
            self._backward(
                bottoms, tops, bottoms[0].diff, self.nothing, self.nothing_flat, 0,
                self.no_constants, [self.nothing] * 2, [self.nothing_flat] * 2,
            )

    def gradient_bound_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> float:
        """An element of dW is a sum over n examples of x d, one of db the sum of d."""
        x, d = bottoms[0].data, self.before.data if self.apart else tops[0].diff
        largest_x, largest_d = self.magnitude(x), max(1.0, self.slope) * self.magnitude(d)
        # Products in float64 of numbers in the net's dtype; 1 % makes up for rounding of sums.
        return 1.01 * len(x) * max(1.0, largest_x) * largest_d if largest_x < math.inf else math.inf

    def backward_update_kernel(
        self, bottoms: list[Blob], tops: list[Blob], update: Any
    ) -> None:
        """W and b changed block by block; db is filled, dW is not."""
        self._backward(
            bottoms, tops, None, self.nothing, self.b.diff, update.address, update.constants,
            update.histories[self.w.name], update.histories[self.b.name],
        )

    def _backward(
        self, bottoms: list[Blob], tops: list[Blob], dx: Array, dw: Array, db: Array, address: int,
        constants: Array, of_w: Sequence[Array], of_b: Sequence[Array],
    ) -> None:
        assert self.run.team is not None
        x, y, d = bottoms[0].data, tops[0].data, tops[0].diff
        before = self.before.data if self.neuron else d
        if self.apart:
            d = before
        dense_backward(
            self.run.team.board, x.reshape(len(x), -1), y, d, self.slope, before, self.w.data,
            self.b.data, dw, db, self.nothing if dx is None else dx.reshape(len(x), -1),
            dx is not None, self.x_partial, self.block, address, *of_w, *of_b, constants,
        )

    # With CUDA.

    def use_kernels(self) -> None:
        """Only large weights are changed without filling their diffs."""
        super().use_kernels()
        if self.run.device is None and self.w.size < LARGE:
            self.backward_update = None

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


# Kernels.

@kernel
def _forward_columns(i, team, x, w, b, slope, y, width):
    start, stop = i * width, min((i + 1) * width, w.shape[1])
    for left in range(start, stop, COLUMNS):
        right = min(left + COLUMNS, stop)
        for first in range(0, len(x), ROWS):  # so that _activate finds in cache what gemm wrote
            last = min(first + ROWS, len(x))
            gemm(team, x[first:last], w[:, left:right], y[first:last, left:right], False)
            for row in range(first, last):
                _activate(y[row, left:right], b[left:right], slope)


@kernel
def _forward_rows(i, team, x, w, b, slope, y, width):
    start, stop = i * width, min((i + 1) * width, len(x))
    gemm(team, x[start:stop], w, y[start:stop], False)
    for row in range(start, stop):
        _activate(y[row], b, slope)


@kernel
def _forward_inputs(i, team, x, w, partial, width):
    start, stop = i * width, min((i + 1) * width, len(w))
    gemm(team, x[:, start:stop], w[start:stop], partial[i, : len(x)], False)


@kernel
def _forward_sum(i, partial, b, slope, y, width):
    for row in range(i * width, min((i + 1) * width, len(y))):
        for j in range(y.shape[1]):
            y[row, j] = partial[0, row, j]
        for piece in range(1, len(partial)):
            for j in range(y.shape[1]):
                y[row, j] += partial[piece, row, j]
        _activate(y[row], b, slope)


@kernel
def _activate(y, b, slope):
    """y = a(y + b), where a multiplies what is not positive by `slope`; NaN stays NaN."""
    slope = y.dtype.type(slope)
    for j in range(y.size):
        value = y[j] + b[j]
        y[j] = slope * value if value <= 0 else value


@kernel
def dense_forward(team, x, w, b, slope, y, partial):
    """Cut by inputs where there is room for partial sums, else by units or by examples."""
    inputs, units = w.shape
    if len(partial) > 0:
        width = _width(inputs)
        count = -(-inputs // width)
        parallel_for(team, _forward_inputs, count, (team, x, w, partial, width))
        parallel_for(team, _forward_sum, -(-len(x) // 32), (partial[:count], b, slope, y, 32))
    elif units >= LONG:
        width = _width(units)
        count = -(-units // width)
        parallel_for(team, _forward_columns, count, (team, x, w, b, slope, y, width))
    else:
        parallel_for(team, _forward_rows, -(-len(x) // 64), (team, x, w, b, slope, y, 64))


@kernel
def _width(length):
    """Of each of PIECES pieces, a multiple of a cache line."""
    return _multiple(-(-length // PIECES))


@kernel
def _multiple(length):
    """The length in whole cache lines."""
    return -(-length // 16) * 16


@kernel
def _slope_rows(i, y, dy, slope, d, width):
    slope = y.dtype.type(slope)
    for row in range(i * width, min((i + 1) * width, len(y))):
        for j in range(y.shape[1]):
            d[row, j] = dy[row, j] if y[row, j] > 0 else slope * dy[row, j]


@kernel(fastmath={"reassoc"})
def _sum_rows(d, left, right, total):
    """The sums of these columns; four rows at a time, for the sake of memory."""
    whole = len(d) // 4 * 4
    total[:] = 0
    for row in range(0, whole, 4):
        d0, d1 = d[row, left:right], d[row + 1, left:right]
        d2, d3 = d[row + 2, left:right], d[row + 3, left:right]
        for j in range(total.size):
            total[j] += (d0[j] + d1[j]) + (d2[j] + d3[j])
    for row in range(whole, len(d)):
        more = d[row, left:right]
        for j in range(total.size):
            total[j] += more[j]


@kernel
def _backward_piece(
    i, team, x, d, w, b, dw, db, dx, wants_dx, height, width, partial, scratch, update, w_first,
    w_second, b_first, b_second, constants,
):
    """The gradients of piece i of W, a block that stays in cache at a time."""
    inputs, units = w.shape
    across = -(-units // width)
    first, left = i // across * height, i % across * width
    last, right = min(first + height, inputs), min(left + width, units)
    target = dx[:, first:last] if across == 1 else partial[i % across, : len(x), first:last]
    few = len(x) <= FEW
    columns = min(right - left, FEW_BLOCK if few else WIDEST)
    # Products of many examples have tiles of four rows.
    rows = max(FEW_BLOCK // columns, 1) if few else min(max(BLOCK // columns // 4 * 4, 4), HIGHEST)
    for c in range(left, right, columns):
        c_end = min(c + columns, right)
        if update == 0 and dw.size > 0:
            gemm(team, x[:, first:last].T, d[:, c:c_end], dw[first:last, c:c_end], False)
        if wants_dx and not few:
            gemm(team, d[:, c:c_end], w[first:last, c:c_end].T, target, c > left)
        for r in range(first, last, rows):
            r_end = min(r + rows, last)
            if wants_dx and few:
                part = target[:, r - first : r_end - first]
                gemm(team, d[:, c:c_end], w[r:r_end, c:c_end].T, part, c > left)
            if update != 0:
                g = scratch[i, : (r_end - r) * (c_end - c)].reshape(r_end - r, c_end - c)
                gemm(team, x[:, r:r_end].T, d[:, c:c_end], g, False)
                if c_end - c == units:
                    call_update(
                        update, w[r:r_end].reshape(-1), g.reshape(-1),
                        w_first[r:r_end].reshape(-1), w_second[r:r_end].reshape(-1), constants,
                    )
                else:
                    for k in range(r_end - r):
                        call_update(
                            update, w[r + k, c:c_end], g[k], w_first[r + k, c:c_end],
                            w_second[r + k, c:c_end], constants,
                        )
        if db.size > 0 and last == inputs:
            g_bias = db[c:c_end]
            _sum_rows(d, c, c_end, g_bias)
            if update != 0:
                call_update(
                    update, b[c:c_end], g_bias, b_first[c:c_end], b_second[c:c_end], constants
                )


@kernel
def _grid(examples, inputs, units):
    """Height and width of the pieces into which a backward pass cuts W (inputs, units).

    Rows lie in memory end to end, and are updated twice as fast as columns cut out of them, so
    pieces are wide; matrix products of many examples are faster where they are high.
    """
    height = max(_width(inputs), min(max(examples // 2, 16), 128 if units >= LONG else 64))
    across = max(PIECES // -(-inputs // height), 1)
    return height, max(_multiple(-(-units // across)), LONG)


@kernel
def _dx_sum(i, partial, dx, width):
    for row in range(i * width, min((i + 1) * width, len(dx))):
        for j in range(dx.shape[1]):
            dx[row, j] = partial[0, row, j]
        for piece in range(1, len(partial)):
            for j in range(dx.shape[1]):
                dx[row, j] += partial[piece, row, j]


@kernel
def dense_backward(
    team, x, y, dy, slope, before, w, b, dw, db, dx, wants_dx, partial, scratch, update, w_first,
    w_second, b_first, b_second, constants,
):
    """All gradients, W's in pieces.

    Without an update (an address, or 0) fills dw and db where they are not empty; with one changes
    w and b instead, and db is work space.
    """
    inputs, units = w.shape
    d = dy
    if slope != 1:
        d = before
        parallel_for(team, _slope_rows, -(-len(y) // 64), (y, dy, slope, before, 64))
    height, width = _grid(len(x), inputs, units)
    across = -(-units // width)
    parallel_for(team, _backward_piece, -(-inputs // height) * across, (
        team, x, d, w, b, dw, db, dx, wants_dx, height, width, partial, scratch, update, w_first,
        w_second, b_first, b_second, constants,
    ))
    if across > 1 and wants_dx:
        parallel_for(team, _dx_sum, -(-len(dx) // 32), (partial[:across], dx, 32))


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
