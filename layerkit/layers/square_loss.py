"""SquareLoss: half the squared distance."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layers.loss import Loss, rows
from layerkit.settings import NotNegative, Tops


class SquareLoss(Loss):
    """Sum of (x - target)^2 / 2 over each example.

    Shapes: bottoms x and target (n, ...), of one shape; top (n,).
    """

    def __init__(
        self, name: str, x: str, target: str, *, weight: NotNegative = 1.0, tops: Tops | None = None
    ):
        super().__init__(name, [x, target], weight, tops)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute half the squared distance of each example."""
        difference = rows(bottoms[0].data) - rows(bottoms[1].data)
        tops[0].data[...] = 0.5 * (difference * difference).sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = x - target and d target = target - x, times the top's diff."""
        difference = rows(bottoms[0].data) - rows(bottoms[1].data)
        scale = tops[0].diff[:, None]
        if bottoms[0].diff is not None:
            self.xp.multiply(scale, difference, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            self.xp.multiply(-scale, difference, out=rows(bottoms[1].diff))
