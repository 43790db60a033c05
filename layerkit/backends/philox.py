"""Counter-based random numbers: Philox4x32-10 in array code.

A number is a pure function of (seed, stream, step, index): there is no state to save, the CPU and
the GPU draw the same noise, a resumed run continues bit for bit, and a backward pass can redraw
what the forward pass drew.  A stream is one user of random numbers (a layer, an initialiser), a
step is one forward pass.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from layerkit.backends.base import Array

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF


def stream_of(name: str) -> int:
    """Return the stream of a name: its CRC-32, equal in every process and version."""
    return zlib.crc32(name.encode())


def philox4x32(xp: Any, counter: tuple[Array, ...], key: tuple[int, int]) -> tuple[Array, ...]:
    """Apply ten rounds to four uint64 arrays of 32-bit words; return four such arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    mask, shift = xp.uint64(MASK), xp.uint64(32)
    for _ in range(ROUNDS):
        p0, p1 = c0 * xp.uint64(MULTIPLIERS[0]), c2 * xp.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ xp.uint64(k0),
            p1 & mask,
            (p0 >> shift) ^ c3 ^ xp.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def bits(xp: Any, count: int, seed: int, stream: int, step: int) -> Array:
    """Return `count` uniform 32-bit integers as a uint64 array of shape (count,)."""
    blocks = -(-count // 4)
    index = xp.arange(blocks, dtype=xp.uint64)
    words = (xp.full(blocks, w & MASK, dtype=xp.uint64) for w in (stream, step, step >> 32))
    out = philox4x32(xp, (index, *words), (seed & MASK, (seed >> 32) & MASK))
    return xp.stack(out, axis=1).reshape(-1)[:count]


def at(places: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Return four uniform 32-bit integers for each place, uint64 (n, 4).

    They depend on seed, stream and place alone, not on which places are asked for together.
    """
    places = np.asarray(places, np.uint64)
    own = np.full(places.shape, stream & MASK, np.uint64)
    counter = (places & np.uint64(MASK), own, places >> np.uint64(32), np.zeros_like(places))
    return np.stack(philox4x32(np, counter, (seed & MASK, (seed >> 32) & MASK)), axis=1)


def uniform(xp: Any, shape: tuple[int, ...], seed: int, stream: int, step: int) -> Array:
    """Return uniform float64 numbers in the open interval (0, 1)."""
    return (bits(xp, math.prod(shape), seed, stream, step).reshape(shape) + 0.5) * 2.0**-32


def normal(xp: Any, shape: tuple[int, ...], seed: int, stream: int, step: int) -> Array:
    """Return standard normal float64 numbers, the Box-Muller transform of adjacent uniforms."""
    count = math.prod(shape)
    u = uniform(xp, (-(-count // 2), 2), seed, stream, step)
    radius, angle = xp.sqrt(-2.0 * xp.log(u[:, 0])), (2.0 * math.pi) * u[:, 1]
    pairs = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].reshape(shape)


def permutation(xp: Any, count: int, seed: int, stream: int, step: int) -> Array:
    """Return a random permutation of range(count), int64, by sorting random keys."""
    return xp.argsort(bits(xp, count, seed, stream, step), kind="stable")


def keys(seed: int, stream: int) -> tuple[np.uint64, np.uint32]:
    """Return seed and stream as CUDA kernels take them."""
    return np.uint64(seed & (1 << 64) - 1), np.uint32(stream & MASK)
