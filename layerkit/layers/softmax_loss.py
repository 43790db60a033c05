"""SoftmaxLoss: the cross entropy of a class label, from logits."""

from __future__ import annotations

import math

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.loss import Loss, check_labels, rows
from layerkit.settings import NotNegative, Tops


class SoftmaxLoss(Loss):
    """Cross entropy -log softmax(logits)[label], in nats.

    Shapes: bottoms logits (n, classes) and label (n,) or (n, 1), whole numbers from 0 to
    classes - 1; top (n,).  The label has no gradient.
    """

    def __init__(
        self,
        name: str,
        logits: str,
        label: str,
        *,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [logits, label], weight, tops)

    def differentiable(self, bottom: int) -> bool:
        """Return True for the logits, False for the label."""
        return bottom == 0

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that there is one label per example; declare no parameters."""
        if math.prod(shapes[1]) != 1 or not shapes[0]:
            self.fail(f"expected logits (classes,) and one label per example, got {shapes}")
        self.probability = self.buffer((math.prod(shapes[0]),))
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a label is no class."""
        check_labels(self, bottoms[1], self.probability.shape[0])

    def _hot(self, bottoms: list[Blob]) -> Array:
        """Return one-hot labels, (n, classes)."""
        label = rows(bottoms[1].data)
        return label == self.xp.arange(self.probability.shape[0], dtype=label.dtype)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the cross entropy of each example, of logits less the largest of them."""
        self.check_data(bottoms)
        xp, logits, probability = self.xp, rows(bottoms[0].data), self.probability.data
        shifted = logits - logits.max(axis=1, keepdims=True)
        xp.exp(shifted, out=probability)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        chosen = xp.where(self._hot(bottoms), shifted, -math.inf).max(axis=1)
        xp.subtract(xp.log(total[:, 0]), chosen, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d logits = (softmax - one-hot label) times the top's diff."""
        if bottoms[0].diff is not None:
            difference = self.probability.data - self._hot(bottoms)
            self.xp.multiply(tops[0].diff[:, None], difference, out=rows(bottoms[0].diff))
