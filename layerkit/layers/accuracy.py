"""Accuracy: how often the largest logit is the label's."""

from __future__ import annotations

import math

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.loss import check_labels, rows
from layerkit.settings import Count, Tops


class Accuracy(Layer):
    """Top-k accuracy: 1 if the label is among the `top` largest logits, else 0.

    Ties count as errors: a net whose logits are all equal, or not numbers, has accuracy 0.

    Shapes: bottoms logits (n, classes) and label (n,) or (n, 1); top (n,).  It has no gradient.
    The mean is in `net.metrics`.  A label that is no class raises a DataError, but makes the mean
    NaN in steps that a GPU replays.

    Args:
        top: how many guesses are allowed, default 1.
    """

    is_metric = True
    decided = (*Layer.decided, "top")

    def __init__(
        self, name: str, logits: str, label: str, *, top: Count = 1, tops: Tops | None = None
    ):
        super().__init__(name, [logits, label], tops)
        self.top = top

    def differentiable(self, bottom: int) -> bool:
        """Return False: accuracy is a step function."""
        return False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that there is one label per example; declare no parameters."""
        if math.prod(shapes[1]) != 1 or not shapes[0]:
            self.fail(f"expected logits (classes,) and one label per example, got {shapes}")
        if not 1 <= self.top <= math.prod(shapes[0]):
            self.fail(f"top must be from 1 to {math.prod(shapes[0])} (classes), got {self.top}")
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a label is no class."""
        check_labels(self, bottoms[1], math.prod(bottoms[0].shape))

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compare `top` with the number of logits not below the label's, its own included."""
        self.check_data(bottoms)
        self.count(bottoms, tops)

    def count(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do what `forward` does without checking the labels; one that is no class gives NaN."""
        logits, label = rows(bottoms[0].data), rows(bottoms[1].data)
        hot = label == self.xp.arange(logits.shape[1], dtype=label.dtype)
        own = self.xp.where(hot, logits, -math.inf).max(axis=1, keepdims=True)
        guessed = (~(logits < own)).sum(axis=1) <= self.top
        tops[0].data[...] = self.xp.where(hot.any(axis=1), guessed, math.nan)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: no bottom is differentiable."""
