"""Reconstruction: what the layers that score a picture pixel by pixel have in common."""

from __future__ import annotations

import math

from layerkit.layers.loss import Loss
from layerkit.settings import NotNegative, Tops

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that.
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12


class Reconstruction(Loss):
    """-log p(x | mean, variance) with variance = exp(log_variance) + floor, summed over pixels.

    Shapes: bottoms x, mean and log_variance (n, ...), of one shape; top (n,).

    Args:
        floor: variance that is always there.  The default is that of rounding x to 8 bits, for x
            in 0..1: without it the likelihood of a constant pixel has no bound.
        weight: see Loss.

    Attributes:
        degrees: of freedom of Student's t; a Gaussian has infinitely many.
        fold: E|T| of that distribution with mean 0 and variance 1.
        constant: of the loss, for each pixel.
    """

    degrees = math.inf
    fold = math.sqrt(2 / math.pi)
    constant = 0.5 * math.log(2 * math.pi)

    def __init__(
        self, name: str, bottoms: list[str], floor: NotNegative, weight: NotNegative,
        tops: Tops | None,
    ):
        super().__init__(name, bottoms, weight, tops)
        self.floor = floor
