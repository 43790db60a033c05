"""BinaryCrossEntropy: the cross entropy of Bernoulli variables, from their logits."""

from __future__ import annotations

from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layers.losses.loss import Loss, rows
from layerkit.settings import NotNegative, Tops


class BinaryCrossEntropy(Loss):
    """Sum of -[t log p + (1 - t) log(1 - p)] over each example, p = sigmoid(logit), in nats.

    Shapes: bottoms logit and target t in 0..1 (n, ...), of one shape; top (n,).

    It is computed as max(logit, 0) - logit * t + log(1 + exp(-|logit|)), which cannot overflow.

    Args:
        weight: see Loss.

    Raises:
        DataError: a target outside 0..1, unless it gets a gradient: rounding may push a computed
            target out.

    Source: Bishop, "Pattern recognition and machine learning" (2006), equation 4.90; Caffe's
    SigmoidCrossEntropyLoss.
    """

    def __init__(
        self,
        name: str,
        logit: str,
        target: str,
        *,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [logit, target], weight, tops)

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a target is no probability."""
        target = rows(bottoms[1].data)
        good = (target >= 0) & (target <= 1)
        if bottoms[1].diff is None and not bool(good.all()):
            row, place = divmod(int(self.xp.argmin(good)), target.shape[1])
            raise DataError(
                f"{self.label()}: row {row} of {bottoms[1].name!r} holds "
                f"{float(target[row, place]):g} at place {place}; targets are from 0 to 1"
            )

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the cross entropy of each example."""
        self.check_data(bottoms)
        logit, target = (rows(b.data) for b in bottoms)
        xp = self.xp
        terms = xp.maximum(logit, 0) - logit * target + xp.log1p(xp.exp(-xp.abs(logit)))
        xp.sum(terms, axis=1, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d logit = sigmoid(logit) - t and d target = -logit, times the top's diff."""
        logit, target = (rows(b.data) for b in bottoms)
        scale = tops[0].diff[:, None]
        if bottoms[0].diff is not None:
            sigmoid = 0.5 * (1 + self.xp.tanh(0.5 * logit))
            self.xp.multiply(scale, sigmoid - target, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            self.xp.multiply(-scale, logit, out=rows(bottoms[1].diff))
