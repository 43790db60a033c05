"""Add: the sum of blobs."""

from __future__ import annotations

import functools

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops


class Add(Layer):
    """y = x1 + x2 + ..., element by element, over bottoms of one shape."""

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
        """y = the sum."""
        y = tops[0].data
        y[...] = bottoms[0].data
        for bottom in bottoms[1:]:
            y += bottom.data

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Every bottom's diff is the top's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                bottom.diff[...] = tops[0].diff

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = the sum."""
        device, y = self.run.device, tops[0].data
        assert device is not None
        code, blocks = source(len(bottoms)), device.blocks(y.size)
        device.launch(code, "add", blocks, y.size, y, *(b.data for b in bottoms))

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Every bottom's diff is the top's."""
        device, dy = self.run.device, tops[0].diff
        assert device is not None
        code, blocks = source(len(bottoms)), device.blocks(dy.size)
        device.launch(
            code, "add_backward", blocks, dy.size, dy,
            *(b.diff for b in bottoms),
        )


# CUDA.


@functools.cache
def source(count: int) -> str:
    """Kernels for so many bottoms."""
    inputs = ", ".join(f"const real* x{i}" for i in range(count))
    total = " + ".join(f"x{i}[i]" for i in range(count))
    diffs = ", ".join(f"real* dx{i}" for i in range(count))
    copies = " ".join(f"if (dx{i}) dx{i}[i] = dy[i];" for i in range(count))
    return f"""
KERNEL add(i64 size, real* y, {inputs})
{{
    i64 i = place();
    if (i < size) y[i] = {total};
}}

KERNEL add_backward(i64 size, const real* dy, {diffs})
{{
    i64 i = place();
    if (i < size) {{ {copies} }}
}}
"""
