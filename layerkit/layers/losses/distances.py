"""Distances: SquareLoss, half the squared distance, and HuberLoss, which is not led by outliers."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.layers.losses.loss import Loss, rows
from layerkit.settings import NotNegative, Positive, Tops


class SquareLoss(Loss):
    """Half the squared distance, the sum of (x - target)^2 / 2 over each example.

    Shapes: bottoms x and target (n, ...), of one shape; top (n,).

    Args:
        weight: see Loss.

    Source: Caffe's EuclideanLoss and Mocha's SquareLossLayer.
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


class HuberLoss(Loss):
    """Sum of h(x - target) over each example: squares of small residuals, magnitudes of large ones.

        h(r) = r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2)

    With delta 1 this is also known as the smooth L1 loss.

    Shapes: bottoms x and target (n, ...), of one shape; top (n,).

    Args:
        delta: the largest residual that counts by its square, default 1.
        weight: see Loss.

    Source: Huber, "Robust estimation of a location parameter" (1964).
    """

    recordable = True

    def __init__(
        self,
        name: str,
        x: str,
        target: str,
        *,
        delta: Positive = 1.0,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [x, target], weight, tops)
        self.delta = delta

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute h = c (|r| - c / 2) with c the lesser of |r| and delta, summed."""
        size = self.xp.abs(rows(bottoms[0].data) - rows(bottoms[1].data))
        cut = self.xp.minimum(size, self.delta)
        self.xp.sum(cut * (size - 0.5 * cut), axis=1, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = r, cut to -delta..delta, and d target = -dx, times the top's diff."""
        xp, delta = self.xp, self.delta
        slope = xp.clip(rows(bottoms[0].data) - rows(bottoms[1].data), -delta, delta)
        scale = tops[0].diff[:, None]
        if bottoms[0].diff is not None:
            xp.multiply(scale, slope, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            xp.multiply(-scale, slope, out=rows(bottoms[1].diff))
