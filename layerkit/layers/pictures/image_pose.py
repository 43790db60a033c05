"""ImagePose: position, orientation and size of an object, measured from moments of its light."""

from __future__ import annotations

from typing import Annotated

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.pictures.pose import LATENTS, WIDEST, PoseLayer, Side, Turns, normal_quantile
from layerkit.settings import NotNegative, Positive, Tops, Whole

ITERATIONS = 5
WINDOW = 2.0  # width of the window, in sizes
ROUND = 1e-5  # rounding that moments may have, relative to their size
TINY = 1e-12  # light that counts as none
FAINT = 1e-3  # total light below which an object counts as faint


class ImagePose(PoseLayer):
    """Measured pose of the object in the middle of a picture; no parameters, no gradient.

    The object is what exceeds the sky, the median of the outermost pixels, by more than
    `threshold` times their median absolute deviation; what exceeds that is its light.  Its moments
    are taken under a round Gaussian window, which moves to their centre and takes WINDOW times
    their size, ITERATIONS times over, so that neighbours count little.

        shift: the centre of light
        angle: that of the major axis; with `turns` above 1/2, that of its end with the longer
            tail, by the sign of the third moment
        size: sqrt of half the trace of the second moments, in pixels, over `size`

    Each number u is clipped to -3..3.  A round object, such as a single pixel, has angle 0.  A
    picture without light has u = 0, and a faint one is drawn towards it.

    Shapes: bottom (n, ...) of side * side numbers; top (n, latents).

    Args:
        latents: how many of angle, size, x and y to give, from the first on, 1 to 4, default 4.
        size: size of an object in the canonical picture, in pixels.
        threshold: see above, default 3.
        side, turns, size_spread, shift_spread: see PoseLayer.

    Raises:
        NetError: a bottom that is no square picture of this side.

    Source: Bernstein and Jarvis (2002), section 3, for windows that adapt (theirs are elliptical).
    """

    decided = (*PoseLayer.decided, "latents")

    def __init__(
        self,
        name: str,
        image: str,
        *,
        side: Side,
        size: Positive,
        latents: Annotated[int, Whole(1, LATENTS)] = LATENTS,
        threshold: NotNegative = 3.0,
        turns: Turns = 1.0,
        size_spread: Positive = 0.3,
        shift_spread: Positive = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [image], side, turns, size_spread, shift_spread, tops)
        self.size, self.threshold, self.latents = size, threshold, latents

    def differentiable(self, bottom: int) -> bool:
        """Return False: the pose is a measurement."""
        return False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shape; declare no parameters."""
        self.check_picture(shapes[0])
        return [(self.latents,)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Subtract the sky, and measure the pose of the light that is left."""
        image = bottoms[0].data.reshape(-1, self.side, self.side)
        light = self.xp.maximum(image - self._level(image)[:, None, None], 0)
        self._measure(light, tops[0].data)

    def _moments(self, light: Array, x: Array, y: Array, width: Array) -> Array:
        """Sum window * (Y - y)^i * (X - x)^j * light over each picture, for (n, 4, 4)."""
        by_row = self.xp.matmul(light, self._window(x, width).transpose(0, 2, 1))
        return self.xp.matmul(self._window(y, width), by_row)

    def _measure(self, light: Array, u: Array) -> None:
        """Fill u from moments under a window that moves to the light."""
        xp = self.xp
        x = y = xp.zeros(len(u))
        size = xp.full(len(u), self.size)
        for _ in range(ITERATIONS):
            moment = self._moments(light, x, y, WINDOW * size)
            total = moment[:, 0, 0] + FAINT
            dx, dy = moment[:, 0, 1] / total, moment[:, 1, 0] / total
            # Second moments about the centre of the light itself, lest its distance from the
            # window's count as its shape; the FAINT light added to each picture is round.
            mass = xp.maximum(moment[:, 0, 0], TINY)
            cx, cy = moment[:, 0, 1] / mass, moment[:, 1, 0] / mass
            xx = (moment[:, 0, 2] - cx * moment[:, 0, 1] + FAINT * self.size**2) / total
            yy = (moment[:, 2, 0] - cy * moment[:, 1, 0] + FAINT * self.size**2) / total
            xy = (moment[:, 1, 1] - cx * moment[:, 1, 0]) / total
            x, y = xp.clip(x + dx, *self._bounds()), xp.clip(y + dy, *self._bounds())
            size = xp.clip(xp.sqrt(xp.maximum(0.5 * (xx + yy), 0)), 0.5, self.side / 3)
        # Rounding must not decide which axis or which tail is the longer.
        spread = (moment[:, 0, 2] + moment[:, 2, 0]) / total
        is_round = xp.hypot(2 * xy, xx - yy) <= ROUND * spread
        angle = 0.5 * xp.arctan2(xp.where(is_round, 0, 2 * xy), xp.where(is_round, 1, xx - yy))
        if self.span > 3.1416:
            third = self._third(moment, mass, angle)
            angle = xp.where(third < -ROUND * (spread * total / mass) ** 1.5, angle + xp.pi, angle)
            angle = xp.where(angle > xp.pi, angle - 2 * xp.pi, angle)
        u0 = normal_quantile(xp, angle / self.span + 0.5)
        u1 = xp.log(size / self.size) / self.size_spread
        every = (u0, u1, x / self.shift_spread, y / self.shift_spread)
        for k in range(self.latents):
            u[:, k] = xp.clip(every[k], -WIDEST, WIDEST)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the bottom is not differentiable."""

    def _bounds(self) -> tuple[float, float]:
        return -self.side / 4, self.side / 4

    def _level(self, image: Array) -> Array:
        """Return the level that light is counted from, sky plus threshold * noise, (n,)."""
        xp = self.xp
        frame = xp.concatenate(
            [image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], axis=1
        )
        sky = xp.median(frame, axis=1)
        return sky + self.threshold * xp.median(xp.abs(frame - sky[:, None]), axis=1)

    def _window(self, centre: Array, width: Array) -> Array:
        """Return window * d^k, with d = distance from the centre, k = 0..3: (n, 4, side).

        A round Gaussian window is the product of one along x and one along y.
        """
        xp = self.xp
        d = xp.arange(self.side) - (self.side - 1) / 2 - centre[:, None]
        window = xp.exp(-0.5 * (d / width[:, None]) ** 2)
        return xp.stack([window, window * d, window * d**2, window * d**3], axis=1)

    def _third(self, moment: Array, mass: Array, angle: Array) -> Array:
        """Return the third moment along the axis, about the centre of light, (n,)."""
        xp = self.xp
        c, s = xp.cos(angle), xp.sin(angle)
        first = (c * moment[:, 0, 1] + s * moment[:, 1, 0]) / mass
        second = c * c * moment[:, 0, 2] + 2 * c * s * moment[:, 1, 1] + s * s * moment[:, 2, 0]
        third = (
            c**3 * moment[:, 0, 3]
            + 3 * c * c * s * moment[:, 1, 2]
            + 3 * c * s * s * moment[:, 2, 1]
            + s**3 * moment[:, 3, 0]
        )
        return third / mass - 3 * first * second / mass + 2 * first**3
