"""Pooling and GlobalPooling; see pooling.h."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner


class Pooling(KernelRunner):
    """Windows of a picture, or one that is all of it."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.geometry = np.array(layer.windows.numbers, np.int64)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the maxima and their places, or the means."""
        picture, top = self._shapes(bottoms[0])
        self.kernels.pool_windows(
            bottoms[0].data.reshape(picture),
            tops[0].data.reshape(top),
            self._places(),
            self.geometry,
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Give each dy to its largest pixel, or share it among all."""
        if bottoms[0].diff is not None:
            picture, top = self._shapes(bottoms[0])
            self.kernels.unpool_windows(
                tops[0].diff.reshape(top),
                self._places(),
                bottoms[0].diff.reshape(picture),
                self.geometry,
            )

    def _shapes(self, bottom: Blob) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of pictures, and of tops that have a place for each window."""
        (channels, *sizes), n = self.layer.picture, len(bottom.data)
        return (n, channels, *sizes), (n, channels, *self.layer.windows.grid)

    def _places(self) -> Array:
        places = self.layer.places
        return NOTHING if places is None else places.data
