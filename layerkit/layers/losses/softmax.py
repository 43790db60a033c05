"""Softmax, and SoftmaxLoss: the cross entropy of class labels, from logits."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.classes import check_fit, check_labels, classes_of, whole_below
from layerkit.layers.losses.loss import Loss
from layerkit.layers.shapes.axes import Axis
from layerkit.settings import LARGEST, NotNegative, Number, Numbers, Tops, Whole

Label = Annotated[int, Whole(-LARGEST)]
SUM_ERROR = 1e-3  # by which soft labels may miss the sum 1


class Softmax(Layer):
    """Probabilities y_c = exp(x_c) / (sum over classes k of exp(x_k)), which cannot overflow.

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        axis: axis of an example, without the batch axis, that counts the classes; the default,
            None, takes all numbers of an example.

    To train, give the logits to SoftmaxLoss instead, which is more precise.

    Raises:
        NetError: no such axis.

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs"
    (1990).
    """

    recordable = True
    decided = (*Layer.decided, "axis")

    def __init__(
        self, name: str, bottom: str, *, axis: Axis | None = None, tops: Tops | None = None
    ):
        super().__init__(name, [bottom], tops)
        self.axis = axis

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Find the classes; declare no parameters."""
        self.classes = classes_of(self, self.axis, shapes[0])
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the probabilities, of numbers less the largest of them."""
        x, y = (self.classes.split(blob.data) for blob in (bottoms[0], tops[0]))
        self.xp.exp(x - x.max(axis=2, keepdims=True), out=y)
        y /= y.sum(axis=2, keepdims=True)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = y (dy - sum over classes of dy y)."""
        if bottoms[0].diff is not None:
            y, dy, dx = map(self.classes.split, (tops[0].data, tops[0].diff, bottoms[0].diff))
            self.xp.subtract(dy, (dy * y).sum(axis=2, keepdims=True), out=dx)
            dx *= y


class SoftmaxLoss(Loss):
    """Cross entropy -log softmax(logits)[label], in nats, summed over the labels of an example.

    In general, with p = softmax(logits) over K classes, and the class probabilities q of a label,

        loss = - sum over labels and classes c of v w_c q'_c log p_c
        q' = (1 - smoothing) q + smoothing / K

    where q_c is 1 for the class that a label names, else 0, or is given as a soft label; w_c is the
    weight of the class, and v that of the label or example.  Nothing divides by the number of
    labels, nor by their weights: for a mean over the places of a picture, set `weight` to
    1 / places.

    Shapes: bottoms logits (n, ...) with an axis of K classes; labels, whole numbers from 0 to
    K - 1, of the same shape without that axis (or of size 1 there), or soft labels, probabilities
    of the logits' shape; and, if given, importance v, (n,) or of the labels' shape; top (n,).
    Without `axis`, logits (n, classes) and a label (n,) or (n, 1).  Labels that name a class, and
    importance, have no gradient; logits and soft labels have.

    Args:
        importance: the bottom that holds v, by default none.
        axis: axis of an example's logits, without the batch axis, that counts the classes: 0 for
            (n, classes, height, width) with labels (n, height, width), -1 for (n, steps, classes)
            with labels (n, steps).  The default, None, takes all numbers of an example for those
            of one label.
        ignore: a label that counts for nothing, such as -1 or 255; by default there is none.
        weights: w, a number for each class, by default 1.
        smoothing: how much of each label is spread over all classes, from 0 (default) to below 1.
        weight: see Loss.

    Raises:
        NetError: labels, importance or weights that do not fit the logits.
        DataError: a label that is no class, or a soft label that is no distribution.

    Source: Szegedy et al., "Rethinking the Inception architecture for computer vision" (2016),
    section 7, for smoothing.
    """

    decided = (*Loss.decided, "axis", "weights")

    def __init__(
        self,
        name: str,
        logits: str,
        label: str,
        importance: str | None = None,
        *,
        axis: Axis | None = None,
        ignore: Label | None = None,
        weights: Annotated[tuple[float, ...], Numbers(least=0)] | None = None,
        smoothing: Annotated[float, Number(least=0, below=1)] = 0.0,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        bottoms = [logits, label, *([] if importance is None else [importance])]
        super().__init__(name, bottoms, weight, tops)
        self.axis, self.ignore, self.weights, self.smoothing = axis, ignore, weights, smoothing
        self.soft = False  # until set up

    def differentiable(self, bottom: int) -> bool:
        """Return True for logits and soft labels, False for labels that name a class."""
        return bottom == 0 or (bottom == 1 and self.soft)

    def reads_integers(self, bottom: int) -> bool:
        """Return True for labels that name a class."""
        return bottom == 1 and not self.soft

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that there is a label for each place; declare no parameters."""
        self.classes = classes = classes_of(self, self.axis, shapes[0])
        self.soft = shapes[1] == shapes[0] and not classes.fit(shapes[1])
        if not self.soft:
            check_fit(self, classes, shapes)
        elif self.ignore is not None:
            self.fail(
                "ignore= names a label, and soft labels name none; give an importance of 0 instead"
            )
        if len(shapes) == 3 and math.prod(shapes[2]) != 1 and not classes.fit(shapes[2]):
            self.fail(
                f"importance must be one number per example or of the labels' shape "
                f"{classes.labels}, got {shapes[2]}"
            )
        if self.weights is not None:
            if len(self.weights) != classes.count:
                self.fail(
                    f"weights must be a number for each of {classes.count} classes, got "
                    f"{len(self.weights)}"
                )
            array = np.array(self.weights).reshape(-1, 1)
            self._weights = self.backend.asarray(array, self.run.dtype)
        self.probability = self.buffer((classes.before, classes.count, classes.after))
        return [()]

    @property
    def plain(self) -> bool:
        """True if each example has one label that names a class, and nothing else is asked for."""
        return (
            self.classes.places == 1
            and not self.soft
            and len(self.bottoms) == 2
            and self.ignore is None
            and self.weights is None
            and self.smoothing == 0
        )

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a label is no class, or a soft label no distribution."""
        label, count = bottoms[1], self.classes.count
        if not self.soft:
            check_labels(self, label, count, self.ignore)
        elif label.diff is None:  # rounding may push what is computed out of bounds
            q = self.classes.split(label.data)
            total = q.sum(axis=2)
            good = (q >= 0).all(axis=2) & (abs(total - 1) <= SUM_ERROR)
            good = good.reshape(len(q), -1).all(axis=1)
            if not bool(good.all()):
                row = int(self.xp.argmin(good))
                raise DataError(
                    f"{self.label()}: row {row} of {label.name!r} holds soft labels that are no "
                    f"probabilities of {count} classes, from 0 to 1 and with the sum 1"
                )

    def _target(self, bottoms: list[Blob]) -> Array:
        """Return v w_c q'_c of every class, (n, before, classes, after)."""
        xp, classes = self.xp, self.classes
        if self.soft:
            target = classes.split(bottoms[1].data)
        else:
            label = classes.beside(bottoms[1].data)
            numbers = xp.arange(classes.count, dtype=label.dtype)[:, None]
            target = (label == numbers).astype(self.run.dtype)
        if self.smoothing:
            target = (1 - self.smoothing) * target + self.smoothing / classes.count
        if self.ignore is not None:
            target = target * (label != self.ignore)
        return target * self._factor(bottoms)

    def _factor(self, bottoms: list[Blob]) -> Array | float:
        """Return v w_c, which broadcasts against (n, before, classes, after)."""
        factor: Array | float = 1.0 if self.weights is None else self._weights
        if len(bottoms) == 3:
            factor = factor * self.classes.beside(bottoms[2].data)
        return factor

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the cross entropy of each example, of logits less the largest of them."""
        self.check_data(bottoms)
        self.compute(bottoms, tops)

    def compute(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do what `forward` does without checking the labels; one that is no class gives NaN."""
        xp, classes = self.xp, self.classes
        logits, probability = classes.split(bottoms[0].data), self.probability.data
        shifted = logits - logits.max(axis=2, keepdims=True)
        xp.exp(shifted, out=probability)
        total = probability.sum(axis=2, keepdims=True)
        probability /= total
        target, information = self._target(bottoms), xp.log(total) - shifted  # -log p
        terms = xp.where(target != 0, target * information, 0)  # p may be 0
        losses = terms.sum(axis=2, keepdims=True)
        if not self.soft:
            label = classes.beside(bottoms[1].data)
            known = whole_below(xp, label, classes.count)
            if self.ignore is not None:
                known |= label == self.ignore
            losses = xp.where(known, losses, math.nan)
        xp.sum(losses.reshape(len(losses), -1), axis=1, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d logits = p (sum of targets) - target, with the target v w_c q'_c.

        The diff of soft labels is - (1 - smoothing) v w_c log p_c.  All is times the top's diff.
        """
        xp, scale = self.xp, tops[0].diff[:, None, None, None]
        if bottoms[0].diff is not None:
            target = self._target(bottoms)
            difference = self.probability.data * target.sum(axis=2, keepdims=True) - target
            xp.multiply(scale, difference, out=self.classes.split(bottoms[0].diff))
        if self.soft and bottoms[1].diff is not None:
            logits = self.classes.split(bottoms[0].data)
            shifted = logits - logits.max(axis=2, keepdims=True)
            information = xp.log(xp.exp(shifted).sum(axis=2, keepdims=True)) - shifted
            factor = (1 - self.smoothing) * scale * self._factor(bottoms)
            xp.multiply(factor, information, out=self.classes.split(bottoms[1].diff))
