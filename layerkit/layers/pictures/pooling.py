"""Pooling and GlobalPooling: the largest number, or the mean, of each window of a picture."""

from __future__ import annotations

import math
from typing import Annotated, Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.pictures.windows import Counts, Pad, PictureLayer, Windows, pictures
from layerkit.settings import Choice, Flag, Tops

Mode = Annotated[str, Choice("max", "mean")]


class Pooling(PictureLayer):
    """Largest number, or mean, of each window of each channel, as Caffe defines them.

        max:   y[c, i, j] = the largest x[c, k, l] with (k, l) in window (i, j)
        mean:  y[c, i, j] = (the sum of these) / (pixels of the window, clipped)

    Window (i, j) has rows i s - p to i s - p + kernel - 1, and columns alike, for stride s and
    pad p.  The maximum looks at pixels of the picture only.  If several are largest, the first in
    row order gets the gradient; a NaN counts as the largest.  The mean takes x = 0 outside
    the picture, and divides by the pixels of the window that lie in the picture with its pads:
    padding counts, as in Caffe, and what a last, partial window has beyond it does not.

    Shapes: bottom (n, c, h, w); top (n, c, out(h), out(w)) with
    out(size) = (size + 2 p - kernel) // s + 1; or (n, c, length) and (n, c, out(length)).  With
    `ceil` the quotient is rounded up, and a last window that would begin beyond the picture and its
    first pad is left out.

    Args:
        kernel: rows and columns of a window in pixels, one number or a pair.
        stride: distance between windows in pixels, one number or a pair, default 1 as in Caffe.
        pad: rows and columns on each side of the picture that windows can reach, one number or a
            pair below `kernel`, default 0.
        mode: "max" (the default) or "mean".
        ceil: whether pixels that fill no window have a partial one.  Default False; Caffe's
            default, round_mode CEIL, is True here.

    Raises:
        NetError: a bottom that is no picture, a kernel larger than it, or a pad that is not smaller
            than the kernel.

    Source: LeCun et al. (1998), section II; Caffe's pooling_layer.cpp for pads, ties and rounding.
    """

    decided = (*PictureLayer.decided, "mode", "ceil")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        kernel: Counts,
        stride: Counts = 1,
        pad: Pad = 0,
        mode: Mode = "max",
        ceil: Flag = False,
        tops: Tops | None = None,
    ):
        super().__init__(name, bottom, kernel, stride, pad, tops)
        self.mode, self.ceil = mode, ceil

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Lay the windows; declare buffers, but no parameters."""
        self.picture = self.check_bottom(shapes[0])
        kernel, stride, pad = self.pair("kernel"), self.pair("stride"), self.pair("pad", 0)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.fail(
                f"pad must be less than kernel, or windows have no pixel: got pad "
                f"{self.words(pad)} and kernel {self.words(kernel)}"
            )
        down, across = map(self._count, self.picture[1:], kernel, stride, pad)
        if min(down, across) < 1:
            self.fail(
                f"a kernel of {self.words(kernel)} is larger than the picture, "
                f"{self.words(self.picture[1:])} with pad {self.words(pad)}"
            )
        self.windows = Windows(kernel, stride, pad, (1, 1), (down, across))
        top = (self.picture[0], down, across)
        self.bordered = self.buffer(self.windows.with_border(self.picture))  # of array code
        self.places = self.buffer(top, "int32") if self.mode == "max" else None
        return [self.top_shape(self.picture[0], (down, across))]

    def _count(self, size: int, kernel: int, stride: int, pad: int) -> int:
        """Return how many windows there are along an axis."""
        room = size + 2 * pad - kernel
        if not self.ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= size + pad else count

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the maxima and note the places of their pixels, or compute the means."""
        xp, windows, y = self.xp, self.windows, pictures(tops[0].data)
        bordered = self.bordered.data
        bordered.fill(0)
        windows.inside(bordered, *self.picture[1:])[...] = pictures(bottoms[0].data)
        y.fill(0)
        if self.places is None:
            for x in windows.views(bordered):
                y += x
            y /= self._sizes()
            return
        places = self.places.data
        places.fill(-1)  # none yet
        for x, (place, inside) in zip(windows.views(bordered), self._pixels(), strict=True):
            # A comparison with NaN is false: NaN is better than numbers, and nothing than NaN.
            better = inside & ((places < 0) | ((y == y) & ~(x <= y)))
            xp.copyto(y, xp.where(better, x, y))
            xp.copyto(places, xp.where(better, place, places))

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Add each dy to the diff of its largest pixel, or a share of it to those of all pixels."""
        if bottoms[0].diff is None:
            return
        xp, windows, dy = self.xp, self.windows, pictures(tops[0].diff)
        bordered = self.bordered.data
        bordered.fill(0)
        if self.places is None:
            share = dy / self._sizes()
            for dx in windows.views(bordered):
                dx += share
        else:
            for dx, (place, inside) in zip(windows.views(bordered), self._pixels(), strict=True):
                dx += xp.where(inside & (self.places.data == place), dy, 0)
        pictures(bottoms[0].diff)[...] = windows.inside(bordered, *self.picture[1:])

    def _ranges(self) -> tuple[Array, Array]:
        """Return where windows begin: their first rows (down, 1) and columns (across,)."""
        xp, ((s, t), (p, q), (down, across)) = (
            self.xp,
            (self.windows.stride, self.windows.pad, self.windows.grid),
        )
        return (xp.arange(down) * s - p)[:, None], xp.arange(across) * t - q

    def _sizes(self) -> Array:
        """Return the pixels of each window, clipped to the picture with its pads."""
        sizes = [
            self.xp.minimum(first + kernel, size + pad) - first
            for first, kernel, size, pad in zip(
                self._ranges(), self.windows.kernel, self.picture[1:], self.windows.pad, strict=True
            )
        ]
        return (sizes[0] * sizes[1]).astype(self.run.dtype)

    def _pixels(self) -> Any:
        """Give, for each pixel of a window, its place in the picture and if it is inside, of all
        windows: (down, across) numbers of pixels in row order, and truth values."""
        first_rows, first_columns = self._ranges()
        _, height, width = self.picture
        for i in range(self.windows.kernel[0]):
            for j in range(self.windows.kernel[1]):
                rows, columns = first_rows + i, first_columns + j
                inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
                yield (rows * width + columns).astype("int32"), inside


class GlobalPooling(Layer):
    """Largest number, or mean, of each channel of a picture.

        max:   y[c] = the largest x[c, ...]
        mean:  y[c] = the mean of x[c, ...]

    The gradient of a maximum goes to the first of several largest numbers, in row order; a NaN
    counts as the largest.

    Shapes: bottom (n, c, ...), pictures with any number of spatial axes; top (n, c).

    Args:
        mode: "mean" (the default) or "max".

    Raises:
        NetError: a bottom without channels.

    Source: Lin, Chen and Yan (2013), "Network in network", section 3.2.
    """

    decided = (*Layer.decided, "mode")

    def __init__(self, name: str, bottom: str, *, mode: Mode = "mean", tops: Tops | None = None):
        super().__init__(name, [bottom], tops)
        self.mode = mode

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shape; declare a buffer, but no parameters."""
        if len(shapes[0]) < 2:
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold pictures (channels, height, width), or "
                f"another number of spatial axes above 0, got shape {shapes[0]}"
            )
        self.channels, self.pixels = shapes[0][0], math.prod(shapes[0][1:])
        self.picture = (self.channels, 1, self.pixels)  # for kernels, with one window:
        self.windows = Windows((1, self.pixels), (1, 1), (0, 0), (1, 1), (1, 1))
        self.places = self.buffer((self.channels,), "int32") if self.mode == "max" else None
        return [(self.channels,)]

    def lines(self, array: Array) -> Array:
        """Return pictures (n, c, ...) as lines (n, c, pixels)."""
        return array.reshape(len(array), self.channels, self.pixels)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the maxima and note the places of their pixels, or compute the means."""
        x, y = self.lines(bottoms[0].data), tops[0].data
        if self.places is None:
            self.xp.mean(x, axis=2, out=y)
        else:
            self.places.data[...] = self.xp.argmax(x, axis=2)
            self.xp.max(x, axis=2, out=y)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Give each dy to its largest pixel, or equal shares of it to all pixels."""
        if bottoms[0].diff is None:
            return
        dx, dy = self.lines(bottoms[0].diff), tops[0].diff[:, :, None]
        if self.places is None:
            dx[...] = dy / self.pixels
        else:
            place = self.xp.arange(self.pixels, dtype="int32")
            dx[...] = self.xp.where(place == self.places.data[:, :, None], dy, 0)
