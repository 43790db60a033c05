"""Windows: how convolutions and pooling lay windows on pictures, and the base of these layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Unpack

from layerkit.backends.base import Array
from layerkit.layer import Layer, Shape
from layerkit.settings import Pair, Tops
from layerkit.settings.tuning import Tuning

Two = tuple[int, int]  # rows and columns
Counts = Annotated[int | Two, Pair(least=1)]
Pad = Annotated[int | Two, Pair(least=0)]


@dataclass(frozen=True)
class Windows:
    """Windows at equal distances on pictures (channels, height, width).

    Attributes:
        kernel: rows and columns of a window.
        stride: pixels from one window to the next, down and across.
        pad: rows and columns outside the picture, on each side of it, that windows can reach.
        dilation: pixels from one row, and from one column, of a window to the next.
        grid: how many windows there are, down and across.
    """

    kernel: Two
    stride: Two
    pad: Two
    dilation: Two
    grid: Two

    @property
    def places(self) -> int:
        """The number of windows."""
        return math.prod(self.grid)

    @property
    def pixels(self) -> int:
        """The number of pixels of a window, in one channel."""
        return math.prod(self.kernel)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Ten numbers for kernels: the attributes in their order."""
        return *self.kernel, *self.stride, *self.pad, *self.dilation, *self.grid

    def with_border(self, picture: Shape) -> Shape:
        """Return the shape of a picture (channels, height, width) with all that windows reach."""
        sizes = zip(
            picture[1:], self.kernel, self.stride, self.pad, self.dilation, self.grid, strict=True
        )
        return picture[0], *(
            max(size + 2 * p, (n - 1) * s + (k - 1) * d + 1) for size, k, s, p, d, n in sizes
        )

    def inside(self, bordered: Array, height: int, width: int) -> Array:
        """Return the pictures (..., height, width) inside of those with a border, as a view."""
        top, left = self.pad
        return bordered[..., top : top + height, left : left + width]

    def views(self, bordered: Array) -> Iterator[Array]:
        """Give, for each pixel of a window in row order, that pixel of all windows.

        Args:
            bordered: pictures (..., height, width) with a border.

        Yields:
            Views (..., down, across).
        """
        (down, across), (s, t), (d, e) = self.grid, self.stride, self.dilation
        for i in range(0, self.kernel[0] * d, d):
            for j in range(0, self.kernel[1] * e, e):
                rows, columns = (
                    slice(i, i + (down - 1) * s + 1, s),
                    slice(j, j + (across - 1) * t + 1, t),
                )
                yield bordered[..., rows, columns]


def pictures(array: Array) -> Array:
    """Return (n, channels, length) as (n, channels, 1, length), and pictures as they are."""
    return array if array.ndim == 4 else array.reshape(len(array), array.shape[1], 1, -1)


class PictureLayer(Layer):
    """Base class of layers that look at pictures window by window.

    Attributes:
        kernel, stride, pad: as given, one number or a pair (rows, columns).
        windows: how windows lie on the pictures, from `setup` on.
    """

    decided = (*Layer.decided, "kernel", "stride", "pad")

    def __init__(
        self,
        name: str,
        bottom: str,
        kernel: Counts,
        stride: Counts,
        pad: Pad,
        tops: Tops | None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.kernel, self.stride, self.pad = kernel, stride, pad

    def check_bottom(self, shape: Shape) -> tuple[int, int, int]:
        """Return (channels, height, width) of the bottom; a line of pixels has height 1."""
        if len(shape) not in (2, 3):
            fits = (1, *shape) if len(shape) == 1 else ("channels", "height", "width")
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold pictures (channels, height, width), or "
                f"lines (channels, length), got shape {shape}; put a Reshape layer with "
                f"shape=({', '.join(map(str, fits))}) in between"
            )
        self.axes = len(shape) - 1
        return shape[0], shape[1] if self.axes == 2 else 1, shape[-1]

    def pair(self, setting: str, beside: int = 1) -> Two:
        """Return a setting as a pair; of lines, its first number is `beside`."""
        value: int | Two = getattr(self, setting)
        if self.axes == 2:
            return value if isinstance(value, tuple) else (value, value)
        if isinstance(value, tuple):
            self.fail(
                f"{setting} must be one number, as its bottom {self.bottoms[0]!r} has one spatial "
                f"axis, got {value}"
            )
        return beside, value

    def top_shape(self, channels: int, sizes: Two) -> Shape:
        """Return the shape of pictures, or of lines where the bottom holds lines."""
        return channels, *sizes[2 - self.axes :]

    def words(self, sizes: Shape) -> str:
        """Return sizes in words, as "5 x 4"; a length where the bottom holds lines."""
        return " x ".join(map(str, sizes[2 - self.axes :]))
