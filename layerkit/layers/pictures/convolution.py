"""Convolution and its transpose, Deconvolution: layers of pictures, (n, channels, height, width).

Both cut a picture into windows, one of kernel x kernel pixels and all channels for each place of a
grid, as the rows of a matrix; see layerkit.layers.pictures.windowed.  Each layer's backward pass is
built from the other's forward pass, so both are in this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Unpack

from layerkit.blob import Blob
from layerkit.initializers import Init
from layerkit.layer import Shape
from layerkit.layers.elementwise.neuron import Activation
from layerkit.layers.pictures.windowed import Windowed
from layerkit.layers.pictures.windows import Counts, Pad, pictures
from layerkit.settings import Count, NotNegative, Sizes, Tops
from layerkit.settings.tuning import Tuning


class Convolution(Windowed):
    """Convolution y = a(x * W + b) over windows of all channels of x, or of a group of them.

        y[o, i, j] = a(b[o] + sum over u, v, c of
                              W[u, v, c, o] x[c, i s + u d - p, j s + v d - p])

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
    lines; bias (channels,); and those of the activation (`slope` of "prelu", one number for each
    channel).

    Raises:
        NetError: a bottom that is no picture, a kernel larger than it, or groups that do not divide
            the channels.

    Source: LeCun et al. (1998); Krizhevsky et al. (2012) for groups, Yu and Koltun (2016) for
    dilation.
    """

    recordable = True

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
        kernel: rows and columns of a window in pixels, one number or a pair.
        stride, pad, dilation, groups: see Convolution.
        shape: (height, width), or (length,), of the top.  With a stride several sizes fit; the
            default is the least, (h - 1) stride + (kernel - 1) dilation + 1 - 2 pad and as much
            across, and up to stride - 1 more are possible.
        neuron, bias, l1, l2: see Convolution.
        weight: initialiser of W, by default that of Convolution with the gain
            sqrt(rows' stride * columns' stride): only so few of the weights of a window meet any
            one pixel of y.

    Parameters: weight (c, kernel, kernel, channels / groups), or (c, kernel, channels / groups) for
    lines; bias (channels,); and those of the activation.

    Raises:
        NetError: a bottom that is no picture, a shape that does not fit it, or groups that do not
            divide the channels.

    Source: Zeiler et al. (2010); section 4 of Dumoulin and Visin (2016).
    """

    recordable = True
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
