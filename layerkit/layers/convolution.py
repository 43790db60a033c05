"""Convolution, and Deconvolution, its transpose: layers of pictures, (n, channels, height, width).

Both cut a picture into windows: one of kernel x kernel pixels, of all channels, for each place of a
grid.  Written as the rows of a matrix the windows turn a convolution into a matrix product
(im2col), and adding windows to where they were cut from (col2im) is the transpose of cutting
(Chellapilla, Puri and Simard, 2006; Jia, 2014).  One layer's backward pass is made of the other's
forward pass, so both are in this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.backends.kernels import gemm, kernel, parallel_for
from layerkit.blob import Blob
from layerkit.initializers import He, Init, Xavier
from layerkit.layer import Layer, Shape
from layerkit.layers.leaky_relu import LeakyReLU
from layerkit.layers.neuron import Activation, Neuron
from layerkit.layers.relu import ReLU
from layerkit.settings import Count, NotNegative, Sizes, Tops, Whole

PIECES = 8  # into which kernels cut a batch; the same whatever the number of threads

Pad = Annotated[int, Whole(least=0)]


class Windowed(Layer):
    """What Convolution and Deconvolution have in common: settings, windows, activation."""

    transposed: ClassVar[bool] = False

    def __init__(
        self, name: str, bottom: str, channels: Count, kernel: Count, stride: Count, pad: Pad,
        neuron: Activation | None, weight: Init | None, bias: Init, l1: NotNegative,
        l2: NotNegative, tops: Tops | None,
    ):
        super().__init__(name, [bottom], tops)
        self.channels, self.kernel, self.stride, self.pad = channels, kernel, stride, pad
        self.neuron = Neuron.named(neuron) if neuron else None
        # Where windows overlap each number of a Deconvolution's top is a sum over that many fewer
        # of its weights.
        gain = float(stride) if self.transposed else 1.0
        rectifies = neuron in ("relu", "leaky_relu")
        default = He(gain) if rectifies else Xavier(gain)
        self.weight_init = default if weight is None else weight
        self.bias_init = bias
        self.l1, self.l2 = l1, l2

    def _check_bottom(self, shape: Shape) -> tuple[int, int, int]:
        if len(shape) != 3:
            pictures = (1, *shape) if len(shape) == 2 else ("channels", "height", "width")
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold pictures (channels, height, width), got "
                f"shape {shape}; put a Reshape layer with shape=({', '.join(map(str, pictures))}) "
                "in between"
            )
        return shape

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """How many windows a picture of this size has, down and across."""
        down, across = (
            (size + 2 * self.pad - self.kernel) // self.stride + 1 for size in (height, width)
        )
        return down, across

    def _set_up(
        self, picture: Shape, grid: tuple[int, int], small: int, weight: Shape, top: Shape
    ) -> None:
        """Declares parameters and work space.

        Args:
            picture: (channels, height, width) of what is cut into windows.
            grid: how many windows there are, down and across.
            small: channels of the blob that has one place for each window.
            weight: shape of W.
            top: shape of the top.
        """
        self.grid = grid
        self.w = self.parameter("weight", weight, self.weight_init, self.l1, self.l2)
        self.b = self.parameter("bias", (self.channels,), self.bias_init)
        self.places, self.window = grid[0] * grid[1], self.kernel**2 * picture[0]
        border = 2 * self.pad
        # Array code uses these; NumPy gives memory that is never touched no place in RAM.
        self.padded = self.buffer((picture[0], picture[1] + border, picture[2] + border))
        self.columns = self.buffer((self.places, self.window))
        self.rows = self.buffer((self.places, small))
        if self.neuron:
            self.before = self.buffer(top)  # d loss / d what is activated
        if self.run.team is not None:
            self._make_work_space(top)

    def multiplications(self) -> int:
        """As many as there are weights, at each place of the grid."""
        return self.w.size * self.places

    # Windows, in array code.

    def _cut(self, picture: Array) -> Array:
        """im2col: the windows of pictures (n, c, h, w), as rows (n * places, window)."""
        n, pad, step = len(picture), self.pad, self.stride
        height, width = picture.shape[2:]
        padded, columns = self.padded.data, self.columns.data
        padded.fill(0)
        padded[:, :, pad : pad + height, pad : pad + width] = picture
        windows = self.xp.lib.stride_tricks.sliding_window_view(
            padded, (self.kernel, self.kernel), axis=(2, 3)
        )[:, :, ::step, ::step]
        shape = (n, *self.grid, self.kernel, self.kernel, picture.shape[1])
        columns.reshape(shape)[...] = windows.transpose(0, 2, 3, 4, 5, 1)
        return columns.reshape(n * self.places, self.window)

    def _add_up(self, picture: Array) -> None:
        """col2im: sets pictures to the sums of the windows in `self.columns`."""
        n, pad, step = len(picture), self.pad, self.stride
        height, width = picture.shape[2:]
        padded = self.padded.data
        shape = (n, *self.grid, self.kernel, self.kernel, picture.shape[1])
        windows = self.columns.data.reshape(shape).transpose(3, 4, 0, 5, 1, 2)
        down, across = ((count - 1) * step + 1 for count in self.grid)
        padded.fill(0)
        for i in range(self.kernel):
            for j in range(self.kernel):
                padded[:, :, i : i + down : step, j : j + across : step] += windows[i, j]
        picture[...] = padded[:, :, pad : pad + height, pad : pad + width]

    def _places_first(self, small: Array) -> Array:
        """(n, channels, down, across) as rows (n * places, channels)."""
        n, channels = small.shape[:2]
        self.rows.data.reshape(n, *self.grid, channels)[...] = small.transpose(0, 2, 3, 1)
        return self.rows.data.reshape(n * self.places, channels)

    def _channels_first(self, small: Array) -> None:
        """Fills (n, channels, down, across) with the rows in `self.rows`."""
        n, channels = small.shape[:2]
        small[...] = self.rows.data.reshape(n, *self.grid, channels).transpose(0, 3, 1, 2)

    def _flat(self, buffer: Blob) -> Array:
        """A buffer (n, places, ...) as a matrix (n * places, ...)."""
        return buffer.data.reshape(-1, buffer.shape[1])

    def _activate(self, y: Array) -> None:
        """y = a(y + b)."""
        y += self.b.data[:, None, None]
        if self.neuron:
            self.neuron.activate(self.xp, y, y)

    def _through_activation(self, y: Array, dy: Array) -> Array:
        """d loss / d what was activated, whose sum is db."""
        if self.neuron:
            self.neuron.differentiate(self.xp, y, dy, self.before.data)
            dy = self.before.data
        if self.b.trainable:
            self.xp.sum(dy, axis=(0, 2, 3), out=self.b.diff)
        return dy

    # With kernels.

    def _make_work_space(self, top: Shape) -> None:
        """Room for the windows and the sums of each piece of work."""
        dtype, pieces = self.run.dtype, min(PIECES, self.run.batch_size)
        self.scratch = np.zeros((pieces, self.places, self.window), dtype)
        self.bordered = np.zeros((pieces, math.prod(self.padded.shape)), dtype)
        self.w_partial = np.zeros((pieces, *self._matrix(self.w.shape)), dtype)
        self.b_partial = np.zeros((pieces, self.channels, 1), dtype)
        self.ones = np.ones((top[1] * top[2], 1), dtype)  # a product with these is a sum
        self.nothing = np.zeros((0, 0), dtype)
        self.nothing_flat = np.zeros(0, dtype)

    @property
    def slope(self) -> float:
        """Of what is not positive: an activation of two straight lines is part of the kernels."""
        if isinstance(self.neuron, ReLU):
            return 0.0
        return float(self.neuron.slope) if isinstance(self.neuron, LeakyReLU) else 1.0

    @property
    def apart(self) -> Neuron | None:
        """The activation where it follows the kernels."""
        return self.neuron if self.slope == 1 else None

    def _matrix(self, shape: Shape) -> Shape:
        """The shape of W, or of its diff, as the matrix that multiplies windows."""
        raise NotImplementedError

    def _run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        assert self.run.team is not None
        x, y = bottoms[0].data, tops[0].data
        windowed_forward(
            self.run.team.board, x, self.w.data.reshape(self._matrix(self.w.shape)), self.b.data,
            self.slope, y, self.scratch, self.bordered, self._geometry(), self.transposed,
        )
        if self.apart:
            self.apart.activate(self.xp, y, y)

    def _run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        assert self.run.team is not None
        x, y, d, dx = bottoms[0].data, tops[0].data, tops[0].diff, bottoms[0].diff
        before = self.before.data if self.neuron else d
        if self.apart:
            self.apart.differentiate(self.xp, y, d, before)
            d = before
        matrix = self._matrix(self.w.shape)
        windowed_backward(
            self.run.team.board, x, y, d, self.slope, before, self.w.data.reshape(matrix),
            self.w.diff.reshape(matrix) if self.w.trainable else self.nothing,
            self.b.diff if self.b.trainable else self.nothing_flat,
            x[:0] if dx is None else dx, self.scratch, self.bordered, self.w_partial,
            self.b_partial, self.ones, self._geometry(), self.transposed,
        )

    def _geometry(self) -> tuple[int, ...]:
        return (self.kernel, self.stride, self.pad, *self.grid)


class Convolution(Windowed):
    """y = a(x * W + b): each channel of y is a sum of products over windows of all channels of x.

    y[o, i, j] = a(b[o] + sum over u, v, c of W[u, v, c, o] x[c, i s + u - p, j s + v - p])

    with stride s and pad p, where x is zero outside the picture: like Caffe's and Mocha's, a
    correlation (W is not turned round).

    Shapes: bottom (n, c, h, w); top (n, channels, (h + 2 p - kernel) // s + 1, the same of w).

    Args:
        channels: of the top.
        kernel: height and width of a window, in pixels.
        stride: how far apart windows are, default 1.
        pad: rows and columns of zeros on each side of the picture, default 0.
        neuron: activation a, by name ("relu", "tanh", ...); None for a linear layer.
        weight: initialiser of W, by default "he" before a (leaky) ReLU and "xavier" otherwise.
        bias: initialiser of b, default 0.
        l1, l2: regularisation of W (not of b); see Parameter.

    Parameters: weight (kernel, kernel, c, channels), bias (channels,).
    """

    def __init__(
        self, name: str, bottom: str, *, channels: Count, kernel: Count, stride: Count = 1,
        pad: Pad = 0, neuron: Activation | None = None, weight: Init | None = None,
        bias: Init = 0.0, l1: NotNegative = 0.0, l2: NotNegative = 0.0, tops: Tops | None = None,
    ):
        super().__init__(
            name, bottom, channels, kernel, stride, pad, neuron, weight, bias, l1, l2, tops
        )

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declares W and b; works out the top's size."""
        inputs, height, width = self._check_bottom(shapes[0])
        grid = self._grid(height, width)
        if min(height, width) + 2 * self.pad < self.kernel:
            self.fail(
                f"a kernel of {self.kernel} x {self.kernel} is larger than the picture, "
                f"{height} x {width} with pad {self.pad}"
            )
        top = (self.channels, *grid)
        weight = (self.kernel, self.kernel, inputs, self.channels)
        self._set_up(shapes[0], grid, self.channels, weight, top)
        return [top]

    def _matrix(self, shape: Shape) -> Shape:
        return self.window, shape[-1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Windows times W."""
        w = self.w.data.reshape(self.window, -1)
        self.backend.gemm(self._cut(bottoms[0].data), w, out=self._flat(self.rows))
        self._channels_first(tops[0].data)
        self._activate(tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """With d = dy * a': dW = windows^T d, the windows of dx = d W^T."""
        d = self._places_first(self._through_activation(tops[0].data, tops[0].diff))
        if self.w.trainable:
            windows = self._cut(bottoms[0].data)
            self.backend.gemm(windows.T, d, out=self.w.diff.reshape(self.window, -1))
        if bottoms[0].diff is not None:
            w = self.w.data.reshape(self.window, -1)
            self.backend.gemm(d, w.T, out=self._flat(self.columns))
            self._add_up(bottoms[0].diff)

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The same, example by example."""
        self._run_forward(bottoms, tops)

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """All gradients, example by example."""
        self._run_backward(bottoms, tops)


class Deconvolution(Windowed):
    """y = a(x *^T W + b), the transpose of Convolution: each number of x paints a window of y.

    y is a(b + what Convolution's backward pass makes of x), for a Convolution that takes pictures
    of y's size to pictures of x's size with the same kernel, stride and pad:

    y[o, k, l] = a(b[o] + sum over i, j, c of W[c, k + p - i s, l + p - j s, o] x[c, i, j])

    Shapes: bottom (n, c, h, w); top (n, channels, height, width) of `shape`.

    Args:
        channels: of the top.
        kernel, stride, pad: of the Convolution.
        shape: (height, width) of the top.  With a stride several sizes fit, of which the default is
            the least, (h - 1) stride + kernel - 2 pad and the same of w; up to stride - 1 more are
            possible.
        neuron, bias, l1, l2: as of Convolution.
        weight: initialiser of W.  By default as of Convolution, times the stride: only one in
            stride^2 of the weights of a window meets any one pixel of y.

    Parameters: weight (c, kernel, kernel, channels), bias (channels,).

    Source: Zeiler et al. (2010); section 4 of Dumoulin and Visin (2016).
    """

    transposed = True

    def __init__(
        self, name: str, bottom: str, *, channels: Count, kernel: Count, stride: Count = 1,
        pad: Pad = 0,
        shape: Annotated[Sequence[int], Sizes(2, names="(height, width)")] | None = None,
        neuron: Activation | None = None, weight: Init | None = None, bias: Init = 0.0,
        l1: NotNegative = 0.0, l2: NotNegative = 0.0, tops: Tops | None = None,
    ):
        super().__init__(
            name, bottom, channels, kernel, stride, pad, neuron, weight, bias, l1, l2, tops
        )
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declares W and b; works out the top's size, or checks `shape`."""
        inputs, *grid = self._check_bottom(shapes[0])
        least = [(size - 1) * self.stride + self.kernel - 2 * self.pad for size in grid]
        if min(least) < 1 and self.shape is None:
            self.fail(f"pad {self.pad} leaves no pixel of the top: its size would be {least}")
        height, width = self.shape or least
        if self._grid(height, width) != tuple(grid):
            ranges = " and ".join(f"{max(n, 1)} to {n + self.stride - 1}" for n in least)
            self.fail(
                f"shape ({height}, {width}) does not fit a bottom of {grid[0]} x {grid[1]}; "
                f"height and width can be {ranges}"
            )
        top = (self.channels, height, width)
        weight = (inputs, self.kernel, self.kernel, self.channels)
        self._set_up(top, (grid[0], grid[1]), inputs, weight, top)
        return [top]

    def _matrix(self, shape: Shape) -> Shape:
        return shape[0], self.window

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The windows of y = x W."""
        x, w = self._places_first(bottoms[0].data), self.w.data.reshape(-1, self.window)
        self.backend.gemm(x, w, out=self._flat(self.columns))
        self._add_up(tops[0].data)
        self._activate(tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """With d = dy * a': dW = x^T windows of d, dx = windows of d times W^T."""
        d = self._cut(self._through_activation(tops[0].data, tops[0].diff))
        w = self.w.data.reshape(-1, self.window)
        if self.w.trainable:
            x = self._places_first(bottoms[0].data)
            self.backend.gemm(x.T, d, out=self.w.diff.reshape(w.shape))
        if bottoms[0].diff is not None:
            self.backend.gemm(d, w.T, out=self._flat(self.rows))
            self._channels_first(bottoms[0].diff)

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The same, example by example."""
        self._run_forward(bottoms, tops)

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """All gradients, example by example."""
        self._run_backward(bottoms, tops)


# Kernels.  A piece of work is some examples, one after the other, with one place, `scratch[i]`, for
# the windows of the present one, as rows (places, window), and one for its picture, `padded[i]`.
# There the channels of a pixel are neighbours, so that a window is `kernel` runs of neighbouring
# numbers.  `geometry` is kernel, stride, pad, down, across.


@kernel
def _cut_windows(picture, padded, columns, geometry):
    """im2col of one picture (c, h, w)."""
    size, stride, pad, down, across = geometry
    channels, height, width = picture.shape
    border = padded.reshape(height + 2 * pad, width + 2 * pad, channels)
    if pad > 0:
        padded[:] = 0
    for y in range(height):
        for c in range(channels):
            line, out = picture[c, y], border[y + pad, pad : pad + width, c]
            for x in range(width):
                out[x] = line[x]
    run, length = size * channels, (width + 2 * pad) * channels
    for i in range(down):
        for j in range(across):
            window = columns[i * across + j]
            start = i * stride * length + j * stride * channels
            for u in range(size):
                given = padded[start + u * length : start + u * length + run]
                out = window[u * run : (u + 1) * run]
                for k in range(run):
                    out[k] = given[k]


@kernel
def _add_windows(columns, padded, picture, geometry):
    """col2im into one picture (c, h, w)."""
    size, stride, pad, down, across = geometry
    channels, height, width = picture.shape
    border = padded.reshape(height + 2 * pad, width + 2 * pad, channels)
    padded[:] = 0
    run, length = size * channels, (width + 2 * pad) * channels
    for i in range(down):
        for j in range(across):
            window = columns[i * across + j]
            start = i * stride * length + j * stride * channels
            for u in range(size):
                out = padded[start + u * length : start + u * length + run]
                given = window[u * run : (u + 1) * run]
                for k in range(run):
                    out[k] += given[k]
    for y in range(height):
        for c in range(channels):
            line, given = picture[c, y], border[y + pad, pad : pad + width, c]
            for x in range(width):
                line[x] = given[x]


@kernel
def _finish(y, b, slope):
    """y = a(y + b) for y (channels, ...), where a multiplies what is not positive by `slope`."""
    slope = y.dtype.type(slope)
    for c in range(len(y)):
        line = y[c].reshape(-1)
        for j in range(line.size):
            value = line[j] + b[c]
            line[j] = slope * value if value <= 0 else value


@kernel
def _differentiate(y, dy, slope, d):
    slope = y.dtype.type(slope)
    y, dy, d = y.reshape(-1), dy.reshape(-1), d.reshape(-1)
    for j in range(y.size):
        d[j] = dy[j] if y[j] > 0 else slope * dy[j]


@kernel
def _forward_piece(i, team, x, w, b, slope, y, scratch, padded, geometry, transposed, width):
    columns, picture = scratch[i], padded[i]
    for e in range(i * width, min((i + 1) * width, len(x))):
        if transposed:
            gemm(team, x[e].reshape(x.shape[1], -1).T, w, columns, False)
            _add_windows(columns, picture, y[e], geometry)
        else:
            _cut_windows(x[e], picture, columns, geometry)
            gemm(team, w.T, columns.T, y[e].reshape(y.shape[1], -1), False)
        _finish(y[e], b, slope)


@kernel
def windowed_forward(team, x, w, b, slope, y, scratch, padded, geometry, transposed):
    """Cut by examples; `transposed` for Deconvolution."""
    width = -(-len(x) // len(scratch))
    parallel_for(team, _forward_piece, -(-len(x) // width), (
        team, x, w, b, slope, y, scratch, padded, geometry, transposed, width
    ))


@kernel
def _backward_piece(
    i, team, x, y, dy, slope, d, w, dw, db, wants_dw, wants_db, dx, scratch, padded, ones, geometry,
    transposed, width,
):
    columns, picture = scratch[i], padded[i]
    for e in range(i * width, min((i + 1) * width, len(x))):
        more = e > i * width
        if slope != 1:
            _differentiate(y[e], dy[e], slope, d[e])
        xe, de = x[e].reshape(x.shape[1], -1), d[e].reshape(d.shape[1], -1)
        if wants_db:
            gemm(team, de, ones, db[i], more)
        if transposed:
            _cut_windows(d[e], picture, columns, geometry)
            if wants_dw:
                gemm(team, xe, columns, dw[i], more)
            if len(dx) > 0:
                gemm(team, w, columns.T, dx[e].reshape(x.shape[1], -1), False)
        else:
            if wants_dw:
                _cut_windows(x[e], picture, columns, geometry)
                gemm(team, columns.T, de.T, dw[i], more)
            if len(dx) > 0:
                gemm(team, de.T, w.T, columns, False)
                _add_windows(columns, picture, dx[e], geometry)


@kernel
def _sum_piece(i, partial, total, width):
    for row in range(i * width, min((i + 1) * width, len(total))):
        for j in range(total.shape[1]):
            total[row, j] = partial[0, row, j]
        for piece in range(1, len(partial)):
            for j in range(total.shape[1]):
                total[row, j] += partial[piece, row, j]


@kernel
def windowed_backward(
    team, x, y, dy, slope, before, w, dw, db, dx, scratch, padded, w_partial, b_partial, ones,
    geometry, transposed,
):
    """Fills dw, db and dx where they are not empty."""
    d = before if slope != 1 else dy
    width = -(-len(x) // len(scratch))
    count = -(-len(x) // width)
    parallel_for(team, _backward_piece, count, (
        team, x, y, dy, slope, d, w, w_partial, b_partial, dw.size > 0, db.size > 0, dx, scratch,
        padded, ones, geometry, transposed, width,
    ))
    if dw.size > 0:
        width = -(-len(dw) // PIECES)
        parallel_for(team, _sum_piece, -(-len(dw) // width), (w_partial[:count], dw, width))
    if db.size > 0:
        _sum_piece(0, b_partial[:count], db.reshape(-1, 1), len(db))
