"""HDF5 and MATLAB 7.3 files, read by h5py."""

from __future__ import annotations

import itertools
import math
from typing import IO, Any

import h5py
import numpy as np

from layerkit.galaxy.images.decode.axes import FLATTENED, Layout, flat_side
from layerkit.galaxy.images.decode.bounds import (
    MAX_BYTES,
    MAX_PICTURES,
    NO_IMAGE,
    TOO_LARGE,
    UnusableImageError,
    check_pixels,
)
from layerkit.galaxy.images.decode.formats.pictures import Pictures

NO_FILTER = "an unsupported HDF5 compression; save it with gzip"


class Hdf5Pictures(Pictures):
    """The pictures in an HDF5 file: its data set `images`, or the only one that can be pictures.

    `Layout` interprets the axes.  Four colours of an unsigned type are RGB and alpha.  MATLAB
    stores axes in reverse order, (height, width, 3, n) as (n, 3, width, height).  The netCDF
    attributes `_Unsigned`, `scale_factor`, `add_offset`, `_FillValue` and `missing_value` are
    applied; values that are scaled, and 16-bit values with a fill value, are in physical units.
    Only data stored in the file itself are read.
    """

    def __init__(self, file: IO[bytes], matlab: bool = False):
        self.file = h5py.File(file, "r")
        self.data = self._find()
        data, shape = self.data, self.data.shape
        if data.is_virtual or data.external is not None:
            raise UnusableImageError("HDF5 images stored in other files; copy them into this one")
        plan = data.id.get_create_plist()
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        self.has_filters = all(h5py.h5z.filter_avail(number) for number in filters)
        self.matlab = matlab or "MATLAB_class" in data.attrs
        self.layout = Layout(shape, stack=not self.matlab)
        if not self.layout.count:
            raise UnusableImageError(self.layout.doubt or NO_IMAGE)
        stored = data.id.get_storage_size()
        if self.layout.count > MAX_PICTURES or data.nbytes > 2000 * stored:
            raise UnusableImageError(TOO_LARGE)  # or almost nothing is stored
        chunk = math.prod(data.chunks or (1,)) * data.dtype.itemsize
        if chunk > MAX_BYTES // 4:
            raise UnusableImageError(TOO_LARGE)
        self.dtype = self._dtype()
        self.factor = self._attribute("scale_factor", 1.0)
        self.offset = self._attribute("add_offset", 0.0)
        self.fills = [
            self._of_value(fill) for name in ("_FillValue", "missing_value")
            if (fill := self._attribute(name, np.nan)) == fill
        ]  # fmt: skip
        deep = self.dtype.kind == "u" and self.dtype.itemsize == 2
        self.physical = (self.factor, self.offset) != (1, 0) or (deep and bool(self.fills))
        self.deep = deep and not self.physical
        if len(shape) == 2 and self._is_flattened():
            raise UnusableImageError(FLATTENED)

    def _find(self) -> h5py.Dataset:
        found = {}
        for name in itertools.islice(self.file, 1000):
            if isinstance(self.file.get(name, getlink=True), h5py.HardLink):
                item = self.file[name]
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "uif" and item.ndim > 1:
                    found[name] = item
                elif name == "images" and isinstance(item, h5py.Dataset):
                    raise UnusableImageError(
                        "an HDF5 file whose `images` is not an array of real numbers"
                    )
        if "images" in found:
            return found["images"]
        if len(found) != 1:
            raise UnusableImageError("an HDF5 file without a data set `images`")
        return next(iter(found.values()))

    def _attribute(self, name: str, default: float) -> float:
        """Return the value of an attribute of the data set."""
        if name not in self.data.attrs:
            return default
        known = self.data.attrs.get_id(name)
        if math.prod(known.shape) != 1 or known.dtype.kind not in "iuf":
            raise UnusableImageError(f"an HDF5 attribute `{name}` that is not a single number")
        return float(np.ravel(self.data.attrs[name])[0])

    def _dtype(self) -> np.dtype:
        """Return the dtype of the values: netCDF marks unsigned ones that are stored as signed."""
        stored, said = self.data.dtype, b""
        if "_Unsigned" in self.data.attrs and self.data.attrs.get_id("_Unsigned").shape in (
            (),
            (1,),
        ):
            said = np.ravel(self.data.attrs["_Unsigned"])[0]
        word = said.decode("latin-1") if isinstance(said, bytes) else str(said)
        kind = {"true": "u", "false": "i"}.get(word.lower())
        if kind is None or stored.kind == "f":
            return stored
        return np.dtype(stored.str.replace(stored.kind, kind))

    def _of_value(self, fill: float) -> float:
        """Return the fill value among the values; it may be given as the stored numbers are."""
        span = 2.0 ** (8 * self.dtype.itemsize)
        if self.dtype.kind == "u" and fill < 0:
            return fill + span
        return fill - span if self.dtype.kind == "i" and fill >= span / 2 else fill

    def _is_flattened(self) -> bool:
        """Tell whether each row of the data set is a flattened picture.

        In a flattened picture, pixels one picture row apart differ less than pixels one row of the
        data set apart.
        """
        height, width = self.data.shape
        if (side := flat_side(width)) is None or height == width:
            return False
        rows = np.asarray(self._part(slice(min(height, 2**22 // width))), np.float64)
        steps = [rows[:, lag:] - rows[:, :-lag] for lag in (side, width // side)]
        down, *along = (np.nanmean(np.abs(step)) for step in (rows[1:] - rows[:-1], *steps))
        return bool(min(along) < 0.8 * down)

    def _part(self, index: Any) -> np.ndarray:
        """Read a part of the data set, which may work even if one of its filters is missing."""
        try:
            part = self.data[index]
            # _Unsigned changes what the bits mean, not the bits.
            return part if self.dtype.kind == part.dtype.kind else part.view(self.dtype)
        except OSError as error:
            if self.has_filters:
                raise
            raise UnusableImageError(NO_FILTER) from error

    def __len__(self) -> int:
        return self.layout.count

    def _read(self, k: int) -> np.ndarray:
        check_pixels(self.layout.part)
        data = self._part(self.layout.index(k))
        alpha, light = data.dtype.kind == "u", data.dtype == np.uint8 and not self.physical
        if self.fills and (missing := np.isin(data, self.fills)).any():
            data = np.where(missing, np.nan, data / 255 if light else data)
        if self.physical:
            data = data.astype(np.float64) * self.factor + self.offset
        picture = self.layout.picture(data, alpha=alpha)
        if self.matlab and not self.layout.turned:
            picture = np.ascontiguousarray(picture.T)
        return picture.astype(np.float32) if light else picture

    def close(self) -> None:
        """Close the HDF5 file."""
        self.file.close()
