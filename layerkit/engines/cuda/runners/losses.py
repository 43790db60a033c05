"""Losses and metrics; see kernels/losses.cu."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import KernelRunner, lanes
from layerkit.layers.losses.loss import rows


class Loss(KernelRunner):
    """A loss whose diffs come in the pass that computes its value; defines `run`."""

    @property
    def forward_backward(self) -> Any:
        """Return `run_backward`, which fills the top, too."""
        return self.run_backward

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each example."""
        self.run(bottoms, tops, [None] * len(bottoms))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs, and the loss over again."""
        self.run(bottoms, tops, [b.diff for b in bottoms])

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the loss, and the diffs that are wanted."""
        raise NotImplementedError


class Pairs(Loss):
    """A sum over pairs of numbers."""

    kernel: ClassVar[str]

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the sum of each example, and both diffs."""
        (count, size), top = rows(bottoms[0].data).shape, tops[0]
        self.launch(
            "losses",
            self.kernel,
            self.blocks(count * lanes(size)),
            count,
            size,
            lanes(size),
            *self.settings_of_kernel(),
            *(b.data for b in bottoms),
            top.diff,
            top.data,
            *diffs,
        )

    def settings_of_kernel(self) -> tuple[float, ...]:
        """Return what the kernel takes besides the pairs."""
        return ()


class SquareLoss(Pairs):
    """Half the squared distance."""

    kernel = "squared_distance"


class BinaryCrossEntropy(Pairs):
    """The cross entropy of Bernoulli variables."""

    kernel = "bernoulli_entropy"


class HuberLoss(Pairs):
    """Squares of small residuals, magnitudes of large ones."""

    kernel = "huber_distance"

    def settings_of_kernel(self) -> tuple[float, ...]:
        """Return the largest residual that counts by its square."""
        return (float(self.layer.delta),)


class SoftmaxLoss(Loss):
    """The cross entropy of a class; for other labels array code, which does not check them first:
    no GPU answers while it records.
    """

    integers = True

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the cross entropy of each example, and the diff of the logits."""
        if not self.layer.plain:
            self.layer.compute(bottoms, tops)
            if any(diff is not None for diff in diffs):
                self.layer.backward(bottoms, tops)
            return
        (count, classes), top = rows(bottoms[0].data).shape, tops[0]
        self.launch(
            "losses",
            "softmax_loss",
            self.blocks(count * lanes(classes)),
            count,
            classes,
            lanes(classes),
            bottoms[0].data,
            bottoms[1].data,
            top.diff,
            top.data,
            diffs[0],
            **({"LABEL": "i64"} if bottoms[1].integers else {}),
        )


class GaussianKL(Loss):
    """The divergence of two normal distributions."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the divergence of each example, and all diffs."""
        (count, size), top = rows(bottoms[0].data).shape, tops[0]
        four = [*(b.data for b in bottoms), None, None][:4]
        self.launch(
            "losses",
            "divergence",
            self.blocks(count * lanes(size)),
            count,
            size,
            lanes(size),
            *four,
            top.diff,
            top.data,
            *[*diffs, None, None][:4],
        )


class Reconstruction(Loss):
    """A likelihood, summed over the pixels."""

    kernel: ClassVar[str]
    takes_skew: ClassVar[bool] = False

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the negative log likelihood of each example, and the diffs."""
        layer, top, (count, pixels) = self.layer, tops[0], rows(bottoms[0].data).shape
        *held, skew, mask = layer.parts([b.data for b in bottoms])
        *wanted, by_skew, _ = layer.parts(diffs)
        self.launch(
            "losses",
            self.kernel,
            count,
            pixels,
            *self.settings_of_kernel(),
            *held,
            *([skew] if self.takes_skew else []),
            mask,
            float(layer.floor),
            np.float64(layer.constant),
            top.diff,
            top.data,
            *wanted,
            *([by_skew] if self.takes_skew else []),
        )

    def settings_of_kernel(self) -> tuple[float, ...]:
        """Return what the kernel takes besides pixels."""
        return ()


class GaussianReconstruction(Reconstruction):
    """The likelihood of a normal distribution."""

    kernel = "gaussian"


class StudentReconstruction(Reconstruction):
    """The likelihood of a skewed Student's t."""

    kernel = "student"
    takes_skew = True

    def settings_of_kernel(self) -> tuple[float, ...]:
        """Return degrees of freedom and E|T|."""
        return float(self.layer.degrees), float(self.layer.fold)


class Accuracy(KernelRunner):
    """Array code that does not look at the labels first: no GPU answers while it records."""

    integers = True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Count the logits that are not below the label's."""
        self.layer.count(bottoms, tops)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: no bottom is differentiable."""
