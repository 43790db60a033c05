"""PlaceSources: many small pictures on one canvas; CutSources: small pictures out of it."""

from __future__ import annotations

from typing import Annotated

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.sky.interpolation import (
    POLYNOMIALS,
    REACH,
    SLOPES,
    TAPS,
    collect,
    polynomial,
    spread,
)
from layerkit.settings import Sizes, Tops

Picture = Annotated[tuple[int, int], Sizes(2, names="(height, width)")]
Pair = tuple[Array, Array]


class SourcesLayer(Layer):
    """Base of layers that put small pictures on a canvas, or cut them out, anywhere on it.

    A place is (x, y), column before row, in pixels, where (0, 0) is the centre of the canvas's
    first pixel.  There lies the middle of the small picture: its middle pixel where height and
    width are odd, else half a pixel from it.  Light beyond the canvas is lost, or 0 where pictures
    are cut out of it.

    Between pixels, light is shared out to ten pixels along each axis, by the polynomial of degree 5
    that has, at both neighbours, the value of the pixel and the slope and curvature that central
    differences of order 8 give.  So all weights have the sum 1 and their centre at the place, and
    add nothing to the second, third and fourth moments of the light; values, slopes and curvatures
    are continuous in the place, and so is the gradient.  A point source at any place, blurred by a
    Gaussian PSF of 3 or 4 pixels FWHM, is right within 0.004 or 0.0006 of its peak (by
    bilinear interpolation, 0.11 or 0.07).

    Attributes:
        sources, bands: how many there are.
        small, canvas: (height, width) of the pictures and of the canvas.
    """

    def lay_out(self, sources: int, bands: int, small: Shape, canvas: Shape) -> None:
        """Keep the sizes, and declare the padded canvas, with room for a picture on each side."""
        self.sources, self.bands, self.small, self.canvas = sources, bands, small, canvas
        self._patch = tuple(size + TAPS - 1 for size in small)  # what a picture reaches
        self._around = tuple(
            size + 2 * reach for size, reach in zip(canvas, self._patch, strict=True)
        )
        self._space = self.buffer((bands, self._around[0] * self._around[1]))

    def check_places(self, shape: Shape, expected: Shape | None) -> None:
        """Fail unless an example of the places has the expected shape; None takes any number."""
        if shape != expected and (expected is not None or len(shape) > 2 or shape[-1:] != (2,)):
            self.fail(
                f"its bottom {self.bottoms[1]!r} must hold places (x, y), of shape "
                f"{expected or '(2,) or (sources, 2)'}, got {shape}"
            )

    def locate(self, places: Array) -> tuple[Array, Pair]:
        """Find the pixels of the padded canvas that each picture covers.

        Args:
            places: (n, ..., 2).

        Returns:
            indices of those pixels, (n, sources, pixels), and the fractions of a pixel, down and
            across, by which the picture lies past a pixel of the canvas, each (n, sources).
        """
        xp, places = self.xp, places.reshape(len(places), self.sources, 2)
        corners, parts = [], []
        for axis in (0, 1):
            at = places[..., 1 - axis] - (self.small[axis] - 1) / 2
            cell = xp.floor(at)
            parts.append(at - cell)
            reach = self._patch[axis]
            corner = xp.where(cell == cell, cell, 0) + (reach - REACH)  # a NaN has no cell
            # A picture that reaches no pixel of the canvas lies beside it.
            corners.append(xp.clip(corner, 0, self.canvas[axis] + reach).astype("int64"))
        rows, columns = (xp.arange(size) for size in self._patch)
        within = (rows[:, None] * self._around[1] + columns).reshape(-1)
        index = (corners[0] * self._around[1] + corners[1])[..., None] + within
        return index, (parts[0], parts[1])

    def fill(self, canvas: Array) -> None:
        """Copy a canvas (n, bands, H, W) into the padded canvas, with 0 around it."""
        self._space.data.fill(0)
        self.inside()[...] = canvas

    def inside(self) -> Array:
        """Return the padded canvas without its padding, (n, bands, H, W)."""
        space = self._space.data
        (top, left), (height, width) = self._patch, self.canvas
        pictures = space.reshape(len(space), self.bands, *self._around)
        return pictures[..., top : top + height, left : left + width]

    def take(self, index: Array) -> Array:
        """Return the pixels that each picture covers, (n, sources, bands, *patch)."""
        xp, space = self.xp, self._space.data
        example = xp.arange(len(space))[:, None, None, None]
        band = xp.arange(self.bands)[:, None]
        found = space[example, band, index[:, :, None, :]]
        return found.reshape(len(space), self.sources, self.bands, *self._patch)

    def add(self, index: Array, patches: Array, factors: Array | None) -> None:
        """Fill the padded canvas with the sum over sources of patches times factors.

        Args:
            index: from `locate`.
            patches: (n, sources, bands or 1, *patch).
            factors: (n, sources, bands), or None for 1.
        """
        xp, space = self.xp, self._space.data
        space.fill(0)
        example, band = xp.arange(len(space))[:, None, None], xp.arange(self.bands)[:, None]
        patches = patches.reshape(*patches.shape[:3], -1)
        for source in range(self.sources):
            light = patches[:, source]
            if factors is not None:
                light = light * factors[:, source, :, None]
            space[example, band, index[:, source, None, :]] += light

    def place_diff(self, diff: Array, pictures: Array, patches: Array, parts: Pair) -> None:
        """Compute the derivatives with respect to the places.

        Args:
            diff: of the places, (n, ..., 2).
            pictures: what is spread, (n, sources, bands, h, w).
            patches: derivatives with respect to the pixels covered, (n, sources, bands, *patch).
            parts: from `locate`.
        """
        diff = diff.reshape(len(diff), self.sources, 2)
        for axis in (0, 1):
            down, across = (
                polynomial(self.xp, SLOPES if axis == other else POLYNOMIALS, parts[other])
                for other in (0, 1)
            )
            slopes = collect(self.xp, collect(self.xp, patches, down, -2), across, -1)
            diff[..., 1 - axis] = (pictures * slopes).sum(axis=(2, 3, 4))


class PlaceSources(SourcesLayer):
    """Canvas with small pictures on it, each at a place of its own and times a flux of its own.

        y[b] = sum over sources s of flux[s, b] times picture s, with its middle at place s

    Shapes: bottoms picture (n, sources, h, w), or (n, sources, bands, h, w) where it differs from
    band to band; place (n, sources, 2), each (x, y); flux (n, sources, bands), or (n, sources) of
    one band.  Top (n, bands, H, W).  For one source all three may come without the axis of
    sources, as (n, h, w), (n, 2), and (n, bands) or (n,).  A star is a picture of one pixel that
    holds 1.

    Args:
        shape: (H, W), of the canvas.
        flux: the bottom that holds the fluxes; without it they are 1.

    Places, and how light is shared out between pixels: see SourcesLayer.

    Raises:
        NetError: bottoms that are no pictures, places and fluxes of as many sources.

    Source: Regier et al., "Celeste: variational inference for a generative model of astronomical
    images" (2015).  Fornberg, "Generation of finite difference formulas on arbitrarily spaced
    grids" (1988), for the differences.
    """

    decided = (*Layer.decided, "shape")

    def __init__(
        self,
        name: str,
        picture: str,
        place: str,
        flux: str | None = None,
        *,
        shape: Picture,
        tops: Tops | None = None,
    ):
        super().__init__(name, [picture, place, *([] if flux is None else [flux])], tops)
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes and declare buffers, but no parameters."""
        picture = shapes[0]
        if len(picture) not in (2, 3, 4):
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold pictures (height, width), (sources, "
                f"height, width) or (sources, bands, height, width), got shape {picture}"
            )
        sources = picture[:1] if len(picture) > 2 else ()
        self.check_places(shapes[1], (*sources, 2))
        colours = picture[1] if len(picture) == 4 else 1
        bands = colours
        if len(shapes) == 3:
            flux = shapes[2]
            bands = flux[-1] if len(flux) == len(sources) + 1 else 1
            if flux not in (sources, (*sources, bands)) or colours not in (1, bands):
                self.fail(
                    f"its bottom {self.bottoms[2]!r} must hold a flux for each source and band, of "
                    f"shape {(*sources, 'bands' if colours == 1 else colours)}, got {flux}"
                )
        self.lay_out(sources[0] if sources else 1, bands, picture[-2:], self.shape)
        self._pictures = (self.sources, colours, *self.small)
        self._patches = self.buffer((self.sources, colours, *self._patch))
        return [(bands, *self.shape)]

    def _fluxes(self, bottoms: list[Blob]) -> Array | None:
        """Return the fluxes (n, sources, bands), or None for 1."""
        if len(bottoms) < 3:
            return None
        return bottoms[2].data.reshape(-1, self.sources, self.bands)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Spread each picture along its columns and rows, and add them up on the canvas."""
        xp, patches = self.xp, self._patches.data
        index, parts = self.locate(bottoms[1].data)
        down, across = (polynomial(self.xp, POLYNOMIALS, part) for part in parts)
        pictures = bottoms[0].data.reshape(-1, *self._pictures)
        patches[...] = spread(xp, spread(xp, pictures, across, -1), down, -2)
        self.add(index, patches, self._fluxes(bottoms))
        tops[0].data[...] = self.inside()

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Collect dy where each picture lies, and compute the gradient of the places."""
        xp, fluxes = self.xp, self._fluxes(bottoms)
        index, parts = self.locate(bottoms[1].data)
        self.fill(tops[0].diff)
        d = self.take(index)
        if fluxes is not None and bottoms[2].diff is not None:
            diff = bottoms[2].diff.reshape(-1, self.sources, self.bands)
            diff[...] = (d * self._patches.data).sum(axis=(3, 4))
        if fluxes is not None:
            d = d * fluxes[..., None, None]
        if self._pictures[1] < self.bands:
            d = d.sum(axis=2, keepdims=True)
        if bottoms[0].diff is not None:
            down, across = (polynomial(self.xp, POLYNOMIALS, part) for part in parts)
            dx = bottoms[0].diff.reshape(-1, *self._pictures)
            dx[...] = collect(xp, collect(xp, d, down, -2), across, -1)
        if bottoms[1].diff is not None:
            pictures = bottoms[0].data.reshape(-1, *self._pictures)
            self.place_diff(bottoms[1].diff, pictures, d, parts)


class CutSources(SourcesLayer):
    """Small pictures cut out of a canvas at places between pixels: the transpose of PlaceSources.

    Pixel (i, j) of a picture whose middle is at the place is the canvas there, interpolated.

    Shapes: bottoms canvas (n, bands, H, W) or (n, H, W), and place (n, sources, 2) or, for one
    source, (n, 2), each (x, y); top (n, sources, bands, h, w), without the axes of sources and of
    bands where the bottoms lack them.

    Args:
        shape: (h, w), of the small pictures.

    Places, and the interpolation between pixels: see SourcesLayer.

    Raises:
        NetError: bottoms that are no pictures and places.

    Source: the transpose of PlaceSources, which has the interpolation.
    """

    decided = (*Layer.decided, "shape")

    def __init__(
        self, name: str, canvas: str, place: str, *, shape: Picture, tops: Tops | None = None
    ):
        super().__init__(name, [canvas, place], tops)
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes and declare buffers, but no parameters."""
        canvas, places = shapes
        if len(canvas) not in (2, 3):
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold pictures (height, width) or (bands, "
                f"height, width), got shape {canvas}"
            )
        self.check_places(places, None)
        sources, bands = places[:-1], canvas[:-2]
        counts = [axis[0] if axis else 1 for axis in (sources, bands)]
        self.lay_out(counts[0], counts[1], self.shape, canvas[-2:])
        return [(*sources, *bands, *self.shape)]

    def _rows(self, pictures: Array) -> Array:
        """Return pictures as (n, sources, bands, h, w)."""
        return pictures.reshape(len(pictures), self.sources, self.bands, *self.small)

    def _canvas(self, array: Array) -> Array:
        """Return a canvas as (n, bands, H, W)."""
        return array.reshape(len(array), self.bands, *self.canvas)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Collect the pixels around each place, along columns and rows."""
        index, parts = self.locate(bottoms[1].data)
        down, across = (polynomial(self.xp, POLYNOMIALS, part) for part in parts)
        self.fill(self._canvas(bottoms[0].data))
        found = collect(self.xp, self.take(index), down, -2)
        self._rows(tops[0].data)[...] = collect(self.xp, found, across, -1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Spread dy to the canvas, and compute the gradient of the places."""
        xp, dy = self.xp, self._rows(tops[0].diff)
        index, parts = self.locate(bottoms[1].data)
        if bottoms[1].diff is not None:
            self.fill(self._canvas(bottoms[0].data))
            self.place_diff(bottoms[1].diff, dy, self.take(index), parts)
        if bottoms[0].diff is not None:
            down, across = (polynomial(self.xp, POLYNOMIALS, part) for part in parts)
            self.add(index, spread(xp, spread(xp, dy, across, -1), down, -2), None)
            self._canvas(bottoms[0].diff)[...] = self.inside()
