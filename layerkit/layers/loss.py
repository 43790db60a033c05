"""Loss: what the loss layers have in common."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.layer import Layer, Shape


class Loss(Layer):
    """A layer whose top is one loss per example, shape (n,); the net adds its weighted mean.

    Args:
        weight: factor of this loss in the objective, default 1; may be changed between passes
            (`net.layers["kl"].weight = 0.1`).
    """

    is_loss = True

    def __init__(
        self, name: str, bottoms: list[str], weight: float = 1.0, tops: str | None = None
    ):
        super().__init__(name, bottoms, tops)
        self.weight = weight

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that all bottoms have one shape; the top is one number per example."""
        if len(set(shapes)) != 1:
            self.fail(f"bottoms {', '.join(self.bottoms)} must have one shape, got {shapes}")
        return [()]


def rows(array: Array) -> Array:
    """(n, ...) as (n, size): what a loss sums over is the second axis."""
    return array.reshape(len(array), -1)
