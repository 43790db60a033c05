"""SpatialTransform: turns, scales and shifts a picture, with gradients for picture and pose."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.backends.kernels import kernel, parallel_for
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.loss import rows
from layerkit.layers.pose import LATENTS, PoseLayer, Side, Turns, normal_cdf, normal_density
from layerkit.settings import Flag, Positive, Tops


class SpatialTransform(PoseLayer):
    """The picture of an object in the given pose, from its canonical picture; or the inverse.

    Each pixel takes the value of the bottom picture at the place that the pose maps to it, by
    bilinear interpolation; outside the picture its border goes on.  Values are kept, so an object
    that is made larger has more light in all.  The gradient for the pose jumps where places cross
    the rows and columns of pixels.

    Shapes: bottoms picture (n, ...) of side * side numbers and pose (n, 1 to 4); top like the
    picture.

    Args:
        inverse: whether to make the canonical picture from that of an object in this pose.
        side, turns, size_spread, shift_spread: see PoseLayer.

    Source: Jaderberg et al. (2015), "Spatial transformer networks", section 3.
    """

    def __init__(
        self, name: str, picture: str, pose: str, *, side: Side, inverse: Flag = False,
        turns: Turns = 1.0, size_spread: Positive = 0.3, shift_spread: Positive = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(
            name, [picture, pose], side, turns, size_spread, shift_spread, tops
        )
        self.inverse = inverse

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks the shapes; no parameters."""
        self.check_picture(shapes[0])
        if len(shapes[1]) != 1 or shapes[1][0] > LATENTS:
            self.fail(f"expected a pose (n, 1 to {LATENTS}): angle, size, x, y; got {shapes[1]}")
        self.maps = self.buffer((2, 3))  # places = map @ (x, y, 1), of the top's pixels
        self.map_diffs = self.buffer((2, 3))
        if self.run.team is not None:
            self.at = self.buffer((self.side,), "int32")
            self.part = self.buffer((4, self.side))
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """y = sum over the four neighbours of each place of weight * pixel."""
        picture, y = rows(bottoms[0].data), rows(tops[0].data)
        self._make_maps(bottoms[1].data)
        _, _, corners = self._places(len(picture))
        y.fill(0)
        for place, weight in corners:
            y += weight * self.xp.take_along_axis(picture, place, axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """d picture: dy scattered by the same weights; d pose: through the slopes at each place."""
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
                d = sum(
                    slope * xp.take_along_axis(picture, place, axis=1)
                    for slope, (place, _) in zip(slopes, corners, strict=True)
                ) * dy
                for k, factor in enumerate((x, y, xp.ones_like(x))):
                    self.map_diffs.data[:, axis, k] = (d * factor).sum(axis=1)
            self._pose_diff(bottoms[1].data, bottoms[1].diff)

    def _grid(self) -> tuple[Array, Array]:
        """x and y of every pixel, from the middle."""
        line = self.xp.arange(self.side, dtype=self.run.dtype) - (self.side - 1) / 2
        return self.xp.tile(line, self.side), self.xp.repeat(line, self.side)

    def _places(self, n: int) -> tuple[list[Array], list[Array], list[tuple[Array, Array]]]:
        """For the four neighbours of each place: derivatives of their weights by x and by y, and
        (number of the pixel, weight)."""
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
        """The rotation and scaling [[a, -b], [b, a]] that a pose, or its inverse, is, and the
        shift in pixels; in float64."""
        xp = self.xp
        u = xp.concatenate([u, xp.zeros((len(u), LATENTS - u.shape[1]))], axis=1, dtype="float64")
        angle = self.span * (normal_cdf(xp, u[:, 0]) - 0.5)
        scale = xp.exp(self.size_spread * u[:, 1])
        if not self.inverse:  # places of the canonical picture for pixels of the seen one
            angle, scale = -angle, 1 / scale
        shift = self.shift_spread * u[:, 2:]
        return scale * xp.cos(angle), scale * xp.sin(angle), shift[:, 0], shift[:, 1]

    def _make_maps(self, u: Array) -> None:
        """Where to look for the pixels of the top."""
        a, b, x, y = self._similarity(u)
        maps = self.maps.data
        maps[:, 0, 0], maps[:, 0, 1] = a, -b
        maps[:, 1, 0], maps[:, 1, 1] = b, a
        if self.inverse:
            maps[:, 0, 2], maps[:, 1, 2] = x, y
        else:
            maps[:, 0, 2], maps[:, 1, 2] = b * y - a * x, -b * x - a * y

    def _pose_diff(self, u: Array, du: Array) -> None:
        """From the derivatives by the maps to those by the pose."""
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
            self.shift_spread * dx, self.shift_spread * dy,
        )
        for k in range(du.shape[1]):
            du[:, k] = every[k]

    # With kernels.

    def forward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The picture, pixel by pixel."""
        assert self.run.team is not None
        self._make_maps(bottoms[1].data)
        resample(
            self.run.team.board, rows(bottoms[0].data), self.maps.data, self.side,
            rows(tops[0].data), self.at.data, self.part.data,
        )

    def backward_kernel(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Both diffs in one pass over the pixels."""
        assert self.run.team is not None
        picture, dy = rows(bottoms[0].data), rows(tops[0].diff)
        resample_backward(
            self.run.team.board, picture, self.maps.data, self.side, dy,
            picture[:0] if bottoms[0].diff is None else rows(bottoms[0].diff),
            self.map_diffs.data, self.at.data, self.part.data,
        )
        if bottoms[1].diff is not None:
            self._pose_diff(bottoms[1].data, bottoms[1].diff)


# Kernels.  Places are worked out for a row of pixels at a time, which vectorises; unsigned indices
# spare the test for negative ones.


@kernel
def _places_of_row(r, m, side, at, right, down, inside_x, inside_y):
    """Of row r: the number of the upper left neighbour of each place, how far right of and below
    it the place is, and 0 where the place is outside the picture along x, or y, else 1."""
    number = m.dtype.type
    zero, one, last, middle = number(0), number(1), number(side - 1), number((side - 1) / 2)
    most, width = np.int32(side - 2), np.int32(side)
    y = number(r) - middle
    x_step, y_step = m[0, 0], m[1, 0]
    x_row, y_row = m[0, 1] * y + m[0, 2] + middle, m[1, 1] * y + m[1, 2] + middle
    for c in range(side):
        x = number(c) - middle
        free_x, free_y = x_step * x + x_row, y_step * x + y_row
        at_x = min(free_x if free_x > zero else zero, last)  # 0 where it is NaN
        at_y = min(free_y if free_y > zero else zero, last)
        column, row = min(np.int32(at_x), most), min(np.int32(at_y), most)
        right[c] = at_x - number(column) + (free_x - free_x)  # NaN stays NaN
        down[c] = at_y - number(row) + (free_y - free_y)
        at[c] = row * width + column
        inside_x[c] = one if at_x == free_x else zero
        inside_y[c] = one if at_y == free_y else zero


@kernel
def _resample_piece(i, pictures, maps, side, tops, at, part):
    picture, spots, across, down = pictures[i], at[i], part[i, 0], part[i, 1]
    one, below = np.uint64(1), np.uint64(side)
    for r in range(side):
        _places_of_row(r, maps[i], side, spots, across, down, part[i, 2], part[i, 3])
        top = tops[i, r * side : (r + 1) * side]
        for c in range(side):
            k, x = np.uint64(spots[c]), across[c]
            a, b = picture[k], picture[k + one]
            d, e = picture[k + below], picture[k + below + one]
            above = a + x * (b - a)
            top[c] = above + down[c] * (d + x * (e - d) - above)


@kernel
def resample(team, pictures, maps, side, tops, at, part):
    """SpatialTransform.forward, given the maps; one example is a piece of work.

    at (n, side) and part (n, 4, side) are work space.
    """
    parallel_for(team, _resample_piece, len(pictures), (pictures, maps, side, tops, at, part))


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _resample_backward_piece(i, pictures, maps, side, dtops, dpictures, dmaps, at, part):
    number = pictures.dtype.type
    picture, wanted = pictures[i], len(dpictures) > 0
    spots, across, down, to_x, to_y = at[i], part[i, 0], part[i, 1], part[i, 2], part[i, 3]
    zero, middle = number(0), number((side - 1) / 2)
    one, below = np.uint64(1), np.uint64(side)
    dpicture = dpictures[i] if wanted else dtops[i]  # which is not written
    if wanted:
        dpicture[:] = 0
    dmaps[i] = 0
    for r in range(side):
        _places_of_row(r, maps[i], side, spots, across, down, to_x, to_y)
        dtop = dtops[i, r * side : (r + 1) * side]
        for c in range(side):
            k, x, y, d = np.uint64(spots[c]), across[c], down[c], dtop[c]
            if wanted:
                lower = y * d
                upper = d - lower
                dpicture[k] += upper - x * upper
                dpicture[k + one] += x * upper
                dpicture[k + below] += lower - x * lower
                dpicture[k + below + one] += x * lower
            a, b = picture[k], picture[k + one]
            e, f = picture[k + below], picture[k + below + one]
            top, bottom = b - a, f - e
            to_x[c] *= d * (top + y * (bottom - top))
            to_y[c] *= d * (e - a + x * (bottom - top))
        x_sum, x_moment, y_sum, y_moment = zero, zero, zero, zero
        for c in range(side):
            x = number(c) - middle
            x_sum += to_x[c]
            x_moment += to_x[c] * x
            y_sum += to_y[c]
            y_moment += to_y[c] * x
        y = number(r) - middle
        dmaps[i, 0, 0] += x_moment
        dmaps[i, 0, 1] += x_sum * y
        dmaps[i, 0, 2] += x_sum
        dmaps[i, 1, 0] += y_moment
        dmaps[i, 1, 1] += y_sum * y
        dmaps[i, 1, 2] += y_sum


@kernel
def resample_backward(team, pictures, maps, side, dtops, dpictures, dmaps, at, part):
    """Fills dmaps, and dpictures unless it has no rows."""
    parallel_for(team, _resample_backward_piece, len(pictures), (
        pictures, maps, side, dtops, dpictures, dmaps, at, part
    ))
