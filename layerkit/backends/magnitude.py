"""Magnitude: the largest size of the numbers in an array, which shows whether all are finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.backends.kernels import kernel, parallel_for

PIECES = 64  # into which a long array is cut
SHORT = 1 << 14  # numbers that one thread goes through sooner than others wake up

INTEGERS = {4: np.dtype("int32"), 8: np.dtype("int64")}


class Magnitude:
    """Measures the largest magnitude in NumPy arrays, by the threads of a team or in array code.

    Args:
        team: backends.threads.Team, or None for array code.
        xp: the array module.
    """

    def __init__(self, team: Any, xp: Any = np):
        self.team, self.xp = team, xp
        self._found = np.zeros(PIECES, np.int64)

    def __call__(self, array: Array) -> float:
        """Return the largest |a|, of any shape and row-major; NaN where the array holds one."""
        if not array.size:
            return 0.0
        if self.team is None:
            return max(abs(float(self.xp.max(array))), abs(float(self.xp.min(array))))
        bits = array.reshape(-1).view(INTEGERS[array.itemsize])
        return float(np.array(largest_bits(self.team.board, bits, self._found), bits.dtype).view(
            array.dtype
        ))


# Kernels.


@kernel
def _largest_of(bits):
    """The bits of a number's magnitude, as an integer, are in the order of the magnitudes.

    Those of NaN come after those of infinity.
    """
    mask = bits.dtype.type(np.iinfo(bits.dtype).max)
    largest = bits.dtype.type(0)
    for j in range(bits.size):
        largest = max(largest, bits[j] & mask)
    return np.int64(largest)


@kernel
def _largest_piece(i, bits, found, size):
    found[i] = _largest_of(bits[i * size : min((i + 1) * size, bits.size)])


@kernel
def largest_bits(team, bits, found):
    """The largest magnitude in a flat array, in bits; `found` is room for a number per piece."""
    if bits.size <= SHORT:
        return _largest_of(bits)
    size = -(-bits.size // len(found))
    count = -(-bits.size // size)
    parallel_for(team, _largest_piece, count, (bits, found, size))
    return found[:count].max()
