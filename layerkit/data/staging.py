"""Staging: batches on their way to a GPU whose memory does not hold the whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.backends.base import Array


class Staging:
    """Two places for a batch in the GPU's memory, each with a pinned one on the host to fill it.

    While the GPU works on the batch in one place, the next is copied to the other on a separate
    stream.

    Args:
        xp: cupy.
        rows: rows of a batch.
        shapes, dtypes: shape and dtype of an example of each array.

    Attributes:
        arrays: for each array, (2, rows, size) in the GPU's memory.
    """

    def __init__(
        self, xp: Any, rows: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]
    ):
        self.xp = xp
        self.arrays: list[Array] = []
        self._pinned: list[np.ndarray] = []
        for shape, dtype in zip(shapes, map(np.dtype, dtypes), strict=True):
            full = (2, rows, int(np.prod(shape, dtype=int)))
            count = int(np.prod(full))
            memory = xp.cuda.alloc_pinned_memory(count * dtype.itemsize)
            self._pinned.append(np.frombuffer(memory, dtype, count).reshape(full))
            self.arrays.append(xp.zeros(full, dtype))
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._arrived = [xp.cuda.Event(), xp.cuda.Event()]
        self._used = [xp.cuda.Event(), xp.cuda.Event()]
        self._holds: list[Any] = [None, None]
        # The arrays are zeroed on the stream that is current now; copies must come after that.
        for event in self._used:
            event.record()

    def holds(self, place: int, batch: Any) -> bool:
        """Tell whether the place holds this batch, identified by any value, as in `fill`."""
        return self._holds[place] == batch

    def fill(self, place: int, batch: Any, pieces: Sequence[Sequence[np.ndarray]]) -> None:
        """Copy a batch, given in consecutive pieces, to a place, without waiting for the copy."""
        self._arrived[place].synchronize()  # until then the pinned memory is read
        self._stream.wait_event(self._used[place])
        start = 0
        for arrays in pieces:
            stop = start + len(arrays[0])
            for pinned, array in zip(self._pinned, arrays, strict=True):
                pinned[place, start:stop] = array.reshape(len(array), -1)
            start = stop
        for array, pinned in zip(self.arrays, self._pinned, strict=True):
            array[place].set(pinned[place], stream=self._stream)
        self._arrived[place].record(self._stream)
        self._holds[place] = batch

    def begin(self, place: int) -> None:
        """Make later work on the current stream wait for the batch at a place."""
        self.xp.cuda.get_current_stream().wait_event(self._arrived[place])

    def end(self, place: int) -> None:
        """Mark the end of the work on the current stream that reads the place."""
        self._used[place].record()
