"""Normalization: BatchNorm, LayerNorm and GroupNorm, which give numbers mean 0 and variance 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Unpack

from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.layers.shapes.axes import Axis, axis_of
from layerkit.settings import Count, Flag, Number, Positive, Tops
from layerkit.settings.tuning import Tuning

Momentum = Annotated[float, Number(least=0, below=1)]


class Normalization(Layer):
    """Base class of layers that normalise groups of numbers of their bottom, each by itself:

        y = gain (x - mean) / sqrt(variance + epsilon) + bias

    with the mean and the variance (the mean squared deviation) of the group that x is in.  With d
    for (x - mean) / sqrt(variance + epsilon) and dd = dy gain, the backward pass is

        dx = (dd - mean of dd - d * mean of dd d) / sqrt(variance + epsilon).

    A subclass sets `view`, the shape of an example's array in which a group is some whole axes, and
    `over`, these axes, the batch axis counted.

    Attributes:
        count, spread: element i of an example has gain and bias number i / spread % count.

    Args:
        epsilon: what is added to the variance.
        gain, bias: initialisers of these; None for none, so that gain is 1 or bias 0.
    """

    decided = (*Layer.decided, "gain_init", "bias_init")
    view: Shape
    over: tuple[int, ...]

    def __init__(
        self,
        name: str,
        bottom: str,
        epsilon: Positive,
        gain: Init | None,
        bias: Init | None,
        tops: Tops | None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.epsilon, self.gain_init, self.bias_init = epsilon, gain, bias

    def set_up(self, shape: Shape, first: int, last: int) -> None:
        """Declare gain, bias and buffers.

        Args:
            shape: of an example.
            first, last: gain and bias are of the axes of an example from `first` up to `last`.
        """
        own = shape[first:last]
        self.count, self.spread = math.prod(own), math.prod(shape[last:])
        inits = {"gain": self.gain_init, "bias": self.bias_init}
        self.g, self.b = (
            None if init is None else self.parameter(name, own, init, groups=0)
            for name, init in inits.items()
        )
        self._spread = (*own, *[1] * (len(shape) - last))  # which broadcasts against a batch
        kept = range(1 + first, 1 + last)
        self._others = tuple(axis for axis in range(1 + len(shape)) if axis not in kept)
        self.normalized = self.buffer(shape)
        counts = [1 if 1 + i in self.over else size for i, size in enumerate(self.view)]
        self.inverse = self.buffer(tuple(counts))  # 1 / sqrt(variance + epsilon)

    def grouped(self, array: Array) -> Array:
        """Return (n, *shape) as (n, *view)."""
        return array.reshape(len(array), *self.view)

    def mean_of(self, x: Array) -> Array:
        """Return the mean of each group, of a grouped array."""
        return x.mean(axis=self.over, keepdims=True)

    def measure(self, x: Array) -> tuple[Array, Array]:
        """Fill `normalized` with x - mean, of grouped x; return mean and variance."""
        xp, deviation = self.xp, self.grouped(self.normalized.data)
        mean = self.mean_of(x)
        xp.subtract(x, mean, out=deviation)
        return mean, self.mean_of(xp.square(deviation))

    def scale(self, y: Array, inverse: Array) -> None:
        """Multiply `normalized` by 1 / sqrt(variance + epsilon), and compute y of it."""
        deviation = self.grouped(self.normalized.data)
        deviation *= inverse
        y[...] = self.normalized.data
        if self.g is not None:
            y *= self.g.data.reshape(self._spread)
        if self.b is not None:
            y += self.b.data.reshape(self._spread)

    def slopes(self, dy: Array) -> Array:
        """Fill the diffs of gain and bias; return dy gain."""
        self._sum(self.g, dy, self.normalized.data)
        self._sum(self.b, dy, None)
        return dy if self.g is None else dy * self.g.data.reshape(self._spread)

    def _sum(self, parameter: Parameter | None, dy: Array, factor: Array | None) -> None:
        if parameter is not None and parameter.trainable:
            terms = dy if factor is None else dy * factor
            self.xp.sum(terms, axis=self._others, out=parameter.diff)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y, each group normalised by its own mean and variance."""
        _, variance = self.measure(self.grouped(bottoms[0].data))
        inverse = self.inverse.data
        inverse[...] = 1 / self.xp.sqrt(variance + self.epsilon)
        self.scale(tops[0].data, inverse)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx as above, d gain = the sum of dy d, and d bias = the sum of dy."""
        slopes = self.slopes(tops[0].diff)
        if bottoms[0].diff is not None:
            self.through(self.grouped(slopes), self.inverse.data, self.grouped(bottoms[0].diff))

    def through(self, slopes: Array, inverse: Array, dx: Array) -> None:
        """Compute dx of grouped slopes dd, through mean and variance."""
        d = self.grouped(self.normalized.data)
        self.xp.subtract(slopes, self.mean_of(slopes), out=dx)
        dx -= d * self.mean_of(slopes * d)
        dx *= inverse


class BatchNorm(Normalization):
    """Batch normalisation: every channel gets mean 0 and variance 1 over the batch.

    In training, with m numbers of each channel in a batch,

        mean = sum of x / m,   variance = sum of (x - mean)^2 / m
        y = gain (x - mean) / sqrt(variance + epsilon) + bias

    and running estimates of both follow,

        running = momentum * running + (1 - momentum) * that of the batch,

    with m / (m - 1) times the variance, which has no bias.  They start from 0 and 1, snapshots
    keep them, and nets that share parameters share them.  In phase "test", and in `infer`, y is
    computed with them instead, so that an example's values do not depend on its neighbours'.  Gain
    and bias are part of the layer; a bias of the layer before it would change nothing.

    A batch in which a channel is not finite leaves the running estimates of that channel alone.

    Shapes: bottom (n, ...) and top of the same shape.  A channel is one of `axis`: a unit of
    (n, units), or a channel of (n, channels, height, width).

    Args:
        axis: axis of an example, without the batch axis, that counts channels, default 0.
        momentum: how much of the running estimates each batch leaves, default 0.9.
        frozen: True normalises by the running estimates in training too, and leaves them as they
            are, as for finetuning; False by default.
        epsilon: what is added to the variance, default 1e-5.
        gain, bias: initialisers, default 1 and 0; None for none of them.

    Attributes:
        pooling: shards that normalise their batches as one, and what turns an array of the means of
            this one into that of all; None, the default, for a batch by itself.  See
            layerkit.Distributed.

    Parameters: gain (channels,), bias (channels,).  Statistics: mean (channels,), variance
    (channels,).

    Raises:
        NetError: in training, a batch of one number for each channel, which has no variance.

    Source: Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift" (2015), algorithms 1 and 2.
    """

    recordable = True
    decided = (*Normalization.decided, "axis")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        axis: Axis = 0,
        momentum: Momentum = 0.9,
        frozen: Flag = False,
        epsilon: Positive = 1e-5,
        gain: Init | None = 1.0,
        bias: Init | None = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, bottom, epsilon, gain, bias, tops, **common)
        self.axis, self.momentum, self.frozen = axis, momentum, frozen
        self.of_batch = True  # in the last forward pass
        self.pooling: tuple[int, Callable[[Array], Array]] | None = None

    def mean_of(self, x: Array) -> Array:
        """Return the mean of each channel, of a grouped array: over all shards, where they pool."""
        mean = super().mean_of(x)
        return mean if self.pooling is None else self.pooling[1](mean)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare gain, bias, mean and variance; return the bottom's shape for the top."""
        shape = shapes[0]
        self.axis = axis = axis_of(self, self.axis, shape, self.bottoms[0])
        before, channels, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
        self.view, self.over = (before, channels, after), (0, 1, 3)
        self.set_up(shape, axis, axis + 1)
        self.mean = self.statistic("mean", (channels,), 0.0)
        self.variance = self.statistic("variance", (channels,), 1.0)
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y by the mean and variance of the batch, which the running ones follow."""
        xp, x = self.xp, self.grouped(bottoms[0].data)
        self.of_batch = self.by_batch()
        if self.of_batch:
            count = self.check_count(len(x))
            mean, variance = self.measure(x)
            self._follow(mean, self.mean.data, 1.0)
            self._follow(variance, self.variance.data, count / (count - 1))
        else:
            mean, variance = (s.data.reshape(1, 1, -1, 1) for s in (self.mean, self.variance))
            xp.subtract(x, mean, out=self.grouped(self.normalized.data))
        inverse = self.inverse.data[:1]  # one for all examples
        inverse[...] = 1 / xp.sqrt(variance + self.epsilon)
        self.scale(tops[0].data, inverse)

    def by_batch(self) -> bool:
        """Return whether mean and variance are to be those of the batch."""
        return self.run.training and not self.frozen

    def check_count(self, rows: int) -> int:
        """Return how many numbers of each channel a batch has; fail if it is one."""
        count = rows * self.view[0] * self.view[2] * (self.pooling[0] if self.pooling else 1)
        if count == 1:
            self.fail(
                "a batch of one number for each channel has no variance; give more rows, or use it "
                "in phase 'test' or with frozen=True"
            )
        return count

    def _follow(self, found: Array, running: Array, factor: float) -> None:
        """Move running estimates towards those of a batch, which are first multiplied."""
        momentum, found = self.momentum, found.reshape(-1)
        moved = momentum * running + ((1 - momentum) * factor) * found
        running[...] = self.xp.where(self.xp.isfinite(moved), moved, running)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx, through the mean and variance of the batch if y was; d gain and d bias."""
        slopes = self.slopes(tops[0].diff)
        if bottoms[0].diff is None:
            return
        dx, inverse = self.grouped(bottoms[0].diff), self.inverse.data[:1]
        if self.of_batch:
            self.through(self.grouped(slopes), inverse, dx)
        else:
            self.xp.multiply(self.grouped(slopes), inverse, out=dx)


class LayerNorm(Normalization):
    """Layer normalisation: the last axes of every example get mean 0 and variance 1.

        y = gain (x - mean) / sqrt(variance + epsilon) + bias

    with mean and variance over `axis` and the axes after it, of each example by itself, so that
    training and test phase are alike.

    Shapes: bottom (n, ...) and top of the same shape.

    Args:
        axis: the first of the axes that are normalised together, without the batch axis; the
            default, -1, takes the last one alone: the features of (n, steps, features).  0 takes
            all of an example.
        epsilon: what is added to the variance, default 1e-5.
        gain, bias: initialisers, default 1 and 0; None for none of them.

    Parameters: gain and bias, of the shape of the axes that are normalised.

    Raises:
        NetError: no such axis, or axes of one number, which has no variance.

    Source: Ba, Kiros and Hinton, "Layer normalization" (2016), equation 3.
    """

    recordable = True
    decided = (*Normalization.decided, "axis")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        axis: Axis = -1,
        epsilon: Positive = 1e-5,
        gain: Init | None = 1.0,
        bias: Init | None = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, bottom, epsilon, gain, bias, tops, **common)
        self.axis = axis

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare gain and bias; return the bottom's shape for the top."""
        shape = shapes[0]
        self.axis = axis = axis_of(self, self.axis, shape, self.bottoms[0])
        if math.prod(shape[axis:]) == 1:
            self.fail(f"one number has no variance: from axis {axis} on {shape} has no more")
        self.view, self.over = (math.prod(shape[:axis]), math.prod(shape[axis:])), (2,)
        self.set_up(shape, axis, len(shape))
        return shapes


class GroupNorm(Normalization):
    """Group normalisation: groups of channels of every example get mean 0 and variance 1.

        y = gain (x - mean) / sqrt(variance + epsilon) + bias

    with mean and variance over all places and the channels / groups neighbouring channels of a
    group, of each example by itself; gain and bias are of each channel.  With as many groups as
    channels this is instance normalisation, with one group it is LayerNorm but for gain and bias.

    Shapes: bottom (n, channels, ...) and top of the same shape.

    Args:
        groups: how many groups the channels are divided into, which must come out even.
        epsilon: what is added to the variance, default 1e-5.
        gain, bias: initialisers, default 1 and 0; None for none of them.

    Parameters: gain (channels,), bias (channels,).

    Raises:
        NetError: groups that do not divide the channels, or of one number, which has no variance.

    Source: Wu and He, "Group normalization" (2018), equations 1, 2 and 7.
    """

    recordable = True
    decided = (*Normalization.decided, "groups")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        groups: Count,
        epsilon: Positive = 1e-5,
        gain: Init | None = 1.0,
        bias: Init | None = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, bottom, epsilon, gain, bias, tops, **common)
        self.groups = groups

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare gain and bias; return the bottom's shape for the top."""
        shape = shapes[0]
        if not shape or shape[0] % self.groups:
            self.fail(f"cannot divide the channels of {shape}, its first axis, by {self.groups}")
        size = math.prod(shape) // self.groups
        if size == 1:
            self.fail(f"one number has no variance: {self.groups} groups of {shape} have no more")
        self.view, self.over = (self.groups, size), (2,)
        self.set_up(shape, 0, 1)
        return shapes
