"""Reconstruction: the base class of losses that score a picture pixel by pixel."""

from __future__ import annotations

import math

from layerkit.layers.losses.loss import Loss
from layerkit.settings import NotNegative, Tops

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that.
QUANTISATION_VARIANCE = (1 / 255) ** 2 / 12


class Reconstruction(Loss):
    """Loss -log p(x | mean, variance), variance = exp(log_variance) + floor, summed over pixels.

    Shapes: bottoms x, mean and log_variance (n, ...), of one shape; top (n,).

    Args:
        floor: variance added to every pixel's.  The default is that of rounding x in 0..1 to 8
            bits: without it the likelihood of a constant pixel is unbounded.
        weight: see Loss.

    Attributes:
        degrees: degrees of freedom of Student's t; infinity for a Gaussian.
        fold: E|T| of that distribution with mean 0 and variance 1.
        constant: constant term of the loss of each pixel.
    """

    degrees = math.inf
    fold = math.sqrt(2 / math.pi)
    constant = 0.5 * math.log(2 * math.pi)

    def __init__(
        self,
        name: str,
        bottoms: list[str],
        floor: NotNegative,
        weight: NotNegative,
        tops: Tops | None,
    ):
        super().__init__(name, bottoms, weight, tops)
        self.floor = floor
