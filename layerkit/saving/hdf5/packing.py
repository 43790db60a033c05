"""Packing: stored numbers that stand for others, as attributes of netCDF say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # slow to import
    import h5py

NEUTRAL = {"scale_factor": 1, "add_offset": 0}  # attribute -> the number that changes nothing
PACKED = (
    "holds packed numbers, which its attribute {} turns into others; store those, as by xarray, "
    "which unpacks what it reads"
)


def packed_by(dataset: h5py.Dataset) -> str | None:
    """Return the attribute that turns the numbers of a data set into others, or None."""
    for name, neutral in NEUTRAL.items():
        if name in dataset.attrs and not _holds(dataset.attrs.get_id(name), neutral):
            return name
    return "_Unsigned" if "_Unsigned" in dataset.attrs and dataset.dtype.kind == "i" else None


def _holds(attribute: Any, number: float) -> bool:
    """Tell whether an attribute holds this one number; nothing of variable length is read."""
    if attribute.dtype.kind not in "iuf" or attribute.shape not in ((), (1,)):
        return False
    found = np.empty(attribute.shape, attribute.dtype)
    attribute.read(found)
    return bool(found.reshape(-1)[0] == number)
