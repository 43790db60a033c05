"""Loss: the base class of loss layers."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.layer import Layer, Shape
from layerkit.settings import NotNegative, Tops


class Loss(Layer):
    """A layer whose top is one loss per example, shape (n,); the net adds its weighted mean.

    Args:
        weight: factor of this loss in the objective, default 1; may be changed between passes
            (`net.layers["kl"].weight = 0.1`).
    """

    is_loss = True

    def __init__(
        self, name: str, bottoms: list[str], weight: NotNegative = 1.0, tops: Tops | None = None
    ):
        super().__init__(name, bottoms, tops)
        self.weight = weight

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that all bottoms have one shape; return (), one number per example."""
        if len(set(shapes)) != 1:
            self.fail(f"bottoms {', '.join(self.bottoms)} must have one shape, got {shapes}")
        return [()]


def rows(array: Array) -> Array:
    """Return (n, ...) as (n, size): losses sum over the second axis."""
    return array.reshape(len(array), -1)
