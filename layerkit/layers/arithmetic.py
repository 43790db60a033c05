"""Arithmetic: sums, products, differences and quotients of blobs, element by element."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.axes import add_to, broadcast
from layerkit.settings import Tops


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
    """Elementwise sum y = x1 + x2 + ... of bottoms of one shape.

    Shapes: bottoms (n, ...), of one shape, or with axes of size 1, which are repeated: a
    (n, channels, 1, 1) is added to every place of (n, channels, height, width).
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
    """Elementwise product y = x1 * x2 * ... of bottoms of one shape.

    Shapes: bottoms (n, ...), of one shape or with axes of size 1, as for Add.
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
