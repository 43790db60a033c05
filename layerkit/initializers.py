"""Initialisers: values of parameters before training.

`draw` returns a float64 NumPy array of a given shape.  For a weight of shape (inputs, ..., outputs)
the fan-in is the product of all axes but the last, the fan-out is the last; in a layer with groups
they are those of one group.

Numbers are drawn from what `draw` is given: `normal(shape)` are standard normal numbers, and
`normal.uniform(shape)` uniform ones in (0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from layerkit.settings import Finite, NotNegative, Positive, Rule, accept, checks, real

Draw = Callable[[tuple[int, ...]], np.ndarray]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    return math.prod(shape[:-1]), shape[-1]


class Initializer:
    """Base class of initialisers, which define `draw`.

    Attributes:
        by_group: whether it draws the weights of each group of a layer by itself, as it goes by the
            numbers of inputs and outputs; False, the default, draws those of all groups at once.
    """

    by_group: ClassVar[bool] = False

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return values for a parameter of this shape; `normal` gives standard normal numbers."""
        raise NotImplementedError


@checks
@dataclass(frozen=True)
class Constant(Initializer):
    """Constant `value` in every element.

    Args:
        value: the number, default 0.

    Source: Caffe's "constant" filler.
    """

    value: Finite = 0.0

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return an array full of `value`."""
        return np.full(shape, float(self.value))


@checks
@dataclass(frozen=True)
class Normal(Initializer):
    """Independent normal numbers of the given mean and standard deviation.

    Args:
        sd: standard deviation, at least 0, default 0.01.
        mean: mean, default 0.

    Source: Caffe's "gaussian" filler.
    """

    sd: NotNegative = 0.01
    mean: Finite = 0.0

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return mean + sd * noise."""
        return self.mean + self.sd * normal(shape)


@checks
@dataclass(frozen=True)
class Uniform(Initializer):
    """Independent numbers between `low` and `high`, all equally likely.

    Args:
        low, high: bounds, default -0.05 and 0.05.

    Source: Caffe's "uniform" filler.
    """

    low: Finite = -0.05
    high: Finite = 0.05

    def draw(self, shape: tuple[int, ...], normal: Any) -> np.ndarray:
        """Return low + (high - low) * noise."""
        return self.low + (self.high - self.low) * normal.uniform(shape)


@checks
@dataclass(frozen=True)
class Bilinear(Initializer):
    """Weights with which a Deconvolution enlarges pictures by bilinear interpolation.

    For weights (c, height, width, channels) each channel of the top is the enlarged channel of the
    bottom, with as many channels in both; for (c, height, width, 1) all of them are added up, which
    in a Deconvolution of c groups enlarges each.  To enlarge f times, take a stride of f, a kernel
    of 2 f - f % 2, and a pad of ceil((f - 1) / 2).

        w[y, x] = (1 - |y / g - m|) (1 - |x / g - m|)

    with g = ceil(size / 2) and m = (2 g - 1 - g % 2) / (2 g), by axis.

    Source: Caffe's "bilinear" filler; Long, Shelhamer and Darrell, "Fully convolutional networks
    for semantic segmentation" (2015).
    """

    by_group = True

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return the weights, which are not drawn at all."""
        if len(shape) != 4 or shape[3] not in (1, shape[0]):
            raise ValueError(
                "Bilinear is for weights of a Deconvolution, (c, height, width, channels), with "
                f"as many channels as its bottom, or one in each group; these have shape {shape}"
            )
        slopes = []
        for size in shape[1:3]:
            half = math.ceil(size / 2)
            middle = (2 * half - 1 - half % 2) / (2 * half)
            slopes.append(1 - np.abs(np.arange(size) / half - middle))
        window = np.multiply.outer(*slopes)[None, :, :, None]
        pairs = np.eye(shape[0]) if shape[3] > 1 else np.ones((shape[0], 1))
        return window * pairs[:, None, None, :]


@checks
@dataclass(frozen=True)
class Xavier(Initializer):
    """Normal numbers of variance 2 gain^2 / (fan_in + fan_out), for tanh and linear layers.

    Args:
        gain: factor of the standard deviation, above 0, default 1.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 12.
    """

    by_group = True
    gain: Positive = 1.0

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return gain * sqrt(2 / (fan_in + fan_out)) * noise."""
        return self.gain * math.sqrt(2.0 / sum(_fans(shape))) * normal(shape)


@checks
@dataclass(frozen=True)
class He(Initializer):
    """Normal numbers of variance 2 gain^2 / fan_in, for rectifiers.

    Args:
        gain: factor of the standard deviation, above 0, default 1.

    Source: He et al., "Delving deep into rectifiers" (2015), equation 10.
    """

    by_group = True
    gain: Positive = 1.0

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return gain * sqrt(2 / fan_in) * noise."""
        return self.gain * math.sqrt(2.0 / _fans(shape)[0]) * normal(shape)


@checks
@dataclass(frozen=True)
class Orthogonal(Initializer):
    """Orthonormal columns, or rows if there are fewer rows, times `gain`.

    Args:
        gain: factor, above 0, default 1.

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks" (2014).
    """

    by_group = True
    gain: Positive = 1.0

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return Q of a QR decomposition, times the signs of R's diagonal to make it uniform."""
        rows, columns = _fans(shape) if len(shape) > 1 else (shape[0], 1)
        tall = normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


NAMED: dict[str, type[Initializer]] = {
    "zeros": Constant,
    "normal": Normal,
    "uniform": Uniform,
    "xavier": Xavier,
    "he": He,
    "orthogonal": Orthogonal,
    "bilinear": Bilinear,
}


class Initial(Rule):
    """Rule for an initialiser, its name ("he"), or a constant."""

    expected = (
        f"an initialiser: one of layerkit.initializers, a name ({', '.join(NAMED)}) or a finite "
        "number"
    )
    kept = False

    def accept(self, value: Any) -> Initializer:
        """Return the initialiser."""
        if isinstance(value, Initializer):
            return value
        if isinstance(value, str):
            if value not in NAMED:
                raise ValueError
            return NAMED[value]()
        number = float(real(value))
        if not math.isfinite(number):
            raise ValueError
        return Constant(number)


Init = Annotated[Initializer | str | float, Initial()]


def get(init: Initializer | str | float) -> Initializer:
    """Return an initialiser given itself, its name ("he") or a constant (0.0).

    Raises:
        NetError: an unknown name, or something else.
    """
    return accept(Initial(), init, "it", "parameter")


@dataclass(frozen=True)
class _InGroups(Initializer):
    """Weights that an initialiser draws for each group by itself, side by side along an axis."""

    init: Initializer
    groups: int
    axis: int

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return the weights of all groups, each of numbers of its own."""
        parts = np.split(normal(shape), self.groups, self.axis)
        return np.concatenate([self.init.draw(x.shape, x.reshape) for x in parts], self.axis)


def in_groups(init: Initializer | str | float, groups: int, axis: int) -> Initializer:
    """Return an initialiser of a layer whose groups of outputs have inputs of their own.

    Args:
        init: the initialiser, its name or a constant.
        groups: how many there are.
        axis: of the weights, along which they lie.
    """
    init = get(init)
    return _InGroups(init, groups, axis) if init.by_group and groups > 1 else init
