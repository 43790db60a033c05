"""Margins: losses that are 0 for what is far enough on its side, HingeLoss and ContrastiveLoss."""

from __future__ import annotations

import math

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layer import Shape
from layerkit.layers.losses.classes import check_labels
from layerkit.layers.losses.loss import Loss, rows
from layerkit.settings import Flag, NotNegative, Positive, Tops


class HingeLoss(Loss):
    """Hinge loss, the sum of max(0, margin - t x) over each example, or of its square.

    The signs t, -1 or 1, are given themselves, or by a class: t is then 1 for the score of that
    class and -1 for all others, as for support vector machines of one class against the rest.

    Shapes: bottoms scores x (n, ...) and label, either signs of the same shape, or, for more scores
    than one, a class (n,) or (n, 1), whole numbers from 0; top (n,).  The label has no gradient,
    and where t x = margin that of the scores is 0.

    Args:
        margin: the t x from which a score costs nothing, default 1.
        squared: True for the squares, which cost much where a score is far on the wrong side, and
            have no kink; False by default.
        weight: see Loss.

    Raises:
        NetError: labels that do not fit the scores.
        DataError: a label that is no sign, or no class.  On a GPU such a label makes the loss NaN.

    Source: Cortes and Vapnik, "Support-vector networks" (1995); Rifkin and Klautau, "In defense of
    one-vs-all classification" (2004).
    """

    recordable = True

    def __init__(
        self,
        name: str,
        scores: str,
        label: str,
        *,
        margin: Positive = 1.0,
        squared: Flag = False,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [scores, label], weight, tops)
        self.margin, self.squared = margin, squared

    def differentiable(self, bottom: int) -> bool:
        """Return True for the scores, False for the label."""
        return bottom == 0

    def reads_integers(self, bottom: int) -> bool:
        """Return True for the label."""
        return bottom == 1

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that there are signs, or a class; declare no parameters."""
        self.size = math.prod(shapes[0])
        self.by_class = math.prod(shapes[1]) == 1 < self.size
        if not self.by_class and shapes[0] != shapes[1] and self.size != math.prod(shapes[1]):
            self.fail(
                f"expected signs of the scores' shape {shapes[0]}, or one class per example, got "
                f"{shapes[1]}"
            )
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a label is no class, or no sign."""
        if self.by_class:
            check_labels(self, bottoms[1], self.size)
            return
        check_values(self, bottoms[1], (-1, 1), "signs")

    def _signs(self, bottoms: list[Blob]) -> Array:
        """Return t, (n, size); not a number where a label is neither sign nor class."""
        xp, label, dtype = self.xp, rows(bottoms[1].data), self.run.dtype
        if not self.by_class:
            return xp.where(xp.abs(label) == 1, label, math.nan).astype(dtype, copy=False)
        hot = label == xp.arange(self.size, dtype=label.dtype)
        signs = xp.where(hot.any(axis=1, keepdims=True), xp.where(hot, 1, -1), math.nan)
        return signs.astype(dtype, copy=False)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each example."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        short = self.xp.maximum(self.margin - self._signs(bottoms) * rows(bottoms[0].data), 0)
        self.xp.sum(short * short if self.squared else short, axis=1, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = -t, or -2 t (margin - t x), where t x < margin, times the top's diff."""
        if bottoms[0].diff is not None:
            signs = self._signs(bottoms)
            short = self.margin - signs * rows(bottoms[0].data)
            slope = signs * (2 * short if self.squared else 1) * (short > 0)
            self.xp.multiply(-tops[0].diff[:, None], slope, out=rows(bottoms[0].diff))


class ContrastiveLoss(Loss):
    """Contrastive loss, which brings similar pairs together and keeps others a margin apart.

        loss = [s d^2 + (1 - s) max(0, margin - d)^2] / 2

    with d the Euclidean distance of a and b, and s 1 for a pair that is similar, else 0, as in
    Caffe (Y = 1 - s in the paper).  A pair that is not similar and coincides, d = 0, has no
    direction to be driven apart in, and a gradient of 0.

    Shapes: bottoms a and b (n, ...), of one shape, and similar (n,) or (n, 1); top (n,).  `similar`
    has no gradient.

    Args:
        margin: the distance from which pairs that are not similar cost nothing, default 1.
        weight: see Loss.

    Raises:
        NetError: points of different shapes, or more than one number per pair in `similar`.
        DataError: a number in `similar` other than 0 and 1.  On a GPU it makes the loss NaN.

    Source: Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping"
    (2006), equation 4.
    """

    recordable = True

    def __init__(
        self,
        name: str,
        a: str,
        b: str,
        similar: str,
        *,
        margin: Positive = 1.0,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [a, b, similar], weight, tops)
        self.margin = margin

    def differentiable(self, bottom: int) -> bool:
        """Return True for both points, False for whether they are similar."""
        return bottom < 2

    def reads_integers(self, bottom: int) -> bool:
        """Return True for whether they are similar."""
        return bottom == 2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the points have one shape; declare no parameters."""
        if shapes[0] != shapes[1] or math.prod(shapes[2]) != 1:
            self.fail(f"expected a and b of one shape and one number per example, got {shapes}")
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if a number in `similar` is neither 0 nor 1."""
        check_values(self, bottoms[2], (0, 1), "pairs are similar or not")

    def _distances(self, bottoms: list[Blob]) -> tuple[Array, Array, Array]:
        """Return a - b (n, size), d (n, 1), and s (n, 1), not a number where it is none."""
        xp, s = self.xp, rows(bottoms[2].data)
        difference = rows(bottoms[0].data) - rows(bottoms[1].data)
        d = xp.sqrt((difference * difference).sum(axis=1, keepdims=True))
        s = xp.where((s == 0) | (s == 1), s, math.nan).astype(d.dtype, copy=False)
        return difference, d, s

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each pair."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        _, d, s = self._distances(bottoms)
        short = self.xp.maximum(self.margin - d, 0)
        tops[0].data[...] = (0.5 * (s * d * d + (1 - s) * short * short))[:, 0]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da = [s - (1 - s) max(0, margin - d) / d] (a - b) and db = -da.

        Both are times the top's diff.
        """
        xp, (difference, d, s) = self.xp, self._distances(bottoms)
        apart = xp.maximum(self.margin - d, 0) / xp.where(d > 0, d, 1)
        slope = (s - (1 - s) * apart) * difference
        scale = tops[0].diff[:, None]
        if bottoms[0].diff is not None:
            xp.multiply(scale, slope, out=rows(bottoms[0].diff))
        if bottoms[1].diff is not None:
            xp.multiply(-scale, slope, out=rows(bottoms[1].diff))


def check_values(layer: Loss, blob: Blob, allowed: tuple[int, int], what: str) -> None:
    """Fail if a blob holds anything but the two numbers allowed.

    Raises:
        DataError: names the layer, the row and the number.
    """
    values = rows(blob.data)
    good = (values == allowed[0]) | (values == allowed[1])
    if not bool(good.all()):
        row, place = divmod(int(layer.xp.argmin(good)), values.shape[1])
        raise DataError(
            f"{layer.label()}: row {row} of {blob.name!r} holds {values[row, place].item():g}; "
            f"{what}, {allowed[0]} or {allowed[1]}"
        )
