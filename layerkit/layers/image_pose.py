"""ImagePose: where an object is, which way it lies and how large it is, from moments of light."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.pose import LATENTS, WIDEST, PoseLayer, normal_quantile

ITERATIONS = 5
WINDOW = 2.0  # width of the window, in sizes
FAINT = 1e-3  # light, in all, next to which an object counts as faint


class ImagePose(PoseLayer):
    """The pose of the object in the middle of a picture, measured; no parameters, no gradient.

    The object is what exceeds the sky, the median of the outermost pixels, by more than
    `threshold` times their median absolute deviation; what exceeds that is its light.  Its moments
    are taken under a round Gaussian window, which moves to their centre and takes WINDOW times
    their size, ITERATIONS times over, so that neighbours count little.

        shift: the centre of light
        angle: of the major axis; where `turns` is above 1/2, of that end of it to which the third
            moment leans
        size: sqrt of half the trace of the second moments, in pixels, over `size`

    Each number u is cut to -3..3.  A picture without light has u = 0, a faint one is drawn there.

    Shapes: bottom (n, ...) of side * side numbers; top (n, 4): angle, size, x, y.

    Args:
        size: of an object in the canonical picture, in pixels.
        threshold: see above.
        side, turns, size_spread, shift_spread: see PoseLayer.

    Source: Bernstein and Jarvis (2002), section 3, for windows that adapt (theirs are elliptical).
    """

    def __init__(
        self, name: str, image: str, *, side: int, size: float, threshold: float = 3.0,
        turns: float = 0.5, size_spread: float = 0.3, shift_spread: float = 1.0,
        tops: str | None = None,
    ):
        super().__init__(name, [image], side, turns, size_spread, shift_spread, tops)
        if size <= 0 or threshold < 0:
            self.fail(f"size must be above 0, threshold not below, got {size} and {threshold}")
        self.size, self.threshold = size, threshold

    def differentiable(self, bottom: int) -> bool:
        """The pose is a measurement, of the data."""
        return False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks the shape; no parameters."""
        self.check_picture(shapes[0])
        return [(LATENTS,)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Moments, and the numbers u that stand for them."""
        xp = self.xp
        light = self._light(bottoms[0].data.reshape(-1, self.side, self.side))
        x = y = xp.zeros(len(light))
        size = xp.full(len(light), self.size)
        for _ in range(ITERATIONS):
            moment = self._moments(light, x, y, WINDOW * size)
            total = moment[:, 0, 0] + FAINT
            dx, dy = moment[:, 0, 1] / total, moment[:, 1, 0] / total
            xx = (moment[:, 0, 2] + FAINT * self.size**2) / total - dx * dx
            yy = (moment[:, 2, 0] + FAINT * self.size**2) / total - dy * dy
            xy = moment[:, 1, 1] / total - dx * dy
            x, y = xp.clip(x + dx, *self._bounds()), xp.clip(y + dy, *self._bounds())
            size = xp.clip(xp.sqrt(0.5 * (xx + yy)), 0.5, self.side / 3)
        angle = 0.5 * xp.arctan2(2 * xy, xx - yy)
        if self.span > 3.1416:
            angle = xp.where(self._leans_back(moment, total, dx, dy, angle), angle + xp.pi, angle)
            angle = xp.where(angle > xp.pi, angle - 2 * xp.pi, angle)
        u = tops[0].data
        u[:, 0] = normal_quantile(xp, angle / self.span + 0.5)
        u[:, 1] = xp.log(size / self.size) / self.size_spread
        u[:, 2], u[:, 3] = x / self.shift_spread, y / self.shift_spread
        xp.clip(u, -WIDEST, WIDEST, out=u)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Nothing: the bottom is not differentiable."""

    def _bounds(self) -> tuple[float, float]:
        return -self.side / 4, self.side / 4

    def _light(self, image: Array) -> Array:
        """What exceeds the sky and its noise."""
        xp = self.xp
        frame = xp.concatenate(
            [image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], axis=1
        )
        sky = xp.median(frame, axis=1)
        noise = xp.median(xp.abs(frame - sky[:, None]), axis=1)
        return xp.maximum(image - (sky + self.threshold * noise)[:, None, None], 0)

    def _moments(self, light: Array, x: Array, y: Array, width: Array) -> Array:
        """Sums of window * light * (Y - y)^i (X - x)^j for i, j up to 3: (n, 4, 4), float64.

        A round Gaussian window is a product of one along x and one along y.
        """
        xp = self.xp
        line = xp.arange(self.side) - (self.side - 1) / 2

        def powers(centre: Array) -> Array:
            d = line - centre[:, None]
            window = xp.exp(-0.5 * (d / width[:, None]) ** 2)
            return xp.stack([window, window * d, window * d**2, window * d**3], axis=2)

        by_row = xp.matmul(light, powers(x).astype(light.dtype))
        return xp.matmul(powers(y).transpose(0, 2, 1), by_row)

    def _leans_back(
        self, moment: Array, total: Array, dx: Array, dy: Array, angle: Array
    ) -> Array:
        """Whether the third moment along the axis, about the centre of light, is negative."""
        xp = self.xp
        c, s = xp.cos(angle), xp.sin(angle)
        first = (c * moment[:, 0, 1] + s * moment[:, 1, 0]) / total
        second = c * c * moment[:, 0, 2] + 2 * c * s * moment[:, 1, 1] + s * s * moment[:, 2, 0]
        third = (
            c**3 * moment[:, 0, 3] + 3 * c * c * s * moment[:, 1, 2]
            + 3 * c * s * s * moment[:, 2, 1] + s**3 * moment[:, 3, 0]
        )
        return third / total - 3 * first * second / total + 2 * first**3 < 0
