"""Axes of an example, counted without the batch axis, and shapes that are repeated along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from layerkit.backends.base import Array
from layerkit.layer import Layer, Shape
from layerkit.settings import LARGEST, Rule, Whole, whole


class Several(Rule):
    """Rule for an axis, or a tuple or list of axes."""

    expected = "an axis or a tuple of axes, which are whole numbers"

    def accept(self, value: Any) -> tuple[int, ...]:
        """Return a tuple of ints."""
        return tuple(map(whole, value if isinstance(value, tuple | list) else [value]))


Axis = Annotated[int, Whole(-LARGEST)]
Axes = Annotated[tuple[int, ...], Several()]


def axis_of(layer: Layer, axis: int, shape: Shape, bottom: str) -> int:
    """Return the number of an axis, which may be counted from the end, from 0 on.

    Args:
        layer: the layer that has the setting `axis`, for messages.
        axis: of an example, without the batch axis; negative numbers count from the last one.
        shape: of an example.
        bottom: name of the blob that has this shape.

    Raises:
        NetError: there is no such axis.
    """
    if not shape:
        layer.fail(
            f"its bottom {bottom!r}, of shape (), has one number per example, and no axis {axis}"
        )
    if not -len(shape) <= axis < len(shape):
        layer.fail(
            f"axis must be from {-len(shape)} to {len(shape) - 1}, as an example of {bottom!r} has "
            f"shape {shape}, got {axis}"
        )
    return axis % len(shape)


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """Return the shape that several have together, axes of size 1 repeated, or None.

    They fit together where sizes along each axis are equal or 1.  All must have as many axes: none
    is put in front, where the batch axis would be.
    """
    if len({len(shape) for shape in shapes}) != 1:
        return None
    sizes = [{*along} - {1} for along in zip(*shapes, strict=True)]
    if any(len(some) > 1 for some in sizes):
        return None
    return tuple(next(iter(some), 1) for some in sizes)


def add_to(xp: Any, diff: Array, values: Array) -> None:
    """Fill a diff with values, summed over the axes along which its blob was repeated."""
    repeated = tuple(
        axis
        for axis, (own, full) in enumerate(zip(diff.shape, values.shape, strict=True))
        if own == 1 != full
    )
    if repeated:
        xp.sum(values, axis=repeated, keepdims=True, out=diff)
    else:
        diff[...] = values
