"""Functions of an array that neither NumPy nor CuPy has in its own module."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from layerkit.backends.base import Array


def erfc(xp: Any, x: Array) -> Array:
    """Return 1 - erf(x) of every element, precise also where erf(x) is close to 1.

    Args:
        xp: numpy or cupy.
        x: an array of it.
    """
    return _special(xp).erfc(x)


def log_gamma(xp: Any, x: Array) -> Array:
    """Return log |Gamma(x)| of every element.

    Args:
        xp: numpy or cupy.
        x: an array of it.
    """
    return _special(xp).gammaln(x)


def _special(xp: Any) -> Any:
    """Return SciPy's module of special functions, or CuPy's."""
    # Imported when called: SciPy takes a while, and CuPy is not everywhere.
    package = "scipy" if xp is np else f"{xp.__name__}x.scipy"
    return importlib.import_module(f"{package}.special")


def add_rows(xp: Any, target: Array, index: Array, rows: Array) -> None:
    """Add each row of `rows` to that row of `target` which `index` says, as often as it is named.

    Args:
        xp: numpy or cupy.
        target: (m, size), changed in place.
        index: whole numbers (n,), from 0 to m - 1.
        rows: (n, size).
    """
    if xp is not np:
        xp.add.at(target, index, rows)
    elif len(index):  # eight times as fast as add.at
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        target[ordered[starts]] += np.add.reduceat(rows[order], starts, axis=0)
