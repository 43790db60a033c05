"""Multiply: the elementwise product of blobs."""

from __future__ import annotations

import functools

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops


class Multiply(Layer):
    """y = x1 * x2 * ..., element by element, over bottoms of one shape."""

    def __init__(self, name: str, *bottoms: str, tops: Tops | None = None):
        super().__init__(name, bottoms, tops)
        if not bottoms:
            self.fail("needs at least one bottom")

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that the shapes are equal; no parameters."""
        if len(set(shapes)) != 1:
            self.fail(f"bottoms must have one shape, got {shapes}")
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = the product."""
        y = tops[0].data
        y[...] = bottoms[0].data
        for bottom in bottoms[1:]:
            y *= bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """dx_i = dy times the product of the others (dividing y by x_i would fail at zero)."""
        for i, bottom in enumerate(bottoms):
            if bottom.diff is None:
                continue
            bottom.diff[...] = tops[0].diff
            for j, other in enumerate(bottoms):
                if j != i:
                    bottom.diff[...] *= other.data

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = the product."""
        device, y = self.run.device, tops[0].data
        assert device is not None
        code, blocks = source(len(bottoms)), device.blocks(y.size)
        device.launch(code, "multiply", blocks, y.size, y, *(b.data for b in bottoms))

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """dx_i = dy times the product of the others."""
        device, dy = self.run.device, tops[0].diff
        assert device is not None
        code, blocks = source(len(bottoms)), device.blocks(dy.size)
        device.launch(
            code, "multiply_backward", blocks, dy.size, dy,
            *(b.data for b in bottoms), *(b.diff for b in bottoms),
        )


# CUDA.


@functools.cache
def source(count: int) -> str:
    """Kernels for so many bottoms."""
    inputs = ", ".join(f"const real* x{i}" for i in range(count))
    diffs = ", ".join(f"real* dx{i}" for i in range(count))
    product = " * ".join(f"x{i}[i]" for i in range(count))
    others = " ".join(
        f"if (dx{i}) dx{i}[i] = "
        + " * ".join(["dy[i]", *(f"x{j}[i]" for j in range(count) if j != i)]) + ";"
        for i in range(count)
    )
    return f"""
KERNEL multiply(i64 size, real* y, {inputs})
{{
    i64 i = place();
    if (i < size) y[i] = {product};
}}

KERNEL multiply_backward(i64 size, const real* dy, {inputs}, {diffs})
{{
    i64 i = place();
    if (i < size) {{ {others} }}
}}
"""
