"""What a backend must offer.  Layers are written against this and the array module `xp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray: the same array code runs on both


class Backend(Protocol):
    """Arrays, matrix products and step capture of one kind of device.

    Attributes:
        name: "numpy" or "cupy".
        xp: the array module, numpy or cupy.
    """

    name: str
    xp: Any

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array filled with zeros."""

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """`array` on this device, copied only if it is not there or not of this dtype."""

    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy copy of a backend array, safe to keep."""

    def gemm(self, a: Array, b: Array, out: Array) -> None:
        """Compute out = a @ b for matrices.

        `a` and `b` may be transposed views, `out` is row-major.
        """

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """A callable that does what `step` does, recorded for replay where the device can."""

    def synchronize(self) -> None:
        """Waits until all work handed to the device is done."""
