"""ConvolvePSF: pictures blurred by a point spread function of their own."""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import add_to, broadcast
from layerkit.settings import Tops


class ConvolvePSF(Layer):
    """Picture convolved with a point spread function (PSF), each band of each example with its own.

        y[i, j] = sum over k, l of psf[k, l] x[i - k + c, j - l + d]

    with (c, d) the middle pixel of the PSF: a PSF that is 1 there and 0 elsewhere changes nothing.
    There is no light beyond the picture, and what the PSF carries across its border is lost;
    nothing wraps around.  The PSF is taken as it is: it keeps the flux if its sum is 1.

    Shapes: bottoms picture (n, bands, h, w) or (n, h, w), and psf (n, bands, p, q) or (n, p, q),
    with p and q odd; one band serves as many as the other bottom has.  Top (n, bands, h, w), or
    (n, h, w) if neither bottom has an axis of bands.

    It is computed by products of Fourier transforms, so a pixel is exact up to the rounding of the
    brightest, not its own.  A PSF that the caller gives costs no gradient.

    Raises:
        NetError: a PSF with an even side, or bottoms that are no pictures or differ in their number
            of bands.

    Source: Press et al., "Numerical recipes" (2007), section 13.1, for zeros beyond the border.
    """

    def __init__(self, name: str, picture: str, psf: str, *, tops: Tops | None = None):
        super().__init__(name, [picture, psf], tops)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes and choose the size of the transforms; declare no parameters."""
        from scipy.fft import next_fast_len  # here, as SciPy takes a while to import

        picture, psf = shapes
        for bottom, shape in zip(self.bottoms, shapes, strict=True):
            if len(shape) not in (2, 3):
                self.fail(
                    f"its bottom {bottom!r} must hold pictures (height, width) or (bands, height, "
                    f"width), got shape {shape}"
                )
        if any(size % 2 == 0 for size in psf[-2:]):
            self.fail(
                f"a PSF has a middle pixel, so its height and width must be odd, got {psf[-2:]}; "
                f"put a row and a column of zeros beside an even one, and shift it by half a pixel"
            )
        self._shapes = [shape if len(shape) == 3 else (1, *shape) for shape in shapes]
        bands = broadcast([(shape[0],) for shape in self._shapes])
        if bands is None:
            self.fail(
                f"{self.bottoms[0]!r} has {picture[0]} bands and {self.bottoms[1]!r} {psf[0]}; "
                f"give each band its PSF, or one for all"
            )
        self._middle = tuple((size - 1) // 2 for size in psf[-2:])
        # Light wraps around only into what is cut away.
        self._sizes = tuple(
            int(next_fast_len(max(size + middle, 2 * middle + 1), real=True))
            for size, middle in zip(picture[-2:], self._middle, strict=True)
        )
        half = self._sizes[1] // 2 + 1
        dtype = "complex64" if self.run.dtype == "float32" else "complex128"
        self._psf = self.buffer((self._shapes[1][0], self._sizes[0], half), dtype)
        self._seen = (*bands, *picture[-2:])
        return [self._seen if len(picture) == 3 or len(psf) == 3 else picture]

    def _transform(self, x: Array, shape: Shape) -> Array:
        """Return the transforms of pictures of a shape (bands, height, width)."""
        return self.xp.fft.rfft2(x.reshape(len(x), *shape), s=self._sizes, axes=(-2, -1))

    def _inverse(self, transform: Array) -> Array:
        """Return the pictures that have some transforms."""
        return self.xp.fft.irfft2(transform, s=self._sizes, axes=(-2, -1))

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the product of both transforms, and cut its inverse from the middle on."""
        picture, psf = self._shapes
        (top, left), (height, width) = self._middle, picture[1:]
        self._psf.data[...] = self._transform(bottoms[1].data, psf)
        full = self._inverse(self._transform(bottoms[0].data, picture) * self._psf.data)
        y = tops[0].data.reshape(-1, *self._seen)
        y[...] = full[..., top : top + height, left : left + width]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the correlations of dy with the PSF and with the picture."""
        picture, psf = self._shapes
        top, left = self._middle
        dy = tops[0].diff.reshape(-1, *self._seen)
        # Moved by the middle pixel, so that correlations begin at 0.
        moved = self.xp.pad(dy, ((0, 0), (0, 0), (top, 0), (left, 0)))
        transform = self.xp.fft.rfft2(moved, s=self._sizes, axes=(-2, -1))
        for blob, shape, other in (
            (bottoms[0], picture, lambda: self._psf.data),
            (bottoms[1], psf, lambda: self._transform(bottoms[0].data, picture)),
        ):
            if blob.diff is not None:
                found = self._inverse(transform * self.xp.conj(other()))
                dx = blob.diff.reshape(-1, *shape)
                add_to(self.xp, dx, found[..., : shape[1], : shape[2]])
