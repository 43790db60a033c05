"""SourceImages: a field of stars and galaxies, each seen through the PSF."""

from __future__ import annotations

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.galaxy.scene.model.layout import Layout, Source
from layerkit.layer import Layer, Shape
from layerkit.settings import Tops

SIDES = (32, 48, 64, 80, 96, 128, 160, 192, 256)  # of a source's picture
REACH = 9.0  # half-light radii that a galaxy's picture reaches beyond the PSF, in all


class SourceImages(Layer):
    """Image of a field: sky and the sum over sources of flux * (PSF * shape), per band.

    Each source is drawn in Fourier space, where the light of a galaxy (`Layout.light`), the
    sub-pixel position (a phase) and the PSF are factors, on a picture of its own that is wide
    enough not to wrap around; the pictures are added up on the canvas.

    picture_b = flux_b * inverse DFT of [PSF_b(k) * light(r A k) * exp(-i k . (x, y))]

    Here A is the symmetric matrix with determinant 1 that `shear` (e1, e2) gives,
    exp([[e1, e2], [e2, -e1]] / 2): the axis ratio is exp(-|e|), the angle half that of (e1, e2).

    Shapes: bottom (n, layout.size), top (n, bands, height, width).

    Args:
        layout: the sources; see Layout.
        psfs: shape (bands, p, p), p odd, the middle pixel its centre, each of unit sum.
        sky: brightness of one unit of sky, shape (bands,).
        height, width: of the canvas, in pixels.

    Source: Regier et al. (2015), "Celeste: variational inference for a generative model of
    astronomical images", section 2; drawing in Fourier space as in Rowe et al. (2015), "GalSim".
    """

    shared = ("layout", "psfs", "sky", "_transforms", "_kept")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        layout: Layout,
        psfs: np.ndarray,
        sky: np.ndarray,
        height: int,
        width: int,
        tops: Tops | None = None,
    ):
        super().__init__(name, [bottom], tops)
        self.layout, self.psfs, self.sky = layout, psfs, sky
        self.height, self.width = height, width
        self.sides = [self._side(i) for i in range(len(layout.sources))]
        self._transforms: dict[int, tuple[Array, ...]] = {}
        self._kept: dict[int, tuple[bytes, tuple[Array, Array, list[Array]]]] = {}

    def reach(self, source: Source) -> float:
        """Return how many pixels the light of a source spans, that of a galaxy all but its rim."""
        needed = self.psfs.shape[-1] + 2.0
        return needed if source.star else needed + REACH * float(np.exp(source.shape[0]))

    def _side(self, i: int) -> int:
        """Return the side of the picture of source `i`, in pixels."""
        needed = self.reach(self.layout.sources[i])
        needed = min(needed, 2.0 * max(self.height, self.width) + self.psfs.shape[-1])
        return next((s for s in SIDES if s >= needed), SIDES[-1])

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the bottom's shape; return the canvas's."""
        if shapes[0] != (self.layout.size,):
            self.fail(f"bottom must have shape {(self.layout.size,)}, got {shapes[0]}")
        return [(self.layout.bands, self.height, self.width)]

    def _grid(self, side: int) -> tuple[Array, Array, Array, Array]:
        """Return kx, ky, how often each frequency counts, and the PSFs' transforms."""
        if side not in self._transforms:
            xp = self.xp
            ky, kx = (2 * np.pi * f for f in (np.fft.fftfreq(side), np.fft.rfftfreq(side)))
            ky, kx = np.broadcast_arrays(ky[:, None], kx[None, :])
            counts = np.full(kx.shape, 2.0)
            counts[:, 0] = counts[:, -1] = 1.0
            p = self.psfs.shape[-1]
            cut = max(0, p - side + 1 + (p - side) % 2) // 2  # of a PSF wider than the picture
            psfs = self.psfs[:, cut : p - cut, cut : p - cut]
            q = psfs.shape[-1]
            at = side // 2 - q // 2
            padded = np.zeros((len(psfs), side, side))
            padded[:, at : at + q, at : at + q] = psfs
            arrays = (kx, ky, counts, np.fft.rfft2(padded))
            self._transforms[side] = tuple(xp.asarray(np.ascontiguousarray(a)) for a in arrays)
        return self._transforms[side]  # type: ignore[return-value]

    def window(self, i: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where the picture of source `i` lies on the canvas, and which part of it does."""
        half, outer, inner = self.sides[i] // 2, [], []
        for middle, size in zip(
            self.layout.origins[i][::-1], (self.height, self.width), strict=True
        ):
            first = int(middle) - half
            low = min(max(first, 0), size)
            high = max(min(first + self.sides[i], size), low)
            outer.append(slice(low, high))
            inner.append(slice(low - first, high - first))
        return (outer[0], outer[1]), (inner[0], inner[1])

    def _parts(self, i: int, theta: Array) -> tuple[Array, Array, list[Array]]:
        """Return flux * PSF * phase per band, and light with its derivatives but for the fluxes.

        The derivatives are by x, y and the numbers of the shape, of phase * light over phase.  They
        are kept until the numbers change, as forward, backward and jacobian need them in turn.
        """
        key = theta[self.layout.part(i)].tobytes()
        if self._kept.get(i, (None,))[0] != key:
            self._kept[i] = key, self._new_parts(i, theta)
        return self._kept[i][1]

    def _base(self, i: int, theta: Array) -> Array:
        """Return flux * PSF * phase of each band."""
        kx, ky, _, psfs = self._grid(self.sides[i])
        own = theta[self.layout.part(i)]
        fluxes = self.xp.exp(own[2 : 2 + self.layout.bands])
        return fluxes[:, None, None] * psfs * self.xp.exp(-1j * (kx * own[0] + ky * own[1]))

    def _sheared(self, i: int, theta: Array) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Return the frequencies (u, v) = r A k of a galaxy's light, and their slopes by e1, e2."""
        kx, ky, _, _ = self._grid(self.sides[i])
        radius, e1, e2 = theta[self.layout.part(i)][2 + self.layout.bands :][:3]
        radius, e1, e2 = float(self.xp.exp(radius)), float(e1) / 2, float(e2) / 2
        h = np.hypot(e1, e2)
        c = np.cosh(h)
        s = np.sinh(h) / h if h > 1e-4 else 1 + h * h / 6
        ds = (c - s) / (h * h) if h > 1e-2 else 1 / 3 + h * h / 30  # s'(h) / h
        along, across = e1 * kx + e2 * ky, e2 * kx - e1 * ky
        slopes = [
            (
                0.5 * radius * (s * e * kx + ds * e * along + s * du),
                0.5 * radius * (s * e * ky + ds * e * across + s * dv),
            )
            for e, du, dv in ((e1, kx, -ky), (e2, ky, kx))
        ]
        return radius * (c * kx + s * along), radius * (c * ky + s * across), slopes

    def _new_parts(self, i: int, theta: Array) -> tuple[Array, Array, list[Array]]:
        xp, layout = self.xp, self.layout
        kx, ky, _, _ = self._grid(self.sides[i])
        base = self._base(i, theta)
        if layout.sources[i].star:
            return base, xp.ones_like(kx), [-1j * kx, -1j * ky]
        u, v, slopes = self._sheared(i, theta)
        latents = theta[layout.part(i)][5 + layout.bands :]
        value, by_u, by_v, by_latents = layout.light.transform(xp, latents[None], u[None], v[None])
        value, by_u, by_v = value[0], by_u[0], by_v[0]
        out = [-1j * kx * value, -1j * ky * value, by_u * u + by_v * v]
        out += [by_u * du + by_v * dv for du, dv in slopes]
        return base, value, out + [d[0] for d in by_latents]

    def gaussians(self, i: int, theta: Array, spreads: np.ndarray) -> Array:
        """Return the first band's pictures of source `i`, had it the light of round Gaussians.

        Args:
            i: number of the source, a galaxy.
            theta: one row of the bottom, shape (layout.size,).
            spreads: standard deviations in half-light radii of the galaxy, shape (n,).

        Returns:
            Shape (n, side, side).
        """
        u, v, _ = self._sheared(i, theta)
        squares = self.xp.asarray(spreads**2)[:, None, None] * (u * u + v * v)
        base, side = self._base(i, theta)[0], self.sides[i]
        return self.xp.fft.irfft2(base * self.xp.exp(-0.5 * squares), s=(side, side))

    def picture(self, i: int, theta: Array) -> Array:
        """Return the picture of source `i` on its own, shape (bands, side, side)."""
        base, value, _ = self._parts(i, theta)
        side = self.sides[i]
        return self.xp.fft.irfft2(base * value, s=(side, side))

    def jacobian(self, i: int, theta: Array) -> Array:
        """Return the derivatives of the picture of source `i` by its numbers.

        Args:
            i: number of the source.
            theta: one row of the bottom, shape (layout.size,).

        Returns:
            Shape (numbers of the source, bands, height, width) of the canvas's `window(i)`.
        """
        base, value, factors = self._parts(i, theta)
        side, bands = self.sides[i], self.layout.bands
        stack = self.xp.stack([value * (1 + 0j), *factors])[:, None] * base
        images = self.xp.fft.irfft2(stack, s=(side, side))
        _, inner = self.window(i)
        images = images[:, :, inner[0], inner[1]]
        out = self.xp.zeros((len(factors) + bands, *images.shape[1:]))
        out[:2] = images[1:3]
        for b in range(bands):
            out[2 + b, b] = images[0, b]
        out[2 + bands :] = images[3:]
        return out

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Draw every source and add it to the sky."""
        for theta, canvas in zip(bottoms[0].data, tops[0].data, strict=True):
            sky = theta[self.layout.sky :] * self.xp.asarray(self.sky)
            canvas[...] = sky[:, None, None]
            for i in range(len(self.layout.sources)):
                outer, inner = self.window(i)
                canvas[:, outer[0], outer[1]] += self.picture(i, theta)[:, inner[0], inner[1]]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute each derivative as a product in Fourier space (Parseval's theorem)."""
        if bottoms[0].diff is None:
            return
        xp, layout = self.xp, self.layout
        for theta, diff, given in zip(bottoms[0].data, bottoms[0].diff, tops[0].diff, strict=True):
            diff[layout.sky :] = given.sum(axis=(1, 2)) * xp.asarray(self.sky)
            for i in range(len(layout.sources)):
                outer, inner = self.window(i)
                side, bands, at = self.sides[i], layout.bands, layout.starts[i]
                own = xp.zeros((bands, side, side), given.dtype)
                own[:, inner[0], inner[1]] = given[:, outer[0], outer[1]]
                counts = self._grid(side)[2]
                base, value, factors = self._parts(i, theta)
                products = xp.conj(xp.fft.rfft2(own)) * base * (counts / side**2)
                diff[at + 2 : at + 2 + bands] = (products * value).real.sum(axis=(1, 2))
                products = products.sum(axis=0)
                numbers = [(products * f).real.sum() for f in factors]
                for j, number in enumerate(numbers):
                    diff[at + (j if j < 2 else j + bands)] = number
