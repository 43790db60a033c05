"""Lookups by whole numbers: Embed, a learned row for each id, and OneHot."""

from __future__ import annotations

import math
from typing import Unpack

from layerkit.backends.base import Array
from layerkit.backends.functions import add_rows
from layerkit.blob import Blob
from layerkit.initializers import Init, Normal
from layerkit.layer import Layer, Shape
from layerkit.layers.losses.classes import check_labels, whole_below
from layerkit.layers.shapes.axes import Axis
from layerkit.settings import Count, NotNegative, Tops
from layerkit.settings.tuning import Tuning


class Lookup(Layer):
    """Base class of layers whose bottom holds ids, whole numbers from 0 to count - 1.

    An id that is none raises a DataError, which names row and place; on a GPU it makes what comes
    of it NaN.
    """

    count: int

    def differentiable(self, bottom: int) -> bool:
        """Return False: ids are whole numbers."""
        return False

    def reads_integers(self, bottom: int) -> bool:
        """Return True."""
        return True

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if an id is none."""
        check_labels(self, bottoms[0], self.count, kind="id")

    def ids(self, bottoms: list[Blob]) -> tuple[Array, Array]:
        """Return the ids, flat, and 0 for each, or NaN for one that is none and counts as 0."""
        xp, given = self.xp, bottoms[0].data.reshape(-1)
        good = whole_below(xp, given, self.count)
        wrong = xp.where(good, 0, math.nan).astype(self.run.dtype)
        return xp.where(good, given, 0).astype("int64", copy=False), wrong


class Embed(Lookup):
    """Learned vectors, one for each id: y = W[id].

    It is a Dense layer without bias of OneHot's ids, without the product.

    Shapes: bottom (n, ...), ids from 0 to count - 1; top (n, ..., units).  Ids have no gradient.

    Args:
        count: how many ids there are.
        units: length of each vector.
        weight: initialiser of W, by default normal numbers with standard deviation 1.
        l1, l2: regularisation of W; see Parameter.

    Parameters: weight (count, units).

    Raises:
        DataError: an id that is none.  On a GPU it makes y NaN.

    Source: Bengio et al., "A neural probabilistic language model" (2003), section 2.
    """

    recordable = True
    decided = (*Layer.decided, "count", "units", "weight_init", "l1", "l2")

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        count: Count,
        units: Count,
        weight: Init | None = None,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.count, self.units = count, units
        self.weight_init = Normal(1.0) if weight is None else weight
        self.l1, self.l2 = l1, l2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W; return the bottom's shape and one axis more for the top."""
        shape = (self.count, self.units)
        self.w = self.parameter("weight", shape, self.weight_init, self.l1, self.l2)
        return [(*shapes[0], self.units)]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy a row of W for each id."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        ids, wrong = self.ids(bottoms)
        y = tops[0].data.reshape(-1, self.units)
        y[...] = self.xp.take(self.w.data, ids, axis=0) + wrong[:, None]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dW, the sum of dy over the places of each id."""
        if self.w.trainable:
            self.w.diff.fill(0)
            dy = tops[0].diff.reshape(-1, self.units)
            add_rows(self.xp, self.w.diff, self.ids(bottoms)[0], dy)


class OneHot(Lookup):
    """Indicator of each id: y has a new axis of `count` numbers, 1 at the id and 0 elsewhere.

    Shapes: bottom (n, ...), ids from 0 to count - 1; top with the new axis, (n, ..., count) by
    default.  Ids have no gradient.

    Args:
        count: how many ids there are.
        axis: place of the new axis in an example of the top, without the batch axis, default -1,
            the last; 0 makes (n, count, height, width) of (n, height, width).

    Raises:
        NetError: no such axis.
        DataError: an id that is none.  On a GPU it makes y NaN.

    Source: Bridle (1990), the 1-from-N coding of classes.
    """

    recordable = True
    decided = (*Layer.decided, "count", "axis")

    def __init__(
        self, name: str, bottom: str, *, count: Count, axis: Axis = -1, tops: Tops | None = None
    ):
        super().__init__(name, [bottom], tops)
        self.count, self.axis = count, axis

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Put the new axis in place; declare no parameters."""
        shape, axes = shapes[0], len(shapes[0]) + 1
        if not -axes <= self.axis < axes:
            self.fail(
                f"axis must be from {-axes} to {axes - 1}, as the top has {axes} axes, got "
                f"{self.axis}"
            )
        axis = self.axis % axes
        self._view = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        return [(*shape[:axis], self.count, *shape[axis:])]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compare each id with all."""
        if self.backend.name == "numpy":
            self.check_data(bottoms)
        before, after = self._view
        ids, wrong = (a.reshape(-1, before, 1, after) for a in self.ids(bottoms))
        y = tops[0].data.reshape(-1, before, self.count, after)
        y[...] = (ids == self.xp.arange(self.count)[:, None]) + wrong

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: ids have no gradient."""
