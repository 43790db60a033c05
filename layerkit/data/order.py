"""The order in which a data set is read: shuffled anew each epoch, equally on every machine."""

from __future__ import annotations

import numpy as np

from layerkit.backends import philox

SAMPLE = 64  # rows by which sets are compared


def epoch_order(count: int, seed: int, stream: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Return the row numbers of one epoch, int64 (count,): a pure function of the arguments."""
    if not shuffle:
        return np.arange(count)
    return philox.permutation(np, count, seed, stream, epoch)


def passages(position: int, rows: int, count: int) -> list[tuple[int, int, int]]:
    """Find the `rows` examples that follow the first `position` of an endless run of epochs.

    Returns:
        (epoch, start, stop) for each epoch touched, with start and stop inside the epoch.
    """
    pieces = []
    while rows:
        epoch, start = divmod(position, count)
        stop = min(start + rows, count)
        pieces.append((epoch, start, stop))
        position += stop - start
        rows -= stop - start
    return pieces


def sample_rows(count: int) -> np.ndarray:
    """Return the numbers of a few of `count` rows, evenly spread, in increasing order."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE), dtype=np.int64))
