"""SpatialTransform: a picture turned, scaled and shifted, with gradients for picture and pose; and
Taper: a picture that fades towards its border, so that it may be turned without edges."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.loss import rows
from layerkit.layers.pictures.pose import (
    LATENTS,
    PoseLayer,
    Side,
    Turns,
    normal_cdf,
    normal_density,
)
from layerkit.settings import Flag, Number, Positive, Tops


class SpatialTransform(PoseLayer):
    """Picture of an object in a given pose, from its canonical picture; or the inverse.

    Each pixel takes the value of the bottom picture at the place that the pose maps to it, by
    bilinear interpolation; beyond the picture its border values continue.  Values are kept, so an
    object that is enlarged has more light in total.  The gradient for the pose jumps where places
    cross the rows and columns of pixels.

    Shapes: bottoms picture (n, ...) of side * side numbers and pose (n, 1 to 4); top of the
    picture's shape.

    Args:
        inverse: True to make the canonical picture from that of an object in this pose, default
            False.
        side, turns, size_spread, shift_spread: see PoseLayer.

    Raises:
        NetError: a picture that is not of this side, or a pose of more than 4 numbers.

    Source: Jaderberg et al. (2015), "Spatial transformer networks", section 3.
    """

    def __init__(
        self,
        name: str,
        picture: str,
        pose: str,
        *,
        side: Side,
        inverse: Flag = False,
        turns: Turns = 1.0,
        size_spread: Positive = 0.3,
        shift_spread: Positive = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [picture, pose], side, turns, size_spread, shift_spread, tops)
        self.inverse = inverse

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes; declare buffers, but no parameters."""
        self.check_picture(shapes[0])
        if len(shapes[1]) != 1 or shapes[1][0] > LATENTS:
            self.fail(f"expected a pose (n, 1 to {LATENTS}): angle, size, x, y; got {shapes[1]}")
        self.maps = self.buffer((2, 3))  # places = map @ (x, y, 1), of the top's pixels
        self.map_diffs = self.buffer((2, 3))
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = sum of weight * pixel over the four neighbours of each place."""
        picture, y = rows(bottoms[0].data), rows(tops[0].data)
        self._make_maps(bottoms[1].data)
        _, _, corners = self._places(len(picture))
        y.fill(0)
        for place, weight in corners:
            y += weight * self.xp.take_along_axis(picture, place, axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Scatter dy by the weights of `forward`, and take it through the slopes to the pose."""
        xp, picture, dy = self.xp, rows(bottoms[0].data), rows(tops[0].diff)
        slope_x, slope_y, corners = self._places(len(picture))
        if bottoms[0].diff is not None:
            dx = rows(bottoms[0].diff)
            dx.fill(0)
            example = xp.arange(len(picture))[:, None]
            for place, weight in corners:
                xp.add.at(dx, (example, place), weight * dy)
        if bottoms[1].diff is not None:
            x, y = self._grid()
            for axis, slopes in enumerate((slope_x, slope_y)):
                d = (
                    sum(
                        slope * xp.take_along_axis(picture, place, axis=1)
                        for slope, (place, _) in zip(slopes, corners, strict=True)
                    )
                    * dy
                )
                for k, factor in enumerate((x, y, xp.ones_like(x))):
                    self.map_diffs.data[:, axis, k] = (d * factor).sum(axis=1)
            self._pose_diff(bottoms[1].data, bottoms[1].diff)

    def _grid(self) -> tuple[Array, Array]:
        """Return x and y of every pixel, from the middle."""
        line = self.xp.arange(self.side, dtype=self.run.dtype) - (self.side - 1) / 2
        return self.xp.tile(line, self.side), self.xp.repeat(line, self.side)

    def _places(self, n: int) -> tuple[list[Array], list[Array], list[tuple[Array, Array]]]:
        """Return, for the four neighbours of each place, the derivatives of their weights by x and
        by y, and (number of the pixel, weight)."""
        xp, last, maps = self.xp, self.side - 1, self.maps.data[:n, :, :, None]
        x, y = self._grid()
        corner, part, inside = [], [], []
        for axis in (0, 1):
            at = maps[:, axis, 0] * x + maps[:, axis, 1] * y + maps[:, axis, 2] + last / 2
            inside.append((at >= 0) & (at <= last))
            at = xp.clip(at, 0, last)
            corner.append(xp.minimum(xp.floor(xp.where(at > 0, at, 0)), last - 1))  # not NaN
            part.append(at - corner[axis])
        first = (corner[1] * self.side + corner[0]).astype("int64")
        (right, down), (in_x, in_y) = part, inside
        left, up = 1 - right, 1 - down
        places = [first, first + 1, first + self.side, first + self.side + 1]
        weights = [left * up, right * up, left * down, right * down]
        slope_x = [-up * in_x, up * in_x, -down * in_x, down * in_x]
        slope_y = [-left * in_y, -right * in_y, left * in_y, right * in_y]
        return slope_x, slope_y, list(zip(places, weights, strict=True))

    def _similarity(self, u: Array) -> tuple[Array, Array, Array, Array]:
        """Return a, b of the rotation and scaling [[a, -b], [b, a]] by a pose or its inverse, and
        the shift in pixels; in float64."""
        xp = self.xp
        u = xp.concatenate([u, xp.zeros((len(u), LATENTS - u.shape[1]))], axis=1, dtype="float64")
        angle = self.span * (normal_cdf(xp, u[:, 0]) - 0.5)
        scale = xp.exp(self.size_spread * u[:, 1])
        if not self.inverse:  # places of the canonical picture for pixels of the seen one
            angle, scale = -angle, 1 / scale
        shift = self.shift_spread * u[:, 2:]
        return scale * xp.cos(angle), scale * xp.sin(angle), shift[:, 0], shift[:, 1]

    def _make_maps(self, u: Array) -> None:
        """Set the maps from pixels of the top to places in the bottom."""
        a, b, x, y = self._similarity(u)
        maps = self.maps.data
        maps[:, 0, 0], maps[:, 0, 1] = a, -b
        maps[:, 1, 0], maps[:, 1, 1] = b, a
        if self.inverse:
            maps[:, 0, 2], maps[:, 1, 2] = x, y
        else:
            maps[:, 0, 2], maps[:, 1, 2] = b * y - a * x, -b * x - a * y

    def _pose_diff(self, u: Array, du: Array) -> None:
        """Compute the derivatives by the pose from those by the maps."""
        a, b, x, y = self._similarity(u)
        d: Any = self.map_diffs.data.astype("float64")
        da, db, dx, dy = d[:, 0, 0] + d[:, 1, 1], d[:, 1, 0] - d[:, 0, 1], d[:, 0, 2], d[:, 1, 2]
        if not self.inverse:
            da, db = da - x * dx - y * dy, db + y * dx - x * dy
            dx, dy = -a * dx - b * dy, b * dx - a * dy
        sign = 1 if self.inverse else -1
        u0 = u[:, 0].astype("float64")
        every = (
            sign * (a * db - b * da) * self.span * normal_density(self.xp, u0),
            sign * (a * da + b * db) * self.size_spread,
            self.shift_spread * dx,
            self.shift_spread * dy,
        )
        for k in range(du.shape[1]):
            du[:, k] = every[k]


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
