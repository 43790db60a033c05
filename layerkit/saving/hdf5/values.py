"""Values that go into a file as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np

from layerkit.errors import brief
from layerkit.system.files import Errors


def plain(value: Any, where: str, error: Errors) -> Any:
    """Return a copy of `value` that JSON can hold and give back.

    NumPy's numbers become Python's, arrays and tuples become lists, and paths strings.  Floats may
    be infinite or NaN.

    Args:
        where: what `value` is called in the message.
        error: makes the error that is raised.

    Raises:
        error: something else is in it, a dict whose keys are not strings, say, or it holds itself.
    """
    try:
        return _plain(value, where, error)
    except RecursionError:
        raise error(f"{where} is nested too deeply, or holds itself") from None


def _plain(value: Any, where: str, error: Errors) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum, too, its value
    if isinstance(value, Integral):
        try:
            str(int(value))  # Python bounds the digits of what it writes
        except ValueError as trouble:
            raise error(f"{where} is a whole number of too many digits") from trouble
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        if hasattr(value, "mask"):  # NumPy's masked arrays, and Astropy's
            raise error(f"{where} is a masked array, whose mask would be lost; fill it first")
        return _plain(value.tolist(), where, error)
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{i}]", error) for i, each in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise error(f"{where} has the key {brief(key)}; keys must be strings")
        return {str(k): _plain(v, f"{where}[{k!r}]", error) for k, v in value.items()}
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise error(
        f"{where} is of type {type(value).__name__}; only numbers, strings, None, and lists, arrays"
        " and dicts of these can be stored"
    )
