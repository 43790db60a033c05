"""Runners of data layers: examples on a GPU, all of them or batch by batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.order import passages
from layerkit.data.staging import Staging
from layerkit.engines.base import EngineRunner
from layerkit.engines.cuda.sources import NUMBERS

CHUNK = 1024  # numbers of an example that a block of threads goes through
UPLOADED = 64 << 20  # bytes that are copied to the GPU at once
SHARE = 0.5  # of the GPU's free memory, up to which a data set is kept there


def readable(dtype: np.dtype) -> np.dtype:
    """Return the dtype itself where kernels can read it, else one that holds the same numbers."""
    if dtype.name in NUMBERS:
        return dtype.newbyteorder("=")
    return np.dtype("float32" if dtype.itemsize < 4 else "float64")


class DataRunner(EngineRunner):
    """A data layer whose batches are brought to the GPU ahead of time.

    Attributes:
        place: its number among those of the net.
    """

    place = 0

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.xp = engine.xp
        shapes, kinds = layer.own_shapes, [readable(d) for d in layer.dtypes()]
        self.staging = Staging(self.xp, layer.run.batch_size, shapes, kinds)

    def prepare(self) -> None:
        """Have the examples that follow the layer's position ready for the next pass."""
        run = self.layer.run
        self._bring(run.passes, self.layer.position)
        self.staging.begin(run.passes % 2)

    def look_ahead(self) -> None:
        """Bring what follows, now that a pass that ends at the position is on its way."""
        run = self.layer.run
        self.staging.end(run.passes % 2)
        self._bring(run.passes + 1, self.layer.position)

    def _bring(self, number: int, position: int) -> None:
        layer, run = self.layer, self.layer.run
        batch = run.seed, position
        if not self.staging.holds(number % 2, batch):
            passed = passages(position, run.batch_size, layer.count)
            pieces = [layer.host(*piece) for piece in passed]
            for arrays in pieces:
                layer.check(arrays)
            self.staging.fill(number % 2, batch, pieces)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Gather, turn and scale in one pass."""
        self._gather(tops, self.staging.arrays, None)

    def _gather(self, tops: list[Blob], arrays: list[Array], keys: Array | None) -> None:
        layer, run, count = self.layer, self.layer.run, len(tops[0].data)
        for i, (top, array) in enumerate(zip(tops, arrays, strict=True)):
            table = layer.table if i == 0 and layer.augment else None
            size = math.prod(top.shape)
            pieces = -(-size // CHUNK)
            self.engine.launch(
                "data",
                "gather",
                count * pieces,
                size,
                pieces,
                run.batch_size,
                array,
                keys,
                layer.count,
                layer.repeat,
                0 if keys is None else len(keys),
                self.place,
                float(layer.scale) if i == 0 else 1.0,
                table,
                0 if table is None else table.shape[1],
                *philox.keys(run.seed, layer.stream),
                self.engine.clock,
                top.data,
                NUMBER=NUMBERS[array.dtype.name],
                OUT="i64" if top.name in layer.integer_blobs else "real",
            )
        layer.position += count

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: data do not depend on anything."""


class ResidentData(DataRunner):
    """A data layer whose arrays are in the GPU's memory, all of them."""

    def __init__(self, layer: Any, engine: Any):
        EngineRunner.__init__(self, layer, engine)
        self.xp = engine.xp
        layer.check(layer.arrays)
        self.arrays = [self._upload(a) for a in layer.arrays]
        # The orders of the few epochs that a batch can touch, as numbers in sorted keys.
        slots = -(-layer.run.batch_size // layer.count) + 1
        self._keys = self.xp.zeros((slots, layer.count // layer.repeat), "uint64")
        self._in_order: list[Any] = [None] * slots

    def _upload(self, array: np.ndarray) -> Array:
        """Return an array on the GPU, copied in slices: CuPy pins as much memory as it copies."""
        dtype = readable(array.dtype)
        found = self.xp.empty(array.shape, dtype)
        rows = max(1, UPLOADED // (dtype.itemsize * math.prod(array.shape[1:])))
        for start in range(0, len(array), rows):
            part = np.ascontiguousarray(array[start : start + rows], dtype)
            found[start : start + rows].set(part)
            self.engine.backend.synchronize()  # until then `part` is being read
        return found

    @staticmethod
    def fits(layer: Any, engine: Any) -> bool:
        """Return whether the arrays take little enough of the free memory."""
        free, _ = engine.xp.cuda.runtime.memGetInfo()
        return sum(a.nbytes for a in layer.arrays) <= SHARE * free and layer.count < 2**32

    def prepare(self) -> None:
        """Sort the orders of the epochs that the next batch touches."""
        layer, run = self.layer, self.layer.run
        for epoch, _, _ in passages(layer.position, run.batch_size, layer.count):
            slot, known = epoch % len(self._in_order), (run.seed, epoch)
            if self._in_order[slot] != known:
                keys = self.xp.empty(self._keys.shape[1], "uint64")
                self.engine.launch(
                    "data",
                    "order_keys",
                    self.engine.blocks(-(-keys.size // 4)),
                    keys.size,
                    *philox.keys(run.seed, layer.stream),
                    epoch,
                    int(layer.shuffle),
                    keys,
                )
                keys.sort()
                self._keys[slot] = keys
                self._in_order[slot] = known

    def look_ahead(self) -> None:
        """Do nothing: all examples are here."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Gather, turn and scale in one pass."""
        self._gather(tops, self.arrays, self._keys)
