"""The interface that all formats share."""

from __future__ import annotations

import math

import numpy as np

from layerkit.galaxy.images.decode.bounds import only_unusable
from layerkit.galaxy.images.decode.formats.planes import Planes


class Pictures:
    """The pictures in one open file.

    Attributes:
        deep: whether the pictures are uint16.
        row_order: "top" or "bottom", where the first row of a picture is displayed.
    """

    deep = False
    row_order = "top"

    def __len__(self) -> int:
        return 1

    def read(self, k: int) -> np.ndarray:
        """Read picture `k`, counted from 0: (height, width), of one of the dtypes in `decode`.

        Raises:
            UnusableImageError: the picture cannot be read; the text is the reason.
        """
        with only_unusable():
            return self._read(k)

    def _read(self, k: int) -> np.ndarray:
        raise NotImplementedError

    def pixel_scale(self, k: int) -> float:
        """Return the arcseconds per pixel of picture `k`; NaN where the file does not say."""
        return math.nan

    def planes(self, k: int) -> Planes:
        """Read what the file says of the pixels of picture `k`: their noise, mask, and scale."""
        return Planes()

    def close(self) -> None:
        """Close everything that was opened on top of the file."""
