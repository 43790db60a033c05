"""Convolution and its transpose, Deconvolution: layers of pictures, (n, channels, height, width).

Both cut a picture into windows, one of kernel x kernel pixels and all channels for each place of a
grid.  With the windows as the rows of a matrix (im2col), a convolution is a matrix product; adding
windows back to the places they were cut from (col2im) is the transpose of cutting (Chellapilla,
Puri and Simard, 2006; Jia, 2014).  Each layer's backward pass is built from the other's forward
pass, so both are in this file.  With groups of channels, each group has a matrix of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Unpack

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.initializers import He, Init, Xavier
from layerkit.layer import Shape
from layerkit.layers.elementwise.neuron import Activation, Neuron
from layerkit.layers.pictures.windows import Counts, Pad, PictureLayer, Two, Windows, pictures
from layerkit.settings import Count, NotNegative, Sizes, Tops
from layerkit.settings.tuning import Tuning


class Windowed(PictureLayer):
    """Base class of Convolution and Deconvolution: settings, windows, products, activation.

    The channels of the picture that is cut and those of the small blob, which has one place for
    each window, fall into `groups`.  All products are of three matrices for each of them: windows
    (n * places, window), rows of the small blob (n * places, small) and W (window, small).
    """

    transposed: ClassVar[bool] = False
    decided = (
        *PictureLayer.decided,
        "channels",
        "dilation",
        "groups",
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
        kernel: Counts,
        stride: Counts,
        pad: Pad,
        dilation: Counts,
        groups: Count,
        neuron: Activation | None,
        weight: Init | None,
        bias: Init | None,
        l1: NotNegative,
        l2: NotNegative,
        tops: Tops | None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, bottom, kernel, stride, pad, tops, **common)
        self.channels, self.dilation, self.groups = channels, dilation, groups
        self.neuron = Neuron.named(neuron) if neuron else None
        self.weight_init, self.bias_init = weight, bias
        self.l1, self.l2 = l1, l2

    def _read(self, shape: Shape) -> tuple[Shape, Two]:
        """Return the bottom as (channels, height, width), and the size of a dilated window."""
        picture = self.check_bottom(shape)
        for what, channels in (("its bottom has", picture[0]), ("channels is", self.channels)):
            if channels % self.groups:
                self.fail(
                    f"groups must divide the channels of bottom and top: {what} {channels}, and "
                    f"groups is {self.groups}"
                )
        kernel, dilation = self.pair("kernel"), self.pair("dilation")
        rows, columns = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        return picture, (rows, columns)

    def _set_up(self, picture: Shape, small: Shape, top: Shape) -> list[Shape]:
        """Declare parameters and buffers; return the top's shape.

        Args:
            picture: (channels, height, width) of the picture that is cut into windows.
            small: (channels, down, across) of the blob that has one place for each window.
            top: whichever of them is the top's.
        """
        stride, grid = self.pair("stride"), (small[1], small[2])
        self.windows = Windows(
            self.pair("kernel"), stride, self.pair("pad", 0), self.pair("dilation"), grid
        )
        self.picture, self.places = picture, self.windows.places
        kernel = self.windows.kernel[2 - self.axes :]
        group = picture[0] // self.groups
        shape = (small[0], *kernel, group) if self.transposed else (*kernel, group, small[0])
        # Each number of a Deconvolution's top sums over only one in stride^2 of a window's weights,
        # and those of its group.
        gain = math.sqrt(math.prod(stride) * self.groups) if self.transposed else 1.0
        rectifies = self.neuron is not None and self.neuron.rectifies
        default = He(gain) if rectifies else Xavier(gain)
        init = default if self.weight_init is None else self.weight_init
        self.w = self.parameter("weight", shape, init, self.l1, self.l2)
        self.b = (
            None
            if self.bias_init is None
            else self.parameter("bias", (self.channels,), self.bias_init)
        )
        self.window = self.windows.pixels * group  # numbers, in a group
        # Only array code uses these; memory that is never touched takes no RAM.
        self.bordered = self.buffer(self.windows.with_border(picture))
        self.columns = self.buffer((self.places, self.windows.pixels * picture[0]))
        self.rows = self.buffer((self.places, small[0]))
        self.inner = self.neuron.room(self, top) if self.neuron else None  # the input of a
        if self.neuron:
            self.before = self.buffer(top)  # d loss / d input of a
        return [self.top_shape(top[0], (top[1], top[2]))]

    def multiplications(self) -> int:
        """Return the number of weights times the number of places."""
        return self.w.size * self.places

    # Windows, in array code.

    def cut(self, picture: Array) -> None:
        """Fill `columns` with the windows of pictures (n, c, h, w): im2col."""
        bordered = self.bordered.data
        bordered.fill(0)
        self.windows.inside(bordered, *self.picture[1:])[...] = picture
        for x, part in self._pixels():
            part[...] = x

    def add_up(self, picture: Array) -> None:
        """Set pictures to the sums of the windows in `columns`: col2im."""
        bordered = self.bordered.data
        bordered.fill(0)
        for x, part in self._pixels():
            x += part
        picture[...] = self.windows.inside(bordered, *self.picture[1:])

    def _pixels(self) -> Iterator[tuple[Array, Array]]:
        """Give, for each pixel of a window, where `bordered` and where `columns` hold it.

        Yields:
            Two views (n, groups, channels of a group, down, across).
        """
        bordered, columns, windows = self.bordered.data, self.columns.data, self.windows
        n, channels = bordered.shape[:2]
        group = channels // self.groups
        parts = columns.reshape(self.groups, n, *windows.grid, windows.pixels, group)
        pixels = windows.views(bordered.reshape(n, self.groups, group, *bordered.shape[2:]))
        for k, x in enumerate(pixels):
            yield x, parts[..., k, :].transpose(1, 0, 4, 2, 3)

    def channels_last(self, small: Array) -> None:
        """Fill `rows`, (n * places, channels), from (n, channels, down, across)."""
        n, channels = small.shape[:2]
        rows = self.rows.data.reshape(n, *self.windows.grid, channels)
        rows[...] = small.transpose(0, 2, 3, 1)

    def channels_first(self, small: Array) -> None:
        """Fill (n, channels, down, across) from `rows`."""
        n, channels = small.shape[:2]
        rows = self.rows.data.reshape(n, *self.windows.grid, channels)
        small[...] = rows.transpose(0, 3, 1, 2)

    def matrix(self, weights: Array) -> Array:
        """Return W, or its diff, as a matrix whose longer side is that of all groups."""
        return (
            weights.reshape(-1, self.window)
            if self.transposed
            else weights.reshape(self.window, -1)
        )

    def matrices(self, weights: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Give the matrices of each group: of `columns`, of `rows`, and of W or its diff.

        Yields:
            Views (n * places, window), (n * places, small), and (window, small) or, of a
            Deconvolution, (small, window).
        """
        count, weights = len(self.rows.data) * self.places, self.matrix(weights)
        columns = self.columns.data.reshape(self.groups, count, self.window)
        rows = self.rows.data.reshape(count, -1)
        small = rows.shape[1] // self.groups
        for i in range(self.groups):
            span = slice(i * small, (i + 1) * small)
            yield columns[i], rows[:, span], weights[span] if self.transposed else weights[:, span]

    def _activate(self, y: Array) -> None:
        """Compute y = a(y + b), in place."""
        if self.b is not None:
            y += self.b.data[:, None, None]
        if self.neuron:
            self.neuron.enter(self.xp, y, self.inner)

    def _through_activation(self, y: Array, dy: Array) -> Array:
        """Return d loss / d input of a, and set db to its sum."""
        if self.neuron:
            self.neuron.leave(self.xp, y, self.inner, dy, self.before.data)
            dy = self.before.data
        if self.b is not None and self.b.trainable:
            self.xp.sum(dy, axis=(0, 2, 3), out=self.b.diff)
        return dy


class Convolution(Windowed):
    """Convolution y = a(x * W + b) over windows of all channels of x, or of a group of them.

    y[o, i, j] = a(b[o] + sum over u, v, c of W[u, v, c, o] x[c, i s + u d - p, j s + v d - p])

    with stride s, dilation d and pad p, and x zero outside the picture; s, d and p can differ
    between rows and columns.  As in Caffe and Mocha this is a cross-correlation (W is not flipped).

    Shapes: bottom (n, c, h, w); top (n, channels, out(h), out(w)) with
    out(size) = (size + 2 p - (kernel - 1) d - 1) // s + 1.  Or lines of pixels: (n, c, length) and
    (n, channels, out(length)).

    Args:
        channels: channels of the top.
        kernel: rows and columns of a window in pixels, one number or a pair.
        stride: distance between windows in pixels, one number or a pair, default 1.
        pad: rows and columns of zeros on each side of the picture, one number or a pair, default 0.
        dilation: distance between the pixels of a window, one number or a pair, default 1.
        groups: into how many groups of neighbours the channels of bottom and top fall, default 1;
            each of the top sees its own of the bottom only.  It divides both numbers of channels.
        neuron: activation a, by name ("relu", "tanh", ...) or with settings of its own
            (`L.LeakyReLU.of(slope=0.1)`); None for a linear layer.
        weight: initialiser of W, by default "he" before a rectifier (ReLU, leaky ReLU, GELU, SiLU)
            and "xavier" otherwise.
        bias: initialiser of b, default 0; None for a layer without b.
        l1, l2: regularisation of W (not of b); see Parameter.

    Parameters: weight (kernel, kernel, c / groups, channels), or (kernel, c / groups, channels) for
    lines; bias (channels,).

    Source: LeCun et al. (1998); Krizhevsky et al. (2012) for groups, Yu and Koltun (2016) for
    dilation.
    """

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        channels: Count,
        kernel: Counts,
        stride: Counts = 1,
        pad: Pad = 0,
        dilation: Counts = 1,
        groups: Count = 1,
        neuron: Activation | None = None,
        weight: Init | None = None,
        bias: Init | None = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        windows = kernel, stride, pad, dilation, groups
        super().__init__(
            name, bottom, channels, *windows, neuron, weight, bias, l1, l2, tops, **common
        )

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Lay the windows; declare W and b; return the top's shape."""
        picture, size = self._read(shapes[0])
        pad, stride = self.pair("pad", 0), self.pair("stride")
        room = [n + 2 * p - k for n, p, k in zip(picture[1:], pad, size, strict=True)]
        if min(room) < 0:
            self.fail(
                f"a kernel of {self.words(size)} is larger than the picture, "
                f"{self.words(picture[1:])} with pad {self.words(pad)}"
            )
        top = (self.channels, room[0] // stride[0] + 1, room[1] // stride[1] + 1)
        return self._set_up(picture, top, top)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(windows W + b)."""
        y = pictures(tops[0].data)
        self.cut(pictures(bottoms[0].data))
        for windows, rows, w in self.matrices(self.w.data):
            self.backend.gemm(windows, w, out=rows)
        self.channels_first(y)
        self._activate(y)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW = windows^T d, the windows of dx = d W^T, and db, with d = dy * a'."""
        gemm = self.backend.gemm
        d = self._through_activation(pictures(tops[0].data), pictures(tops[0].diff))
        self.channels_last(d)
        if self.w.trainable:
            self.cut(pictures(bottoms[0].data))
            for windows, rows, dw in self.matrices(self.w.diff):
                gemm(windows.T, rows, out=dw)
        if bottoms[0].diff is not None:
            for windows, rows, w in self.matrices(self.w.data):
                gemm(rows, w.T, out=windows)
            self.add_up(pictures(bottoms[0].diff))


class Deconvolution(Windowed):
    """Transposed convolution y = a(x *^T W + b): each number of x adds a window to y.

    Before b and a, y is what the backward pass of a Convolution with this kernel, stride, pad,
    dilation and groups, from pictures of y's size to pictures of x's size, makes of a diff x:

    y[o, k, l] = a(b[o] + sum of W[c, u, v, o] x[c, i, j] over all c, i, j, u, v
                          with i s + u d - p = k and j s + v d - p = l)

    Shapes: bottom (n, c, h, w); top (n, channels, height, width) of `shape`.  Or lines of pixels:
    (n, c, length); top (n, channels, length of `shape`).

    Args:
        channels: channels of the top.
        kernel, stride, pad, dilation, groups: those of the Convolution.
        shape: (height, width), or (length,), of the top.  With a stride several sizes fit; the
            default is the least, (h - 1) stride + (kernel - 1) dilation + 1 - 2 pad and as much
            across, and up to stride - 1 more are possible.
        neuron, bias, l1, l2: see Convolution.
        weight: initialiser of W, by default that of Convolution with the gain
            sqrt(rows' stride * columns' stride * groups): only so few of the weights of a window
            meet any one pixel of y.

    Parameters: weight (c, kernel, kernel, channels / groups), or (c, kernel, channels / groups) for
    lines; bias (channels,).

    Source: Zeiler et al. (2010); section 4 of Dumoulin and Visin (2016).
    """

    transposed = True

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        channels: Count,
        kernel: Counts,
        stride: Counts = 1,
        pad: Pad = 0,
        dilation: Counts = 1,
        groups: Count = 1,
        shape: Annotated[Sequence[int], Sizes(1, 2, names="(height, width) or (length,)")]
        | None = None,
        neuron: Activation | None = None,
        weight: Init | None = None,
        bias: Init | None = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        windows = kernel, stride, pad, dilation, groups
        super().__init__(
            name, bottom, channels, *windows, neuron, weight, bias, l1, l2, tops, **common
        )
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check `shape`, or work it out; declare W and b; return the top's shape."""
        small, size = self._read(shapes[0])
        stride, pad = self.pair("stride"), self.pair("pad", 0)
        sizes = list(zip(small[1:], size, stride, pad, strict=True))
        least = [(n - 1) * s + k - 2 * p for n, k, s, p in sizes]
        shown = least[2 - self.axes :]
        if min(shown) < 1 and self.shape is None:
            self.fail(f"pad {self.pad} leaves no pixel of the top: its size would be {shown}")
        if self.shape is not None and len(self.shape) != self.axes:
            sizes_of = ("(length,)", "(height, width)")[self.axes - 1]
            self.fail(f"shape must be {sizes_of}, as its bottom is, got {self.shape}")
        height, width = least if self.shape is None else (1, *self.shape)[-2:]
        fits = [
            (n + 2 * p - k) // s + 1 for n, (_, k, s, p) in zip((height, width), sizes, strict=True)
        ]
        if fits != [*small[1:]]:
            ranges = [f"{max(n, 1)} to {n + s - 1}" for n, s in zip(least, stride, strict=True)]
            names = "height and width" if self.axes == 2 else "its length"
            self.fail(
                f"shape {self.shape} does not fit a bottom of {self.words(small[1:])}; "
                f"{names} can be {' and '.join(ranges[2 - self.axes :])}"
            )
        top = (self.channels, height, width)
        return self._set_up(top, small, top)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the windows x W, add them up, and activate."""
        y = pictures(tops[0].data)
        self.channels_last(pictures(bottoms[0].data))
        for windows, rows, w in self.matrices(self.w.data):
            self.backend.gemm(rows, w, out=windows)
        self.add_up(y)
        self._activate(y)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW = x^T windows, dx = windows W^T, and db, of the windows of d = dy * a'."""
        gemm = self.backend.gemm
        self.cut(self._through_activation(pictures(tops[0].data), pictures(tops[0].diff)))
        if self.w.trainable:
            self.channels_last(pictures(bottoms[0].data))
            for windows, rows, dw in self.matrices(self.w.diff):
                gemm(rows.T, windows, out=dw)
        if bottoms[0].diff is not None:
            for windows, rows, w in self.matrices(self.w.data):
                gemm(windows, w.T, out=rows)
            self.channels_first(pictures(bottoms[0].diff))
