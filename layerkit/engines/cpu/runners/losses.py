"""Losses, Softmax and Accuracy; see drivers/losses."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, or_nothing
from layerkit.layers.losses.loss import rows


class Loss(KernelRunner):
    """A loss whose diffs come in the pass that computes its value; defines `run`."""

    @property
    def forward_backward(self) -> Any:
        """Return `run_backward`, which fills the top, too."""
        return self.run_backward

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each example."""
        self.layer.check_data(bottoms)  # kernels look as well, but cannot say what is wrong
        self.run(bottoms, tops, [NOTHING] * len(bottoms))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs, and the loss over again."""
        self.layer.check_data(bottoms)
        wanted = map(self.layer.differentiable, range(len(bottoms)))
        pairs = zip(bottoms, wanted, strict=True)
        self.run(bottoms, tops, [or_nothing(b.diff) if diff else NOTHING for b, diff in pairs])

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the loss, and the diffs that are wanted; no others have elements."""
        raise NotImplementedError


class Pairs(Loss):
    """A sum over pairs of numbers."""

    integers = True  # of a class
    kinds: ClassVar[dict[type, tuple[int, str | None]]] = {  # as in pairs.h; the setting
        L.SquareLoss: (0, None),
        L.BinaryCrossEntropy: (1, None),
        L.HuberLoss: (2, "delta"),
        L.HingeLoss: (3, "margin"),  # 4, if squared
    }

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether integers, if there are any, are classes."""
        return not layer.integer_blobs or getattr(layer, "by_class", False)

    def settings(self) -> tuple[Any, ...]:
        """Return the number of the loss, and its setting."""
        kind, setting = self.kinds[type(self.layer)]
        squared = getattr(self.layer, "squared", False)
        return kind + squared, float(getattr(self.layer, setting)) if setting else 0.0

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the sum of each example, and the diffs."""
        x, target = bottoms
        scale = or_nothing(tops[0].diff)
        arrays = x.data, target.data, scale, tops[0].data
        checked = target.diff is None or not self.layer.differentiable(1)
        self.kernels.pair_loss(*self.settings(), checked, *arrays, *diffs)


class ContrastiveLoss(Loss):
    """Similar pairs brought together, others kept apart."""

    integers = True

    def settings(self) -> tuple[Any, ...]:
        """Return the margin."""
        return (self.layer.margin,)

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the loss of each pair, and the diffs."""
        self.kernels.contrastive(
            *(b.data for b in bottoms),
            self.layer.margin,
            or_nothing(tops[0].diff),
            tops[0].data,
            *diffs[:2],
        )


def by_class(layer: Any, array: Array) -> Array:
    """Return an array as (outer, classes, after)."""
    return array.reshape(-1, layer.classes.count, layer.classes.after)


def ignored(layer: Any) -> float:
    """Return the label that counts for nothing, or a NaN, which no label is."""
    return math.nan if layer.ignore is None else float(layer.ignore)


class SoftmaxLoss(Loss):
    """The cross entropy of labels, places by places."""

    integers = True

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        weights = layer.weights
        self.weights = NOTHING if weights is None else np.array(weights, "float64")

    def settings(self) -> tuple[Any, ...]:
        """Return what is done to labels."""
        return self.layer.ignore, self.layer.smoothing

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the loss of each example, and the diffs of logits and soft labels."""
        layer, (logits, label) = self.layer, bottoms[:2]
        self.kernels.softmax_loss(
            by_class(layer, logits.data),
            label.data,
            bottoms[2].data if len(bottoms) == 3 else NOTHING,
            self.weights,
            ignored(layer),
            layer.smoothing,
            label.diff is None,
            or_nothing(tops[0].diff),
            tops[0].data,
            *diffs[:2],
        )


class Accuracy(KernelRunner):
    """Counts of the logits that are not below the label's."""

    integers = True

    def settings(self) -> tuple[Any, ...]:
        """Return the label that does not count."""
        return (self.layer.ignore,)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the share of the labels of each example that are right."""
        layer, (logits, label) = self.layer, bottoms
        layer.check_data(bottoms)
        arrays = by_class(layer, logits.data), label.data
        self.kernels.accuracy(*arrays, ignored(layer), layer.top, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: no bottom is differentiable."""


class Softmax(KernelRunner):
    """Probabilities, places by places."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the probabilities."""
        x, y = (by_class(self.layer, b.data) for b in (bottoms[0], tops[0]))
        self.kernels.softmax(x, y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = y (dy - sum over classes of dy y)."""
        if bottoms[0].diff is not None:
            arrays = tops[0].data, tops[0].diff, bottoms[0].diff
            self.kernels.softmax_backward(*(by_class(self.layer, a) for a in arrays))


class Reconstruction(Loss):
    """A likelihood and its derivatives in one pass over the pixels."""

    def settings(self) -> tuple[Any, ...]:
        """Return the settings of either likelihood."""
        layer = self.layer
        return layer.floor, getattr(layer, "degrees", None), getattr(layer, "constant", None)

    def parts(self, bottoms: list[Blob], diffs: list[Array]) -> tuple[list[Array], list[Array]]:
        """Return what x, mean, log-variance, skew and mask hold, and the diffs of all but the mask.

        Those that are not there, or not wanted, have no elements.
        """
        held = self.layer.parts([rows(b.data) for b in bottoms])
        wanted = self.layer.parts([_rows(diff) for diff in diffs])
        return [or_nothing(a) for a in held], [or_nothing(a) for a in wanted[:4]]


class GaussianReconstruction(Reconstruction):
    """The likelihood of a normal distribution."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the negative log likelihood of each example, and the diffs."""
        top, (arrays, wanted) = tops[0], self.parts(bottoms, diffs)
        x, mean, log_variance, _, mask = arrays
        scale = top.data if top.diff is None else top.diff
        self.kernels.gaussian(
            *(x, mean, log_variance, mask, self.layer.floor, scale, top.data), *wanted[:3]
        )


class StudentReconstruction(Reconstruction):
    """The likelihood of a skewed Student's t."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        """Compute the negative log likelihood of each example, and the diffs."""
        layer, top, (arrays, wanted) = self.layer, tops[0], self.parts(bottoms, diffs)
        settings = layer.floor, layer.degrees, layer.fold, layer.constant
        scale = top.data if top.diff is None else top.diff
        self.kernels.student(*arrays, *settings, scale, top.data, *wanted)


class GaussianKL(KernelRunner):
    """The divergence of two normal distributions."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the divergence of each example."""
        self.kernels.divergence(*self._four(bottoms), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all diffs at once."""
        diffs = [NOTHING if b.diff is None else rows(b.diff) for b in bottoms]
        self.kernels.divergence_backward(
            *self._four(bottoms), tops[0].diff, *[*diffs, NOTHING, NOTHING][:4]
        )

    def _four(self, bottoms: list[Blob]) -> list[Array]:
        """Return the bottoms, without a prior the last two with no rows."""
        return [*(rows(b.data) for b in bottoms), NOTHING, NOTHING][:4]


def _rows(diff: Array) -> Array:
    return rows(diff) if diff.size else diff
