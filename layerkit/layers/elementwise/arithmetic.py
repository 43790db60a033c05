"""Arithmetic: sums, products, differences and quotients of blobs; Affine; products of matrices."""

from __future__ import annotations

import math
from typing import Unpack

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import Axis, add_to, axis_of, broadcast
from layerkit.settings import Flag, Tops
from layerkit.settings.tuning import Tuning


class Arithmetic(Layer):
    """Base class of elementwise arithmetic with broadcasting.

    All bottoms have examples of as many axes, and along each axis of equal sizes, or of size 1:
    such a bottom counts as repeated.

    Attributes:
        broadcasts: whether the bottoms are of several shapes.
    """

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the shapes fit; declare no parameters."""
        top = broadcast(shapes)
        if top is None:
            self.fail(
                "bottoms must have one shape, or as many axes of equal sizes or of size 1, got "
                f"{shapes}"
            )
        self.broadcasts = len(set(shapes)) > 1
        return [top]


class Add(Arithmetic):
    """Elementwise sum y = x1 + x2 + ... of one or more bottoms.

    Shapes: bottoms (n, ...), of one shape, or with axes of size 1, which are repeated: a
    (n, channels, 1, 1) is added to every place of (n, channels, height, width).  Top of the shape
    that they have together.

    Raises:
        NetError: bottoms whose shapes do not fit each other.

    Source: Caffe's Eltwise layer (SUM), with NumPy's rule for axes of size 1.
    """

    recordable = True

    def __init__(self, name: str, *bottoms: str, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x1 + x2 + ..."""
        y = tops[0].data
        y[...] = bottoms[0].data
        for bottom in bottoms[1:]:
            y += bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's, summed where a bottom was repeated."""
        for bottom in bottoms:
            if bottom.diff is not None:
                add_to(self.xp, bottom.diff, tops[0].diff)


class Subtract(Arithmetic):
    """Elementwise difference y = a - b.

    Shapes: bottoms a and b (n, ...), of one shape or with axes of size 1, as for Add; top of the
    shape that they have together.

    Raises:
        NetError: bottoms whose shapes do not fit each other.

    Source: Mocha's ElementWiseLayer (Subtract), with NumPy's rule for axes of size 1.
    """

    recordable = True

    def __init__(self, name: str, a: str, b: str, *, tops: Tops | None = None):
        super().__init__(name, [a, b], tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a - b."""
        self.xp.subtract(bottoms[0].data, bottoms[1].data, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da = dy and db = -dy, summed where a bottom was repeated."""
        if bottoms[0].diff is not None:
            add_to(self.xp, bottoms[0].diff, tops[0].diff)
        if bottoms[1].diff is not None:
            add_to(self.xp, bottoms[1].diff, -tops[0].diff)


class Multiply(Arithmetic):
    """Elementwise product y = x1 * x2 * ... of one or more bottoms.

    Shapes: bottoms (n, ...), of one shape or with axes of size 1, as for Add; top of the shape
    that they have together.

    Raises:
        NetError: bottoms whose shapes do not fit each other.

    Source: Caffe's Eltwise layer (PROD), with NumPy's rule for axes of size 1.
    """

    recordable = True

    def __init__(self, name: str, *bottoms: str, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x1 * x2 * ..."""
        y = tops[0].data
        y[...] = bottoms[0].data
        for bottom in bottoms[1:]:
            y *= bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx_i = dy times the product of the others (y / x_i would fail at zero)."""
        for i, bottom in enumerate(bottoms):
            if bottom.diff is None:
                continue
            product = tops[0].diff
            for j, other in enumerate(bottoms):
                if j != i:
                    product = product * other.data
            add_to(self.xp, bottom.diff, product)


class Divide(Arithmetic):
    """Elementwise quotient y = a / b; infinite, or not a number, where b is 0.

    Shapes: bottoms a and b (n, ...), of one shape or with axes of size 1, as for Add; top of the
    shape that they have together.

    Raises:
        NetError: bottoms whose shapes do not fit each other.

    Source: Mocha's ElementWiseLayer (Divide), with NumPy's rule for axes of size 1.
    """

    recordable = True

    def __init__(self, name: str, a: str, b: str, *, tops: Tops | None = None):
        super().__init__(name, [a, b], tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a / b."""
        self.xp.divide(bottoms[0].data, bottoms[1].data, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da = dy / b and db = -dy y / b, summed where a bottom was repeated."""
        slope = tops[0].diff / bottoms[1].data
        if bottoms[0].diff is not None:
            add_to(self.xp, bottoms[0].diff, slope)
        if bottoms[1].diff is not None:
            add_to(self.xp, bottoms[1].diff, -slope * tops[0].data)


class Affine(Layer):
    """Scale and shift with a learned gain and bias for each channel: y = gain x + bias.

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        axis: axis of an example, without the batch axis, that counts channels, default 0: the
            units of (n, units), or the channels of (n, channels, height, width).
        gain, bias: initialisers, default 1 and 0; None for none of them.

    Parameters: gain (channels,), bias (channels,).

    Raises:
        NetError: neither gain nor bias, or no such axis.

    Source: Caffe's Scale and Bias layers; Ioffe and Szegedy (2015), algorithm 1, for gain and bias.
    """

    recordable = True
    decided = (*Layer.decided, "axis", "gain_init", "bias_init")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        axis: Axis = 0,
        gain: Init | None = 1.0,
        bias: Init | None = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.axis, self.gain_init, self.bias_init = axis, gain, bias
        if gain is None and bias is None:
            self.fail("gain=None and bias=None leave nothing to do; give one of them")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare gain and bias; return the bottom's shape for the top."""
        self.axis = axis = axis_of(self, self.axis, shapes[0], self.bottoms[0])
        own, after = shapes[0][axis : axis + 1], len(shapes[0]) - axis - 1
        self.g = None if self.gain_init is None else self.parameter("gain", own, self.gain_init)
        self.b = None if self.bias_init is None else self.parameter("bias", own, self.bias_init)
        self._spread = (-1, *[1] * after)  # which broadcasts against a batch
        self._others = tuple(a for a in range(1 + len(shapes[0])) if a != 1 + axis)
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = gain x + bias."""
        x, y = bottoms[0].data, tops[0].data
        if self.g is None:
            y[...] = x
        else:
            self.xp.multiply(x, self.g.data.reshape(self._spread), out=y)
        if self.b is not None:
            y += self.b.data.reshape(self._spread)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = gain dy, and the sums over a channel d gain of dy x and d bias of dy."""
        x, dy = bottoms[0], tops[0].diff
        if self.g is not None and self.g.trainable:
            self.xp.sum(dy * x.data, axis=self._others, out=self.g.diff)
        if self.b is not None and self.b.trainable:
            self.xp.sum(dy, axis=self._others, out=self.b.diff)
        if x.diff is not None:
            x.diff[...] = dy if self.g is None else dy * self.g.data.reshape(self._spread)


class MatMul(Layer):
    """Products of matrices, example by example: y = a b, or with either of them transposed.

    Shapes: bottoms a (n, ..., i, k) and b (n, ..., k, j), with equal axes in front; top
    (n, ..., i, j).

    Args:
        transpose_a: True if a comes as (n, ..., k, i); False by default.
        transpose_b: True if b comes as (n, ..., j, k), as for the products of all pairs of rows;
            False by default.

    Raises:
        NetError: bottoms that are no matrices, or whose sizes do not fit each other.

    Source: `numpy.matmul`, without its broadcasting.
    """

    decided = (*Layer.decided, "transpose_a", "transpose_b")

    def __init__(
        self,
        name: str,
        a: str,
        b: str,
        *,
        transpose_a: Flag = False,
        transpose_b: Flag = False,
        tops: Tops | None = None,
    ):
        super().__init__(name, [a, b], tops)
        self.transpose_a, self.transpose_b = transpose_a, transpose_b

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the matrices fit; declare no parameters."""
        a, b = shapes
        if len(a) < 2 or len(a) != len(b) or a[:-2] != b[:-2]:
            self.fail(
                f"expected matrices (i, k) and (k, j), with equal axes in front, got {shapes}"
            )
        i, k = a[-2:][::-1] if self.transpose_a else a[-2:]
        terms, j = b[-2:][::-1] if self.transpose_b else b[-2:]
        if k != terms:
            flags = f"transpose_a={self.transpose_a}, transpose_b={self.transpose_b}"
            self.fail(f"cannot multiply {a} by {b}: {k} columns and {terms} rows, with {flags}")
        self._multiplications = math.prod(a) * j
        return [(*a[:-2], i, j)]

    def multiplications(self) -> int:
        """Return the number of products."""
        return self._multiplications

    @staticmethod
    def _turned(matrices: Array, transpose: bool) -> Array:
        return matrices.swapaxes(-1, -2) if transpose else matrices

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a b."""
        a = self._turned(bottoms[0].data, self.transpose_a)
        b = self._turned(bottoms[1].data, self.transpose_b)
        self.xp.matmul(a, b, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da = dy b^T and db = a^T dy, transposed where a or b is."""
        dy, xp, turned = tops[0].diff, self.xp, self._turned
        if bottoms[0].diff is not None:
            b = turned(bottoms[1].data, not self.transpose_b)
            pair = (turned(b, True), turned(dy, True)) if self.transpose_a else (dy, b)
            xp.matmul(*pair, out=bottoms[0].diff)
        if bottoms[1].diff is not None:
            a = turned(bottoms[0].data, not self.transpose_a)
            pair = (turned(dy, True), turned(a, True)) if self.transpose_b else (a, dy)
            xp.matmul(*pair, out=bottoms[1].diff)
