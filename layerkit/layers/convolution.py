"""Convolution and its transpose, Deconvolution: layers of pictures, (n, channels, height, width).

Both cut a picture into windows, one of kernel x kernel pixels and all channels for each place of a
grid.  With the windows as the rows of a matrix (im2col), a convolution is a matrix product; adding
windows back to the places they were cut from (col2im) is the transpose of cutting (Chellapilla,
Puri and Simard, 2006; Jia, 2014).  Each layer's backward pass is built from the other's forward
pass, so both are in this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.initializers import He, Init, Xavier
from layerkit.layer import Layer, Shape
from layerkit.layers.neuron import Activation, Neuron
from layerkit.settings import Count, NotNegative, Sizes, Tops, Whole

PIECES = 8  # that kernels cut a batch into, whatever the number of threads

Pad = Annotated[int, Whole(least=0)]


class Windowed(Layer):
    """Base class of Convolution and Deconvolution: settings, windows, activation."""

    transposed: ClassVar[bool] = False
    decided = (
        *Layer.decided,
        "channels",
        "kernel",
        "stride",
        "pad",
        "shape",
        "neuron",
        "weight_init",
        "bias_init",
        "l1",
        "l2",
    )

    def __init__(
        self,
        name: str,
        bottom: str,
        channels: Count,
        kernel: Count,
        stride: Count,
        pad: Pad,
        neuron: Activation | None,
        weight: Init | None,
        bias: Init,
        l1: NotNegative,
        l2: NotNegative,
        tops: Tops | None,
    ):
        super().__init__(name, [bottom], tops)
        self.channels, self.kernel, self.stride, self.pad = channels, kernel, stride, pad
        self.neuron = Neuron.named(neuron) if neuron else None
        # Each number of a Deconvolution's top sums over only one in stride^2 of a window's weights.
        gain = float(stride) if self.transposed else 1.0
        rectifies = self.neuron is not None and self.neuron.rectifies
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
        """Return how many windows a picture of this size has, down and across."""
        down, across = (
            (size + 2 * self.pad - self.kernel) // self.stride + 1 for size in (height, width)
        )
        return down, across

    def _set_up(
        self, picture: Shape, grid: tuple[int, int], small: int, weight: Shape, top: Shape
    ) -> None:
        """Declare parameters and buffers.

        Args:
            picture: (channels, height, width) of the picture that is cut into windows.
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
        # Only array code uses these; memory that is never touched takes no RAM.
        self.padded = self.buffer((picture[0], picture[1] + border, picture[2] + border))
        self.columns = self.buffer((self.places, self.window))
        self.rows = self.buffer((self.places, small))
        self.inner = self.neuron.room(self, top) if self.neuron else None  # the input of a
        if self.neuron:
            self.before = self.buffer(top)  # d loss / d input of a

    def multiplications(self) -> int:
        """Return the number of weights times the number of places."""
        return self.w.size * self.places

    # Windows, in array code.

    def _cut(self, picture: Array) -> Array:
        """Return the windows of pictures (n, c, h, w) as rows (n * places, window): im2col."""
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
        """Set pictures to the sums of the windows in `self.columns`: col2im."""
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
        """Return (n, channels, down, across) as rows (n * places, channels)."""
        n, channels = small.shape[:2]
        self.rows.data.reshape(n, *self.grid, channels)[...] = small.transpose(0, 2, 3, 1)
        return self.rows.data.reshape(n * self.places, channels)

    def _channels_first(self, small: Array) -> None:
        """Fill (n, channels, down, across) from the rows in `self.rows`."""
        n, channels = small.shape[:2]
        small[...] = self.rows.data.reshape(n, *self.grid, channels).transpose(0, 3, 1, 2)

    def _flat(self, buffer: Blob) -> Array:
        """Return a buffer (n, places, ...) as a matrix (n * places, ...)."""
        return buffer.data.reshape(-1, buffer.shape[1])

    def _activate(self, y: Array) -> None:
        """Compute y = a(y + b), in place."""
        y += self.b.data[:, None, None]
        if self.neuron:
            self.neuron.enter(self.xp, y, self.inner)

    def _through_activation(self, y: Array, dy: Array) -> Array:
        """Return d loss / d input of a, and set db to its sum."""
        if self.neuron:
            self.neuron.leave(self.xp, y, self.inner, dy, self.before.data)
            dy = self.before.data
        if self.b.trainable:
            self.xp.sum(dy, axis=(0, 2, 3), out=self.b.diff)
        return dy


class Convolution(Windowed):
    """Convolution y = a(x * W + b) over windows of all channels of x.

    y[o, i, j] = a(b[o] + sum over u, v, c of W[u, v, c, o] x[c, i s + u - p, j s + v - p])

    with stride s and pad p, and x zero outside the picture.  As in Caffe and Mocha this is a
    cross-correlation (W is not flipped).

    Shapes: bottom (n, c, h, w); top (n, channels, out(h), out(w)) with
    out(size) = (size + 2 p - kernel) // s + 1.

    Args:
        channels: channels of the top.
        kernel: height and width of a window, in pixels.
        stride: distance between windows, in pixels, default 1.
        pad: rows and columns of zeros on each side of the picture, default 0.
        neuron: activation a, by name ("relu", "tanh", ...) or with settings of its own
            (`L.LeakyReLU.of(slope=0.1)`); None for a linear layer.
        weight: initialiser of W, by default "he" before a rectifier (ReLU, leaky ReLU, GELU, SiLU)
            and "xavier" otherwise.
        bias: initialiser of b, default 0.
        l1, l2: regularisation of W (not of b); see Parameter.

    Parameters: weight (kernel, kernel, c, channels), bias (channels,).
    """

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        channels: Count,
        kernel: Count,
        stride: Count = 1,
        pad: Pad = 0,
        neuron: Activation | None = None,
        weight: Init | None = None,
        bias: Init = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
    ):
        super().__init__(
            name, bottom, channels, kernel, stride, pad, neuron, weight, bias, l1, l2, tops
        )

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W and b; return the top's shape."""
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

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(windows W + b)."""
        w = self.w.data.reshape(self.window, -1)
        self.backend.gemm(self._cut(bottoms[0].data), w, out=self._flat(self.rows))
        self._channels_first(tops[0].data)
        self._activate(tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW = windows^T d, the windows of dx = d W^T, and db, with d = dy * a'."""
        d = self._places_first(self._through_activation(tops[0].data, tops[0].diff))
        if self.w.trainable:
            windows = self._cut(bottoms[0].data)
            self.backend.gemm(windows.T, d, out=self.w.diff.reshape(self.window, -1))
        if bottoms[0].diff is not None:
            w = self.w.data.reshape(self.window, -1)
            self.backend.gemm(d, w.T, out=self._flat(self.columns))
            self._add_up(bottoms[0].diff)


class Deconvolution(Windowed):
    """Transposed convolution y = a(x *^T W + b): each number of x adds a window to y.

    Before b and a, y is what the backward pass of a Convolution with this kernel, stride and pad,
    from pictures of y's size to pictures of x's size, makes of a diff x:

    y[o, k, l] = a(b[o] + sum over i, j, c of W[c, k + p - i s, l + p - j s, o] x[c, i, j])

    Shapes: bottom (n, c, h, w); top (n, channels, height, width) of `shape`.

    Args:
        channels: channels of the top.
        kernel, stride, pad: those of the Convolution.
        shape: (height, width) of the top.  With a stride several sizes fit; the default is the
            least, (h - 1) stride + kernel - 2 pad by (w - 1) stride + kernel - 2 pad, and up to
            stride - 1 more are possible.
        neuron, bias, l1, l2: see Convolution.
        weight: initialiser of W, by default that of Convolution times the stride: only one in
            stride^2 of the weights of a window meets any one pixel of y.

    Parameters: weight (c, kernel, kernel, channels), bias (channels,).

    Source: Zeiler et al. (2010); section 4 of Dumoulin and Visin (2016).
    """

    transposed = True

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        channels: Count,
        kernel: Count,
        stride: Count = 1,
        pad: Pad = 0,
        shape: Annotated[Sequence[int], Sizes(2, names="(height, width)")] | None = None,
        neuron: Activation | None = None,
        weight: Init | None = None,
        bias: Init = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
    ):
        super().__init__(
            name, bottom, channels, kernel, stride, pad, neuron, weight, bias, l1, l2, tops
        )
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W and b; check `shape`, or work it out; return the top's shape."""
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

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the windows x W, add them up, and activate."""
        x, w = self._places_first(bottoms[0].data), self.w.data.reshape(-1, self.window)
        self.backend.gemm(x, w, out=self._flat(self.columns))
        self._add_up(tops[0].data)
        self._activate(tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW = x^T windows, dx = windows W^T, and db, of the windows of d = dy * a'."""
        d = self._cut(self._through_activation(tops[0].data, tops[0].diff))
        w = self.w.data.reshape(-1, self.window)
        if self.w.trainable:
            x = self._places_first(bottoms[0].data)
            self.backend.gemm(x.T, d, out=self.w.diff.reshape(w.shape))
        if bottoms[0].diff is not None:
            self.backend.gemm(d, w.T, out=self._flat(self.rows))
            self._channels_first(bottoms[0].diff)
