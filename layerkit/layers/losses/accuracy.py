"""Accuracy: how often the largest logit is the label's."""

from __future__ import annotations

import math
from typing import Any

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.classes import check_fit, check_labels, classes_of
from layerkit.layers.losses.softmax import Label
from layerkit.layers.shapes.axes import Axis
from layerkit.settings import Count, Tops


class Accuracy(Layer):
    """Top-k accuracy: 1 if the label is among the `top` largest logits, else 0.

    If an example has several labels, its value is their mean.  Labels to be ignored take no part:
    an example's value is then the number of its labels that are right, divided by the mean number
    over the batch of labels that count, so that the batch's mean is the fraction that is right of
    all labels that count; it is not a number if none does.  `Net.evaluate` weighs batches by the
    labels that count, and so gives the fraction over a whole set.

    Ties count as errors: a net whose logits are all equal, or not numbers, has accuracy 0.

    Shapes: bottoms logits (n, ...) with an axis of classes, and labels of the same shape without
    that axis, or of size 1 there; top (n,).  Without `axis`, logits (n, classes) and a label (n,)
    or (n, 1).  It has no gradient.  The mean is in `net.metrics`.

    Args:
        top: how many guesses are allowed, default 1.
        axis: axis of an example's logits, without the batch axis, that counts the classes; the
            default, None, takes all numbers of an example for those of one label.
        ignore: a label that does not count, such as -1 or 255; by default there is none.

    Raises:
        NetError: labels that do not fit the logits, or more guesses than classes.
        DataError: a label that is no class; in steps that a GPU replays it makes the mean NaN.

    Source: Caffe's Accuracy layer; Russakovsky et al. (2015), for several guesses.
    """

    is_metric = True
    decided = (*Layer.decided, "top", "axis")

    def __init__(
        self,
        name: str,
        logits: str,
        label: str,
        *,
        top: Count = 1,
        axis: Axis | None = None,
        ignore: Label | None = None,
        tops: Tops | None = None,
    ):
        super().__init__(name, [logits, label], tops)
        self.top, self.axis, self.ignore = top, axis, ignore

    def differentiable(self, bottom: int) -> bool:
        """Return False: accuracy is a step function."""
        return False

    def reads_integers(self, bottom: int) -> bool:
        """Return True for the label."""
        return bottom == 1

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that there is a label for each place; declare no parameters."""
        self.classes = classes_of(self, self.axis, shapes[0])
        check_fit(self, self.classes, shapes)
        if not 1 <= self.top <= self.classes.count:
            self.fail(f"top must be from 1 to {self.classes.count} (classes), got {self.top}")
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a label is no class."""
        check_labels(self, bottoms[1], self.classes.count, self.ignore)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compare `top` with the number of logits not below the label's, its own included."""
        self.check_data(bottoms)
        self.count(bottoms, tops)

    def count(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do what `forward` does without checking the labels; one that is no class gives NaN."""
        xp, classes = self.xp, self.classes
        logits, label = classes.split(bottoms[0].data), classes.beside(bottoms[1].data)
        hot = label == xp.arange(classes.count, dtype=label.dtype)[:, None]
        own = xp.where(hot, logits, -math.inf).max(axis=2, keepdims=True)
        guessed = (~(logits < own)).sum(axis=2) <= self.top
        right = xp.where(hot.any(axis=2), guessed, math.nan)
        counted = classes.places
        if self.ignore is not None:
            right = xp.where((label != self.ignore)[:, :, 0], right, 0)
            counted = self.counted(label) / len(label)
        tops[0].data[...] = right.reshape(len(label), -1).sum(axis=1) / counted

    def counted(self, label: Any) -> Any:
        """Return how many of the labels, in an array of any shape, are not to be ignored."""
        return label.size if self.ignore is None else (label != self.ignore).sum()

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: no bottom is differentiable."""
