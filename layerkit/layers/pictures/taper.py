"""Taper: pictures that fade to 0 towards their border."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.loss import rows
from layerkit.layers.pictures.pose import Side
from layerkit.settings import Number, Tops


class Taper(Layer):
    """Picture that fades to 0 towards the circle inscribed in it, and is 0 beyond: y = w x.

    With r the distance of a pixel from the middle, and R that of the middle of a side,

        w = 1                                                      for r <= flat R
        w = (1 + cos(pi (r - flat R) / (R - flat R))) / 2          for flat R < r < R
        w = 0                                                      for r >= R

    so that a picture that is turned afterwards shows no corners and no edges.

    Shapes: bottom (n, ...) of side * side numbers; top of the bottom's shape.

    Args:
        side: side of the square pictures, in pixels.
        flat: radius within which nothing changes, as a fraction of R, default 0.7.

    Raises:
        NetError: a picture that is not of this side.

    Source: the cosine-tapered (Tukey) window of Harris (1978), "On the use of windows for harmonic
    analysis with the discrete Fourier transform", section V.D, taken along the radius.
    """

    recordable = True
    decided = (*Layer.decided, "side", "flat")

    def __init__(
        self,
        name: str,
        picture: str,
        *,
        side: Side,
        flat: Annotated[float, Number(least=0, below=1)] = 0.7,
        tops: Tops | None = None,
    ):
        super().__init__(name, [picture], tops)
        self.side, self.flat = side, flat

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shape and compute the window; declare no parameters."""
        if math.prod(shapes[0]) != self.side**2:
            self.fail(
                f"expected pictures of {self.side} x {self.side} pixels (side), got {shapes[0]}"
            )
        line = np.arange(self.side) * 2 / (self.side - 1) - 1
        radius = np.hypot(line, line[:, None])
        fading = np.clip((radius - self.flat) / (1 - self.flat), 0, 1)
        window = (1 + np.cos(np.pi * fading)) / 2
        self.window = self.backend.asarray(window.reshape(-1), self.run.dtype)
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = w x."""
        self.xp.multiply(rows(bottoms[0].data), self.window, out=rows(tops[0].data))

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = w dy."""
        if bottoms[0].diff is not None:
            self.xp.multiply(rows(tops[0].diff), self.window, out=rows(bottoms[0].diff))
