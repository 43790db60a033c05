"""Windowed: the base of Convolution and Deconvolution, which cuts pictures into windows and back.

With the windows as the rows of a matrix (im2col), a convolution is a matrix product; adding windows
back to the places they were cut from (col2im) is the transpose of cutting (Chellapilla, Puri and
Simard, 2006; Jia, 2014).  With groups of channels, each group has a matrix of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Unpack

from layerkit.backends.base import Array
from layerkit.initializers import He, Init, Xavier, in_groups
from layerkit.layer import Shape
from layerkit.layers.elementwise.neuron import Activation, Neuron
from layerkit.layers.pictures.windows import Counts, Pad, PictureLayer, Two, Windows
from layerkit.settings import Count, NotNegative, Tops
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
        # Each number of a Deconvolution's top sums over only one in stride^2 of a window's weights.
        gain = math.sqrt(math.prod(stride)) if self.transposed else 1.0
        rectifies = self.neuron is not None and self.neuron.rectifies
        default = He(gain) if rectifies else Xavier(gain)
        init = default if self.weight_init is None else self.weight_init
        # Groups lie along the axis that has the channels of all of them.
        init = in_groups(init, self.groups, 0 if self.transposed else -1)
        parts = self.groups if self.transposed else 1
        self.w = self.parameter("weight", shape, init, self.l1, self.l2, parts)
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
