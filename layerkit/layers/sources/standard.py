"""Standard: the means and deviations by which a data layer's first array is standardised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from layerkit.backends.base import Array
from layerkit.data import moments
from layerkit.data.arrays import narrowed

KINDS = ("mean", "deviation")
PIECE = 1 << 21  # numbers that are measured at once


class Numbers(NamedTuple):
    """Scale, mean and deviation, in the net's floats, where they are needed.

    Attributes:
        by_pixel: whether they differ between the pixels of a picture.
    """

    scale: float
    mean: Array | None
    deviation: Array | None

    @property
    def by_pixel(self) -> bool:
        """Tell whether they differ along the last two axes of an example."""
        found = (n for n in (self.mean, self.deviation) if n is not None)
        return any(n.ndim > 1 and n.shape[-2:] != (1, 1) for n in found)

    def apply(self, x: Array) -> None:
        """Compute x = (scale x - mean) / deviation, in place."""
        if self.scale != 1:
            x *= self.scale
        if self.mean is not None:
            x -= self.mean
        if self.deviation is not None:
            x /= self.deviation


class Standard:
    """Means and deviations of a data layer, given or measured; see Data.

    Measured ones are statistics of the layer, not a number until they are known.

    Args:
        layer: a data layer that is being set up; its `own_shapes` are known.
    """

    def __init__(self, layer: Any):
        self.layer = layer
        self.given = {kind: self._given(kind, getattr(layer, kind)) for kind in KINDS}
        # Another net's arrays may take the place of these: see Net, share.
        self.own = {name: s.data for name, s in layer.statistics.items()}

    def _given(self, kind: str, value: Any) -> np.ndarray | None:
        """Return given numbers in the net's floats; declare a statistic for what is measured."""
        layer, shape = self.layer, self.layer.own_shapes[0]
        if isinstance(value, str):
            if not layer.can_measure():
                layer.fail(
                    f"{kind}={value!r}: its set cannot be read through before; give numbers, such "
                    f"as {kind}=0.5"
                )
            layer.statistic(kind, moments.group_shape(value, shape), math.nan)
        if value is None or isinstance(value, str):
            return None
        try:
            numbers = moments.broadcast(value, shape)
        except ValueError as error:
            layer.fail(f"{kind} {error}")
        with np.errstate(over="ignore", under="ignore"):
            numbers = np.asarray(numbers, layer.run.dtype)
        if not np.isfinite(numbers).all() or (kind == "deviation" and not numbers.all()):
            layer.fail(f"{kind} has numbers that {layer.run.dtype} cannot hold")
        return numbers

    def numbers(self, host: bool = False) -> Numbers:
        """Return the numbers on the backend, or as copies that NumPy can use."""
        backend, statistics = self.layer.backend, self.layer.statistics
        found = []
        for kind in KINDS:
            if kind in statistics:
                data = statistics[kind].data
                found.append(backend.to_host(data) if host else data)
            else:
                given = self.given[kind]
                found.append(given if host or given is None else backend.asarray(given))
        return Numbers(self.layer.scale, *found)

    def fingerprint(self) -> tuple[bytes, ...]:
        """Return a value that changes when measured numbers are replaced, as by a snapshot."""
        layer = self.layer
        return tuple(layer.backend.to_host(s.data).tobytes() for s in layer.statistics.values())

    def measure(self) -> None:
        """Measure what is not known yet.

        Raises:
            NetError: it is another net's, which has not measured it yet.
            DataError: numbers of the set are not finite.
        """
        layer = self.layer
        unknown = [k for k, s in layer.statistics.items() if bool(layer.xp.isnan(s.data).any())]
        if not unknown:
            return
        for kind in unknown:
            if layer.statistics[kind].data is not self.own[kind]:
                layer.fail(
                    f"its {kind} is that of the net it shares parameters with, which has not "
                    "measured it yet: let that make a pass, or load a snapshot into it, before"
                )
        groups = {kind: getattr(layer, kind) for kind in unknown}
        found = moments.measure(dict.fromkeys(groups.values()), self._pieces())
        for kind, group in groups.items():
            values = found[group].mean if kind == "mean" else found[group].deviation()
            if not np.isfinite(values).all():
                raise layer.wrong(
                    f"its {kind} cannot be measured, as numbers of top {layer.tops[0]!r} are not "
                    "finite; mend them, or give numbers"
                )
            what = f"{layer.label()}: its measured {kind}"
            values = narrowed(np.asarray(values, "float64"), layer.run.dtype, what)
            statistic = layer.statistics[kind]
            statistic.data[...] = layer.backend.asarray(values.reshape(statistic.shape))

    def _pieces(self) -> Iterator[np.ndarray]:
        """Yield the first array's scaled numbers, some rows at a time."""
        layer, shape = self.layer, self.layer.own_shapes[0]
        count, rows = layer.stored_count, max(1, PIECE // math.prod(shape))
        for start in range(0, count, rows):
            array = layer.stored(start, min(start + rows, count))
            yield array.reshape(-1, *shape).astype("float64") * layer.scale
