"""Sources that a list names: files by their paths, and galaxies by their places in one image."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.bounds import UnusableImageError, only_unusable
from layerkit.galaxy.images.decode.decode import open_pictures
from layerkit.galaxy.images.decode.formats.fits import FitsPictures
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.decode.scales import scales_at
from layerkit.galaxy.images.sources.files import FolderSource
from layerkit.galaxy.images.sources.ids import numbered, printable
from layerkit.system.files import open_regular

CUTOUT = 128  # pixels on a side


class PathsSource(FolderSource):
    """The pictures in files at some paths, in the order given.

    Args:
        folder: that relative paths start from.
        paths: of the files.
        name: of the source.
        ids: of the files; by default their names without suffix.
        hdu: see `open_source`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        paths: Sequence[str],
        name: str,
        ids: Sequence[str] | None = None,
        hdu: int | str | None = None,
    ):
        super().__init__(folder, list(paths), name, hdu)
        if ids is not None:
            count = np.bincount([k for k, _ in self.pictures])
            self.ids = numbered(
                [ids[k] + f"[{n:04d}]" * bool(count[k] > 1) for k, n in self.pictures]
            )

    def _open(self, k: int) -> Any:
        if not self.files[k].strip():
            raise UnusableImageError("no path")
        if not (self.path / self.files[k]).exists():
            raise UnusableImageError("no such file")
        return super()._open(k)


class PositionsSource:
    """Squares around positions in one FITS image, read one at a time.

    Pixels of a square that lie outside the image are no data.

    Args:
        path: the FITS file.
        ids: of the positions, different ones.
        first, second: columns and rows in pixels, the centre of the first pixel at (0, 0); or right
            ascensions and declinations in degrees, in the system of the image.  (n,) each.
        on_sky: whether they are the latter.
        side: pixels on a side of a square.
        hdu: the FITS extension, if the file holds several images.

    Attributes:
        scales: arcseconds per pixel, (n,), NaN without a WCS.
        corners: first row and column of each square, (n, 2).

    Raises:
        DataError: no such file, no FITS image in it or several, or no equatorial WCS to place
            positions by.
    """

    row_order = "bottom"

    def __init__(
        self,
        path: str | os.PathLike[str],
        ids: Sequence[str],
        first: np.ndarray,
        second: np.ndarray,
        on_sky: bool = False,
        side: int = CUTOUT,
        hdu: int | str | None = None,
    ):
        self.path, self.hdu, self.side, self.ids = Path(path).absolute(), hdu, side, list(ids)
        self.name = printable(self.path.name) + ("" if hdu is None else f"[{hdu}]")
        self.files, self.pictures = [self.path.name], [(0, i) for i in range(len(self.ids))]
        self._last: tuple[int, Any, FitsPictures] | None = None
        try:
            pictures = self._opened()
            self.shape = pictures.field()
            wcs = pictures.wcs(0)
        except UnusableImageError as error:
            raise DataError(f"{path}: {error}") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        x, y = np.asarray(first, float), np.asarray(second, float)
        if on_sky:
            if wcs is None:
                raise DataError(
                    f"{path}: no celestial WCS in its header to find right ascensions and "
                    "declinations by; give positions in pixels, columns x and y"
                )
            if wcs.wcs.lngtyp != "RA":
                raise DataError(
                    f"{path}: its WCS is in {wcs.wcs.lngtyp} and {wcs.wcs.lattyp}, not in right "
                    "ascension and declination; give positions in pixels, columns x and y"
                )
            # Either of the two may come first in an image.
            x, y = wcs.all_world2pix(x, y, 0, quiet=True, ra_dec_order=True)
        self.scales = np.full(len(self.ids), np.nan) if wcs is None else scales_at(wcs, x, y)
        self.centres = np.column_stack([y, x])
        half = np.nan_to_num(np.floor(self.centres - side / 2 + 1), nan=0, posinf=0, neginf=0)
        self.corners = np.clip(half, -(2.0**40), 2.0**40).astype(np.int64)
        self._close()

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def __del__(self) -> None:
        if getattr(self, "_last", None) is not None:
            self._close()

    def read(self, i: int) -> np.ndarray:
        """Read the square around position `i`, float64 (side, side); see `Source.read`."""
        y, x = self.centres[i]
        if not (math.isfinite(y) and math.isfinite(x)):
            raise UnusableImageError("no position")
        if not (-0.5 <= y <= self.shape[0] - 0.5 and -0.5 <= x <= self.shape[1] - 0.5):
            raise UnusableImageError("outside the image")
        cut, place = self._windows(i)
        with only_unusable():  # which one thread does at a time
            return self._placed(self._opened().window(*cut), place, np.nan)

    def planes(self, i: int) -> Planes:
        """Read what the file says of the pixels of square `i`; see `Source`."""
        cut, place = self._windows(i)
        with only_unusable():
            found = self._opened().planes(0, cut)
        return replace(
            found,
            variance=self._placed(found.variance, place, np.nan),
            missing=self._placed(found.missing, place, True),
        )

    def _windows(self, i: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the image that square `i` shows, and its place in the square."""
        cut, place = [], []
        for start, n in zip(self.corners[i], self.shape, strict=True):
            low, high = max(0, int(start)), min(n, int(start) + self.side)
            cut.append(slice(low, high))
            place.append(slice(low - int(start), high - int(start)))
        return (cut[0], cut[1]), (place[0], place[1])

    def _placed(self, part: Any, place: tuple[slice, slice], rest: Any) -> Any:
        """Put a part into a square of its own, with a value outside; None stays None."""
        if part is None:
            return None
        square = np.full((self.side, self.side), rest, part.dtype)
        square[place] = part
        return square

    def _opened(self) -> FitsPictures:
        if self._last is None or self._last[0] != os.getpid():  # forks would share its position
            file = open_regular(self.path)
            try:
                pictures = open_pictures(file, self.hdu)
                if not isinstance(pictures, FitsPictures):
                    raise UnusableImageError("not a FITS image; positions are those in one")
            except UnusableImageError:
                file.close()
                raise
            self._last = (os.getpid(), file, pictures)
        return self._last[2]

    def _close(self) -> None:
        if self._last is not None and self._last[0] == os.getpid():
            self._last[2].close()
            self._last[1].close()
        self._last = None
