"""Losses; see pixels.h."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner
from layerkit.layers.losses.loss import rows


class Reconstruction(KernelRunner):
    """A likelihood and its derivatives in one pass over the pixels."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        self._run(bottoms, tops, [NOTHING] * 4)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs, and the loss over again."""
        diffs = [NOTHING if b.diff is None else rows(b.diff) for b in bottoms]
        self._run(bottoms, tops, [*diffs, NOTHING][:4])

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.forward_backward = self.run_backward

    def settings(self) -> tuple[Any, ...]:
        """Return the settings of either likelihood."""
        layer = self.layer
        return layer.floor, getattr(layer, "degrees", None), getattr(layer, "constant", None)

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        raise NotImplementedError


class GaussianReconstruction(Reconstruction):
    """The likelihood of a normal distribution."""

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        top = tops[0]
        self.kernels.gaussian(
            *(rows(b.data) for b in bottoms),
            self.layer.floor,
            top.data if top.diff is None else top.diff,
            top.data,
            *diffs[:3],
        )


class StudentReconstruction(Reconstruction):
    """The likelihood of a skewed Student's t."""

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        layer, top = self.layer, tops[0]
        self.kernels.student(
            *[*(rows(b.data) for b in bottoms), NOTHING][:4],
            layer.floor,
            layer.degrees,
            layer.fold,
            layer.constant,
            top.data if top.diff is None else top.diff,
            top.data,
            *diffs,
        )


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
