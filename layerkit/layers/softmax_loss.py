"""SoftmaxLoss: the cross entropy of a class label, from logits."""

from __future__ import annotations

import math

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.loss import WIDE, Loss, check_labels, rows
from layerkit.settings import NotNegative, Tops


class SoftmaxLoss(Loss):
    """loss = -log softmax(logits)[label], in nats.

    Shapes: bottoms logits (n, classes) and label (n,) or (n, 1), whole numbers from 0 to
    classes - 1; top (n,).  The label has no gradient.
    """

    def __init__(
        self, name: str, logits: str, label: str, *, weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [logits, label], weight, tops)

    def differentiable(self, bottom: int) -> bool:
        """Only the logits."""
        return bottom == 0

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that there is one label per example."""
        if math.prod(shapes[1]) != 1 or not shapes[0]:
            self.fail(f"expected logits (classes,) and one label per example, got {shapes}")
        self.probability = self.buffer((math.prod(shapes[0]),))
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail where a label is no class."""
        check_labels(self, bottoms[1], self.probability.shape[0])

    def _hot(self, bottoms: list[Blob]) -> Array:
        """One-hot labels, (n, classes)."""
        label = rows(bottoms[1].data)
        return label == self.xp.arange(self.probability.shape[0], dtype=label.dtype)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The cross entropy of each example; the largest logit is taken out first."""
        self.check_data(bottoms)
        xp, logits, probability = self.xp, rows(bottoms[0].data), self.probability.data
        shifted = logits - logits.max(axis=1, keepdims=True)
        xp.exp(shifted, out=probability)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        chosen = xp.where(self._hot(bottoms), shifted, -math.inf).max(axis=1)
        xp.subtract(xp.log(total[:, 0]), chosen, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """d logits = (softmax - one-hot label) times the top's diff."""
        if bottoms[0].diff is not None:
            difference = self.probability.data - self._hot(bottoms)
            self.xp.multiply(tops[0].diff[:, None], difference, out=rows(bottoms[0].diff))

    # With CUDA.

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The cross entropy of each example."""
        self._launch(bottoms, tops, None)

    def backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """d logits, and the loss over again."""
        self._launch(bottoms, tops, bottoms[0].diff)

    def forward_backward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and d logits at once."""
        self._launch(bottoms, tops, bottoms[0].diff)

    def _launch(self, bottoms: list[Blob], tops: list[Blob], diff: Array) -> None:
        device, logits = self.run.device, rows(bottoms[0].data)
        assert device is not None
        (count, classes), top = logits.shape, tops[0]
        lanes = cuda.THREADS if classes > WIDE else 32
        device.launch(
            CUDA, "softmax_loss", device.blocks(count * lanes), count, classes, lanes,
            bottoms[0].data, bottoms[1].data, None if diff is None else top.diff, top.data, diff,
        )


# CUDA.

CUDA = cuda.source(r"""
KERNEL softmax_loss(
    i64 rows, i64 classes, i64 lanes, const real* logits, const real* label, const real* scale,
    real* loss, real* dlogits)
{
    __shared__ real tops[THREADS];
    i64 row = place() / lanes;
    u32 lane = threadIdx.x % (u32)lanes, first = threadIdx.x - lane;
    real largest = log((real)0);  // minus infinity
    if (row < rows)
        for (i64 k = lane; k < classes; k += lanes) {
            real logit = logits[row * classes + k];
            largest = logit > largest ? logit : largest;
        }
    tops[threadIdx.x] = largest;
    __syncthreads();
    for (u32 other = 0; other < (u32)lanes; ++other)
        largest = tops[first + other] > largest ? tops[first + other] : largest;
    double sum = 0, chosen = 0, found = 0;
    if (row < rows)
        for (i64 k = lane; k < classes; k += lanes) {
            real shifted = logits[row * classes + k] - largest;
            sum += exp(shifted);
            if (label[row] == (real)k) {
                chosen = shifted;
                found = 1;
            }
        }
    sum = lanes_sum(sum, (u32)lanes);
    chosen = lanes_sum(chosen, (u32)lanes);
    found = lanes_sum(found, (u32)lanes);  // a label that is no class has a probability of zero
    if (row >= rows) return;
    if (lane == 0) loss[row] = (real)(log(sum) - (found > 0 ? chosen : log(0.0)));
    if (!dlogits) return;
    for (i64 k = lane; k < classes; k += lanes) {
        real p = (real)(exp(logits[row * classes + k] - largest) / sum);
        dlogits[row * classes + k] = scale[row] * (p - (label[row] == (real)k ? 1 : 0));
    }
}
""")
