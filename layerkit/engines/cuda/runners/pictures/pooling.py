"""Pooling and GlobalPooling; see kernels/pictures/pooling.cu."""

from __future__ import annotations

from typing import Any

from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import KernelRunner


class Pooling(KernelRunner):
    """Windows of a picture, or one that is all of it."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        windows = layer.windows
        self.geometry = (
            *windows.kernel,
            *windows.stride,
            *windows.pad,
            *windows.grid,
            *layer.picture[1:],
        )

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the maxima and their places, or the means."""
        x, y, places = bottoms[0].data, tops[0].data, self.layer.places
        if places is None:
            self.each("pooling", "means_of_windows", y.size, *self.geometry, x, y)
        else:
            self.each("pooling", "largest_of_windows", y.size, *self.geometry, x, y, places.data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Gather the diff of each pixel from those of its windows."""
        dx, places = bottoms[0].diff, self.layer.places
        if dx is not None:
            self.each(
                "pooling",
                "gather_windows",
                dx.size,
                *self.geometry,
                tops[0].diff,
                None if places is None else places.data,
                dx,
            )
