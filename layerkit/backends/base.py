"""The interface of a backend, which layers use along with the array module `xp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

# CuPy declares no types; its arrays have NumPy's methods, as far as array code needs them.
Array: TypeAlias = NDArray[Any]
GPUArray: TypeAlias = Any  # of CuPy only, with what NumPy's lack, such as the address in memory


class Backend(Protocol):
    """Arrays, matrix products and step capture on one kind of device.

    Attributes:
        name: "numpy" or "cupy".
        xp: the array module, numpy or cupy.
    """

    name: str
    xp: Any

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a new array filled with zeros."""

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return `array` on this device, copied only if it is not there or not of this dtype."""

    def to_host(self, array: Array) -> np.ndarray:
        """Return a NumPy copy of a backend array, safe to keep."""

    def gemm(self, a: Array, b: Array, out: Array, add: bool = False) -> None:
        """Compute out = a @ b for matrices, or add it to `out`.

        `a` and `b` may be transposed views, `out` is row-major.
        """

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that does what `step` does, recorded for replay if the device can."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""
