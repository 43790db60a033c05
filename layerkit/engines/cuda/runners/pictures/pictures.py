"""ImagePose and SpatialTransform; see kernels/pictures/pictures.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import KernelRunner


def scale(layer: Any) -> tuple[np.float64, ...]:
    """Return the scales of the numbers of a pose, as kernels take them."""
    return tuple(np.float64(s) for s in (layer.span, layer.size_spread, layer.shift_spread))


class ImagePose(KernelRunner):
    """Sky, moments and what follows from them, a block for each picture."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Measure the poses."""
        layer, poses = self.layer, tops[0].data
        self.launch(
            "pictures",
            "measure_poses",
            len(poses),
            layer.side,
            np.float64(layer.threshold),
            np.float64(layer.size),
            *scale(layer),
            layer.latents,
            bottoms[0].data,
            poses,
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the bottom is not differentiable."""


class SpatialTransform(KernelRunner):
    """Pictures that are resampled pixel by pixel."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the resampled pictures."""
        layer, (picture, pose), top = self.layer, bottoms, tops[0].data
        self.launch(
            "pictures",
            "make_maps",
            self.blocks(len(top)),
            len(top),
            pose.shape[0],
            *scale(layer),
            int(layer.inverse),
            pose.data,
            layer.maps.data,
        )
        self.each("pictures", "resample", top.size, layer.side, layer.maps.data, picture.data, top)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs."""
        layer, (picture, pose), d = self.layer, bottoms, tops[0].diff
        if picture.diff is not None:
            self.each(
                "pictures",
                "resample_pictures",
                d.size,
                layer.side,
                layer.maps.data,
                d,
                picture.diff,
            )
        if pose.diff is not None:
            self.launch(
                "pictures",
                "resample_poses",
                len(d),
                layer.side,
                pose.shape[0],
                *scale(layer),
                int(layer.inverse),
                pose.data,
                layer.maps.data,
                picture.data,
                d,
                pose.diff,
            )
