"""Noise: Normal, a source of it, and Reparameterize, a sample that gradients flow through."""

from __future__ import annotations

from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Sizes, Tops


class Normal(Layer):
    """Source of standard normal noise, y ~ N(0, I), such as the input of a generator.

    Shapes: no bottom; top (n, *shape), with as many rows as the net's inputs or data have.

    The noise depends only on the net's seed, the layer's name and the number of the pass.  If the
    net is asked not to sample (`infer(..., sample=False)`), y = 0, its mean.

    Args:
        shape: shape of one example, without the batch axis.

    Source: Goodfellow et al., "Generative adversarial nets" (2014), the noise z of section 3.
    """

    decided = (*Layer.decided, "shape")

    def __init__(self, name: str, *, shape: Annotated[Shape, Sizes()], tops: Tops | None = None):
        super().__init__(name, [], tops)
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Return the shape given; declare no parameters."""
        return [self.shape]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Draw the noise."""
        if self.run.sample:
            tops[0].data[...] = self.normal(tops[0].data.shape)
        else:
            tops[0].data.fill(0)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: there is no bottom."""


class Reparameterize(Layer):
    """Sample z = mean + sd * noise with noise ~ N(0, I) and sd = exp(log_variance / 2).

    Shapes: bottoms mean and log_variance (n, ...), of one shape; top z (n, ...).

    The noise depends only on the net's seed, the layer's name and the number of the pass.  If the
    net is asked not to sample (`infer(..., sample=False)`), z = mean.

    Raises:
        NetError: bottoms of different shapes.

    Source: Kingma and Welling (2014), section 2.4; the sampling layer of Regier et al. (2015).
    """

    def __init__(self, name: str, mean: str, log_variance: str, *, tops: Tops | None = None):
        super().__init__(name, [mean, log_variance], tops)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check that the shapes are equal; declare no parameters."""
        if shapes[0] != shapes[1]:
            self.fail(f"mean and log_variance must have one shape, got {shapes}")
        self.scaled = self.buffer(shapes[0])  # sd * noise
        return shapes[:1]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute z = mean + exp(log_variance / 2) * noise."""
        mean, log_variance, scaled = bottoms[0].data, bottoms[1].data, self.scaled.data
        if self.run.sample:
            scaled[...] = self.normal(scaled.shape)
            scaled *= self.xp.exp(0.5 * log_variance)
        else:
            scaled.fill(0)
        self.xp.add(mean, scaled, out=tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d mean = dz and d log_variance = dz * sd * noise / 2."""
        dz = tops[0].diff
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = dz
        if bottoms[1].diff is not None:
            self.xp.multiply(dz, 0.5 * self.scaled.data, out=bottoms[1].diff)
