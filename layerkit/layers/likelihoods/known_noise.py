"""Likelihoods of pixels whose noise is known: Gaussian of a given variance, and Poisson."""

from __future__ import annotations

import math
from typing import Any

from layerkit.backends.base import Array
from layerkit.backends.functions import log_gamma
from layerkit.blob import Blob
from layerkit.layer import Shape
from layerkit.layers.likelihoods.masked import Masked
from layerkit.layers.losses.loss import rows
from layerkit.layers.shapes.axes import add_to, broadcast
from layerkit.settings import NotNegative, Tops


class KnownNoise(Masked):
    """Base of losses -log p(x) summed over pixels, whose noise is given."""

    def check_shapes(self, shapes: list[Shape], repeated: int) -> None:
        """Fail unless the first bottoms have one shape, and those from `repeated` on fit it."""
        shape, names = shapes[0], self.bottoms
        if len(set(shapes[:repeated])) != 1:
            self.fail(
                f"bottoms {', '.join(names[:repeated])} must have one shape, got "
                f"{shapes[:repeated]}"
            )
        for name, other in zip(names[repeated:], shapes[repeated:], strict=True):
            if broadcast([shape, other]) != shape:
                self.fail(
                    f"its bottom {name!r} must have the shape {shape} of {names[0]!r}, or size 1 "
                    f"along some of these axes, got {other}"
                )


class KnownVarianceReconstruction(KnownNoise):
    """Loss -log N(x; mean, diag variance) of each example, with a variance given for each pixel.

        loss = sum over pixels of mask [log(2 pi variance) + (x - mean)^2 / variance] / 2, in nats

    Shapes: bottoms x and mean (n, ...) of one shape; variance and mask of that shape, or with
    size 1 along some axes, which are repeated; top (n,).

    Args:
        variance: the bottom that holds the variance of the noise, positive, in the square of x's
            unit; as x, mean and variance have gradients.
        mask: the bottom that holds 1 for pixels that count, 0 for those that do not, whatever x and
            variance are there (NaN too), or a weight; without it all count.  It has no gradient.
        weight: see Loss.

    Raises:
        DataError: a variance that is not positive where the mask is, or a negative mask.

    Source: Hogg, Bovy and Lang, "Data analysis recipes: fitting a model to data" (2010), section 2.
    """

    def __init__(
        self,
        name: str,
        x: str,
        mean: str,
        variance: str,
        mask: str | None = None,
        *,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        bottoms = [x, mean, variance, *([] if mask is None else [mask])]
        super().__init__(name, bottoms, weight, tops)

    def differentiable(self, bottom: int) -> bool:
        """Return False for the mask."""
        return bottom < 3

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes; return (), one number per example."""
        self.check_shapes(shapes, 2)
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if the mask is negative, or a variance not positive where the mask is."""
        self.check_mask(bottoms, 3)
        mask = self.mask(bottoms, 3)
        variance = self.xp.broadcast_to(bottoms[2].data, mask.shape)
        good = ((variance > 0) & self.xp.isfinite(variance)) | (mask == 0)
        self.check_pixels(
            bottoms[2],
            good,
            variance,
            "a variance is positive and finite; set the mask to 0 where there is none",
        )

    def _pixels(self, bottoms: list[Blob]) -> tuple[Array, Array, Array]:
        """Return the mask, x - mean and the variance; 0 and 1 where the mask is 0."""
        xp, mask = self.xp, self.mask(bottoms, 3)
        used = mask != 0
        difference = xp.where(used, bottoms[0].data - bottoms[1].data, 0)
        return mask, difference, xp.where(used, bottoms[2].data, 1)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        mask, d, v = self._pixels(bottoms)
        terms = mask * (self.xp.log(v) + d * d / v + math.log(2 * math.pi))
        tops[0].data[...] = 0.5 * rows(terms).sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = m r, d mean = -m r, d variance = m (1/v - r^2) / 2, times the top's diff.

        Here m is the mask and r = (x - mean) / v.
        """
        mask, d, v = self._pixels(bottoms)
        m = mask * tops[0].diff.reshape(-1, *[1] * (mask.ndim - 1))
        r = d / v
        if bottoms[0].diff is not None:
            self.xp.multiply(m, r, out=bottoms[0].diff)
        if bottoms[1].diff is not None:
            self.xp.multiply(-m, r, out=bottoms[1].diff)
        if bottoms[2].diff is not None:
            add_to(self.xp, bottoms[2].diff, 0.5 * m * (1 / v - r * r))


class PoissonReconstruction(KnownNoise):
    """Loss -log p(x) of counts x that are Poisson distributed around the rate of each pixel.

        loss = sum over pixels of mask [rate - x log rate + log x!], in nats

    x! = Gamma(x + 1), so x may lie between whole numbers.

    Shapes: bottoms x and rate (n, ...) of one shape; mask of that shape, or with size 1 along some
    axes, which are repeated; top (n,).

    Args:
        x: the bottom that holds counts, 0 or more, sky included; it has no gradient.
        rate: the bottom that holds the expected counts, sky included: 0 or more, positive where
            there are counts.
        mask: the bottom that holds 1 for pixels that count, 0 for those that do not, whatever x and
            rate are there (NaN too), or a weight; without it all count.  It has no gradient.
        weight: see Loss.

    Raises:
        DataError: negative counts or rates, or a rate of 0 under counts, where the mask is
            positive; or a negative mask.

    Terms are summed in double precision: those of bright pixels nearly cancel.

    Source: Cash, "Parameter estimation in astronomy through application of the likelihood ratio"
    (1979), whose C is twice this loss without log x!.
    """

    def __init__(
        self,
        name: str,
        x: str,
        rate: str,
        mask: str | None = None,
        *,
        weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, [x, rate, *([] if mask is None else [mask])], weight, tops)

    def differentiable(self, bottom: int) -> bool:
        """Return True for the rate only."""
        return bottom == 1

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check the shapes; return (), one number per example."""
        self.check_shapes(shapes, 2)
        return [()]

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if the mask is negative or, where it is positive, counts or rates are wrong."""
        self.check_mask(bottoms, 2)
        isfinite, masked = self.xp.isfinite, self.mask(bottoms, 2) == 0
        x, rate = (blob.data for blob in bottoms[:2])
        self.check_pixels(
            bottoms[0],
            ((x >= 0) & isfinite(x)) | masked,
            x,
            "counts are 0 or more; do not subtract the sky, and set the mask to 0 where there are "
            "none",
        )
        self.check_pixels(
            bottoms[1],
            (((rate > 0) | ((rate == 0) & (x == 0))) & isfinite(rate)) | masked,
            rate,
            "a rate is positive, or 0 where there are no counts; add the sky to the light of the "
            "sources",
        )

    def _pixels(self, bottoms: list[Blob], dtype: Any) -> tuple[Array, Array, Array]:
        """Return the mask, the counts and the rate; 1 for a rate where there are no counts."""
        xp, mask = self.xp, self.mask(bottoms, 2)
        used = mask != 0
        x = xp.where(used, bottoms[0].data, 0).astype(dtype)
        return mask, x, xp.where(used, bottoms[1].data, 0).astype(dtype)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        xp = self.xp
        mask, x, rate = self._pixels(bottoms, "float64")
        terms = rate - x * xp.log(xp.where(x == 0, 1, rate)) + log_gamma(xp, x + 1)
        tops[0].data[...] = rows(mask * terms).sum(axis=1)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d rate = mask (1 - x / rate), times the top's diff."""
        if bottoms[1].diff is None:
            return
        xp = self.xp
        mask, x, rate = self._pixels(bottoms, self.run.dtype)
        scale = tops[0].diff.reshape(-1, *[1] * (mask.ndim - 1))
        xp.multiply(scale * mask, 1 - x / xp.where(x == 0, 1, rate), out=bottoms[1].diff)
