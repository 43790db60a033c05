"""Accuracy: how often the largest logit is the label's."""

from __future__ import annotations

import math

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.loss import rows
from layerkit.settings import Count, Tops


class Accuracy(Layer):
    """1 where the label is among the `top` largest logits, else 0; the net reports the mean.

    A tie counts against: a net whose logits are all equal, or not numbers, has accuracy 0.

    Shapes: bottoms logits (n, classes) and label (n,) or (n, 1); top (n,).  It has no gradient.
    The mean is in `net.metrics`.

    Args:
        top: how many guesses are allowed, default 1.
    """

    is_metric = True

    recordable = True

    def __init__(
        self, name: str, logits: str, label: str, *, top: Count = 1,
        tops: Tops | None = None,
    ):
        super().__init__(name, [logits, label], tops)
        self.top = top

    def differentiable(self, bottom: int) -> bool:
        """It is a step function."""
        return False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that there is one label per example."""
        if math.prod(shapes[1]) != 1 or not shapes[0]:
            self.fail(f"expected logits (classes,) and one label per example, got {shapes}")
        if not 1 <= self.top <= math.prod(shapes[0]):
            self.fail(f"top must be from 1 to {math.prod(shapes[0])} (classes), got {self.top}")
        return [()]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Counts the logits that are not below the label's, its own among them."""
        logits, label = rows(bottoms[0].data), rows(bottoms[1].data)
        hot = label == self.xp.arange(logits.shape[1], dtype=label.dtype)
        own = self.xp.where(hot, logits, -math.inf).max(axis=1, keepdims=True)
        tops[0].data[...] = (~(logits < own)).sum(axis=1) <= self.top

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Nothing: no bottom is differentiable."""
