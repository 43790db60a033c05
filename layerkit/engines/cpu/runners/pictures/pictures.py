"""Data, ImagePose and SpatialTransform; see pictures.h."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.blob import Blob
from layerkit.data.order import passages
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, flat_rows, or_nothing
from layerkit.layers.losses.loss import rows


class MemoryData(KernelRunner):
    """Rows that are gathered, turned and scaled in one pass."""

    recordable = False  # other rows in each pass
    integers = True

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the arrays hold numbers of a kind that kernels read, row by row.

        An array that stays in its file may be any view of it: in Fortran's order, or a field.
        """
        return layer.plain and not layer.prefetch and all(_readable(a) for a in layer.resident)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fill the tops with the next rows."""
        layer, run = self.layer, self.layer.run
        rows, filled = len(tops[0].data), 0
        for epoch, start, stop in passages(layer.position, rows, layer.count):
            index = layer.rows(epoch, start, stop)
            for i, (array, top) in enumerate(zip(layer.resident, tops, strict=True)):
                if top.name in layer.integer_blobs:
                    top.data[filled : filled + len(index)] = array[index].reshape(-1, *top.shape)
                    continue
                self.kernels.gather(
                    flat_rows(array),
                    index,
                    flat_rows(top.data),
                    filled,
                    layer.scale if i == 0 else 1.0,
                    layer.table if i == 0 and layer.augment else NOTHING,
                    run.seed % 2**64,
                    layer.stream,
                    run.passes,
                )
            filled += stop - start
        layer.position += rows

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: data do not depend on anything."""


class Pose(KernelRunner):
    """A layer that knows what the numbers of a pose mean."""

    def settings(self) -> tuple[Any, ...]:
        """Return the scales of the numbers of a pose."""
        return self.layer.span, self.layer.size_spread, self.layer.shift_spread


class ImagePose(Pose):
    """Sky, moments and what follows from them, picture by picture."""

    def settings(self) -> tuple[Any, ...]:
        """Return what decides where light begins, and the scales."""
        return self.layer.threshold, self.layer.size, *super().settings()

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Measure the poses."""
        side = self.layer.side
        images = bottoms[0].data.reshape(-1, side, side)
        self.kernels.measure_poses(images, *self.settings(), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the bottom is not differentiable."""


class SpatialTransform(Pose):
    """Pictures that are resampled pixel by pixel."""

    def settings(self) -> tuple[Any, ...]:
        """Return the scales, and the direction."""
        return *super().settings(), self.layer.inverse

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the resampled pictures."""
        layer, (picture, pose) = self.layer, bottoms
        self.kernels.resample(
            rows(picture.data),
            pose.data,
            layer.side,
            *self.settings(),
            layer.maps.data,
            rows(tops[0].data),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs in one pass over the pixels."""
        layer, (picture, pose) = self.layer, bottoms
        self.kernels.resample_backward(
            rows(picture.data),
            pose.data,
            layer.side,
            *self.settings(),
            layer.maps.data,
            rows(tops[0].diff),
            NOTHING if picture.diff is None else rows(picture.diff),
            or_nothing(pose.diff),
        )


def _readable(a: np.ndarray) -> bool:
    """Tell whether kernels can read the rows of an array."""
    return (
        a.dtype.isnative
        and a.dtype not in ("e", "g")
        and a.flags.aligned
        and a[0].flags.c_contiguous
        and a.strides[0] % a.itemsize == 0
    )
