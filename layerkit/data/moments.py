"""Moments: means and deviations by which data are centred and scaled, given or measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np

from layerkit.settings import Numbers, Rule, real

ROUNDING = 1e-12  # relative
GROUPS = ("all", "channel", "element")


class Moment(Rule):
    """Rule for a mean or a deviation: None, a number, an array, or the numbers to be measured.

    Args:
        above: the bound that all numbers must exceed.
    """

    def __init__(self, above: float = -np.inf):
        self.above = above
        kind = "positive number" if above == 0 else "finite number"
        self.expected = (
            f"a {kind}, an array of them, or one of {', '.join(map(repr, GROUPS))} to be measured"
        )

    def accept(self, value: Any) -> Any:
        """Return None, text, or a float64 array."""
        if value is None or (isinstance(value, str) and value in GROUPS):
            return value
        if isinstance(value, list | tuple) and value:
            value = np.array(Numbers().accept(value))
        if not isinstance(value, np.ndarray):
            value = np.asarray(real(value))
        if value.dtype.kind not in "iuf" or not value.size:
            raise ValueError
        value = value.astype("float64")
        if not np.isfinite(value).all() or not (value > self.above).all():
            raise ValueError
        return value


Mean = Annotated[Any, Moment()]
Deviation = Annotated[Any, Moment(above=0)]


def group_shape(group: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of measured numbers that broadcast over an example of shape `shape`."""
    if group == "element":
        return shape
    if group == "channel":
        return (*shape[:1], *[1] * (len(shape) - 1))
    return ()


def broadcast(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return given numbers with as many axes as an example has, or none.

    One axis, in examples of several, is that of channels, the first.

    Raises:
        ValueError: they do not fit examples of shape `shape`.
    """
    if values.ndim == 0:
        return values
    if values.ndim == 1 < len(shape):
        values = values.reshape(-1, *[1] * (len(shape) - 1))
    if values.ndim > len(shape) or np.broadcast_shapes(values.shape, shape) != shape:
        raise ValueError(f"has shape {values.shape}, which does not fit examples of shape {shape}")
    return values.reshape(*[1] * (len(shape) - values.ndim), *values.shape)


class Moments:
    """Mean and variance of numbers that come in pieces, each in a group.

    Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), (2.1).

    Args:
        group: "all" numbers together, each "channel" (index along an example's first axis), or each
            "element" of an example for itself.

    Attributes:
        mean, squares: float64, the means, and the sums of squared distances from them.
    """

    def __init__(self, group: str):
        self.group = group
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, piece: np.ndarray) -> None:
        """Add examples, float64 (n, ...)."""
        axes = {"all": None, "channel": (0, *range(2, piece.ndim)), "element": (0,)}[self.group]
        mean = piece.mean(axis=axes, keepdims=True)
        squares = np.square(piece - mean).sum(axis=axes, keepdims=True)
        count = piece.size // mean.size
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.count = total

    def deviation(self) -> Any:
        """Return the standard deviations; 1 stands for 0, so that what never varies becomes 0.

        Rounding of the mean can leave something of a number that never varies.
        """
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation <= ROUNDING * np.abs(self.mean), 1.0, deviation)


def measure(groups: Iterable[str], pieces: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Measure a set that comes in pieces, in one pass for all the groups that are asked for."""
    found = {group: Moments(group) for group in groups}
    for piece in pieces:
        for moments in found.values():
            moments.add(piece)
    return found
