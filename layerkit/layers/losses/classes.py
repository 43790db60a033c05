"""Classes: the axis of logits that counts classes, and labels, which name one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import axis_of


@dataclass(frozen=True)
class Classes:
    """Places of an example, each of which has one number for every class.

    Attributes:
        before, count, after: places before the classes, classes, and places after them in the
            order of memory.
        labels: shape of the labels of an example, one for each place.
    """

    before: int
    count: int
    after: int
    labels: Shape

    @property
    def places(self) -> int:
        """The number of labels of an example."""
        return self.before * self.after

    def split(self, logits: Array) -> Array:
        """Return (n, ...) as (n, before, count, after)."""
        return logits.reshape(len(logits), self.before, self.count, self.after)

    def beside(self, labels: Array) -> Array:
        """Return labels (n, ...) as (n, before, 1, after), or one per example as (n, 1, 1, 1)."""
        one = labels.size == len(labels) and self.places > 1
        return labels.reshape(len(labels), *((1, 1, 1) if one else (self.before, 1, self.after)))

    def fit(self, shape: Shape) -> bool:
        """Tell whether labels of an example may have this shape: that of the places, or alike."""
        single = math.prod(shape) == self.places == 1
        return single or tuple(s for s in shape if s > 1) == tuple(s for s in self.labels if s > 1)


def classes_of(layer: Layer, axis: int | None, shape: Shape) -> Classes:
    """Return the classes of logits, which are a layer's first bottom.

    Args:
        axis: counts the classes; None takes all numbers of an example for those of one place.
        shape: of an example's logits.

    Raises:
        NetError: there is no such axis.
    """
    if not shape:
        layer.fail(
            f"expected logits (classes,), got one number per example in {layer.bottoms[0]!r}"
        )
    if axis is None:
        return Classes(1, math.prod(shape), 1, ())
    axis = axis_of(layer, axis, shape, layer.bottoms[0])
    before, after = shape[:axis], shape[axis + 1 :]
    return Classes(math.prod(before), shape[axis], math.prod(after), (*before, *after))


def check_fit(layer: Layer, classes: Classes, shapes: list[Shape]) -> None:
    """Fail unless there is a label for each place of the logits.

    Args:
        shapes: of logits and labels.
    """
    if classes.fit(shapes[1]):
        return
    if classes.labels:
        layer.fail(f"expected labels {classes.labels} for logits {shapes[0]}, got {shapes[1]}")
    layer.fail(
        f"expected logits (classes,) and one label per example, got {shapes[0]} and {shapes[1]}; "
        "labels of several places need axis=, the axis of the logits that counts classes"
    )


def whole_below(xp: Any, values: Array, count: int) -> Array:
    """Tell which of the values are whole numbers from 0 to count - 1."""
    good = (values >= 0) & (values < count)
    return good if values.dtype.kind == "i" else good & (values == xp.floor(values))


def check_labels(
    layer: Layer, label: Blob, classes: int, ignore: int | None = None, kind: str = "class"
) -> None:
    """Fail if a label is no whole number from 0 to classes - 1, nor the one to be ignored.

    Args:
        layer: whose bottom `label` is.
        label: holds the labels, (n, ...).
        classes: how many there are.
        ignore: a label that is allowed as well, or None.
        kind: "class", or "id", for messages.

    Raises:
        DataError: names the layer, the row, its label and the number of classes.
    """
    values = label.data.reshape(-1)
    good = whole_below(layer.xp, values, classes)
    if ignore is not None:
        good |= values == ignore
    if not bool(good.all()):
        place = int(layer.xp.argmin(good))
        row, inner = divmod(place, values.size // len(label.data))
        where = f" at place {inner}" if values.size > len(label.data) else ""
        value = values[place].item()
        shown = value if isinstance(value, int) else f"{value:g}"
        labels, several = ("ids", "ids") if kind == "id" else ("labels", "classes")
        raise DataError(
            f"{layer.label()}: row {row} of {label.name!r} holds {shown}{where}, "
            f"which is no {kind}; {labels} are whole numbers from 0 to {classes - 1}, as there are "
            f"{classes} {several}" + ("" if ignore is None else f", or {ignore} to be ignored")
        )
