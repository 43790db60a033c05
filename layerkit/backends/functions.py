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
    # Imported when called: SciPy takes a while, and CuPy is not everywhere.
    package = "scipy" if xp is np else f"{xp.__name__}x.scipy"
    return importlib.import_module(f"{package}.special").erfc(x)
