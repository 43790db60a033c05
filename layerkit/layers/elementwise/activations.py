"""Activations: elementwise functions, alone or as `neuron=` of Dense and others."""

from __future__ import annotations

import math
from typing import Any, Unpack

from layerkit.backends.base import Array
from layerkit.backends.functions import erfc
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.elementwise.neuron import Neuron
from layerkit.settings import Positive, Tops
from layerkit.settings.tuning import TUNING, Tuning


class ReLU(Neuron):
    """Rectified linear unit y = max(x, 0), with derivative 0 at x = 0.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).
    """

    neuron_name = "relu"
    rectifies = True

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = max(x, 0)."""
        xp.maximum(x, 0, out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else 0."""
        xp.multiply(dy, known > 0, out=dx)


class LeakyReLU(Neuron):
    """Leaky rectifier y = x for x > 0, else slope * x.

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        slope: dy/dx for negative x, default 0.01; positive, so that y has the sign of x.

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models"
    (2013).
    """

    neuron_name = "leaky_relu"
    rectifies = True

    def __init__(self, name: str, bottom: str, *, slope: Positive = 0.01, tops: Tops | None = None):
        super().__init__(name, bottom, tops=tops)
        self.slope = slope

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x for x > 0, else slope * x."""
        y[...] = xp.where(x > 0, x, self.slope * x)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else slope * dy."""
        dx[...] = xp.where(known > 0, dy, self.slope * dy)


class ELU(Neuron):
    """Exponential linear unit y = x for x > 0, else alpha * (exp(x) - 1).

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        alpha: minus the limit for very negative x, default 1; positive.

    Source: Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by
    exponential linear units" (2016).
    """

    neuron_name = "elu"

    def __init__(self, name: str, bottom: str, *, alpha: Positive = 1.0, tops: Tops | None = None):
        super().__init__(name, bottom, tops=tops)
        self.alpha = alpha

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x for x > 0, else alpha * expm1(x)."""
        y[...] = xp.where(x > 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for y > 0, else dy * (y + alpha)."""
        dx[...] = xp.where(known > 0, dy, dy * (known + self.alpha))


class Sigmoid(Neuron):
    """Logistic function y = 1 / (1 + exp(-x)), in a form that cannot overflow.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors"
    (1986), equation 2.
    """

    neuron_name = "sigmoid"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = (1 + tanh(x / 2)) / 2, which equals 1 / (1 + exp(-x))."""
        xp.tanh(0.5 * x, out=y)
        y += 1
        y *= 0.5

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * y * (1 - y)."""
        xp.multiply(dy, known * (1 - known), out=dx)


class Tanh(Neuron):
    """Hyperbolic tangent y = tanh(x).

    Shapes: bottom (n, ...) and top of the same shape.

    Source: LeCun, Bottou, Orr and Müller, "Efficient backprop" (1998), section 4.4.
    """

    neuron_name = "tanh"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = tanh(x)."""
        xp.tanh(x, out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * (1 - y^2)."""
        xp.multiply(dy, 1 - known * known, out=dx)


class Softplus(Neuron):
    """Smooth rectifier y = log(1 + exp(x)), in a form that cannot overflow.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Dugas et al., "Incorporating second-order functional knowledge for better option
    pricing" (2001).
    """

    neuron_name = "softplus"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = max(x, 0) + log1p(exp(-|x|))."""
        xp.add(xp.maximum(x, 0), xp.log1p(xp.exp(-xp.abs(x))), out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * sigmoid(x), with sigmoid(x) = 1 - exp(-y)."""
        xp.multiply(dy, -xp.expm1(-known), out=dx)


class Exponential(Neuron):
    """Exponential y = exp(x), which makes variances positive.

    It overflows float32 beyond x = 88.  Losses that take a log-variance and exponentiate it
    themselves (GaussianReconstruction, GaussianKL) are safer.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Regier et al. (2015), section 3.1, the nonlinearity of f_Sigma.
    """

    neuron_name = "exponential"

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = exp(x)."""
        xp.exp(x, out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * y."""
        xp.multiply(dy, known, out=dx)


class GELU(Neuron):
    """Gaussian error linear unit y = x Phi(x), Phi being the normal distribution function.

    This is the exact form, Phi(x) = (1 + erf(x / sqrt(2))) / 2, computed as erfc(-x / sqrt(2)) / 2,
    which is also precise far below zero; not the approximation by tanh.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Hendrycks and Gimpel, "Gaussian error linear units" (2016).
    """

    neuron_name = "gelu"
    from_input = True
    rectifies = True

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x Phi(x)."""
        xp.multiply(x, self._probability(xp, x), out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * (Phi(x) + x phi(x)), phi being the normal density."""
        density = xp.exp(-0.5 * known * known) * (1 / math.sqrt(2 * math.pi))
        xp.multiply(dy, self._probability(xp, known) + known * density, out=dx)

    @staticmethod
    def _probability(xp: Any, x: Array) -> Array:
        return 0.5 * erfc(xp, x * -math.sqrt(0.5))


class SiLU(Neuron):
    """Sigmoid linear unit y = x sigmoid(x), also known as swish.

    Shapes: bottom (n, ...) and top of the same shape.

    Source: Elfwing, Uchibe and Doya (2018); Ramachandran, Zoph and Le (2017).
    """

    neuron_name = "silu"
    from_input = True
    rectifies = True

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x (1 + tanh(x / 2)) / 2."""
        xp.multiply(x, self._sigmoid(xp, x), out=y)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * s (1 + x (1 - s)) with s = sigmoid(x)."""
        s = self._sigmoid(xp, known)
        xp.multiply(dy, s * (1 + known * (1 - s)), out=dx)

    @staticmethod
    def _sigmoid(xp: Any, x: Array) -> Array:
        return 0.5 * (1 + xp.tanh(0.5 * x))


class PReLU(Neuron):
    """Parametric rectifier y = x for x > 0, else a x, with a learned slope a for each channel.

    As `neuron="prelu"`, or `neuron=L.PReLU.of(slope=0.1)`, the slopes are parameters of the layer
    that has the activation: `net.params["g1/slope"]`.  That layer's `rate=`, `decay=` and `shares=`
    concern them too, by their name: `rate={"slope": 0.1}`.

    Shapes: bottom (n, ...) and top of the same shape.  The first axis of an example counts the
    slopes: units of (n, units), channels of (n, channels, height, width).

    Args:
        slope: initialiser of a, default 0.25.

    Parameters: slope, of one number for each unit or channel.

    Raises:
        NetError: a bottom with one number per example, which has no channels.

    Source: He et al., "Delving deep into rectifiers" (2015).
    """

    neuron_name = "prelu"
    from_input = True  # a may be negative
    rectifies = True
    recordable = True
    decided = (*Neuron.decided, "slope_init")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        slope: Init = 0.25,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super(Neuron, self).__init__(name, [bottom], tops, **common)
        self.slope_init = slope
        self.a: Any = None  # the Parameter, once declared

    def declare(self, layer: Layer, shape: Shape) -> None:
        """Declare a in the layer that has the activation."""
        if not shape:
            layer.fail("its bottom has one number per example: there is no axis to count slopes by")
        if layer is not self and (self.shares is not None or self._tuning != TUNING):
            layer.fail(
                "its activation has settings of parameters, which belong to the layer itself: "
                f'{type(layer).__name__}(..., rate={{"slope": 2.0}}), say'
            )
        self.a = layer.parameter("slope", shape[:1], self.slope_init)

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = x for x > 0, else a x."""
        y[...] = xp.where(x > 0, x, self._slopes(x) * x)

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy for x > 0, else a dy."""
        dx[...] = xp.where(known > 0, dy, self._slopes(known) * dy)

    def differentiate_own(self, xp: Any, known: Array, dy: Array) -> None:
        """Compute da = the sum of dy x over x <= 0."""
        if self.a.trainable:
            others = (0, *range(2, known.ndim))
            xp.sum(dy * xp.minimum(known, 0), axis=others, out=self.a.diff)

    def _slopes(self, x: Array) -> Array:
        """Return a so that it fits x, (n, slopes, ...)."""
        return self.a.data.reshape(-1, *[1] * (x.ndim - 2))
