"""The pictures that prepared galaxies came from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from layerkit.data.arrays import numbers
from layerkit.errors import DataError, brief
from layerkit.galaxy.images.crop.crop import DEEPEST, Settings, cut_out
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.prepare import Cutter
from layerkit.galaxy.images.prepared import GalaxySet, is_prepared
from layerkit.galaxy.images.sources.sources import open_source
from layerkit.galaxy.images.stored import StoredSet

MAX_PICTURES = 60


class SourcePictures:
    """The pictures that prepared galaxies were cut from; each iteration reads them again.

    There are none if the path is a prepared set, nor any that the source no longer has.

    Args:
        path: of the pictures; see `open_source`.
        galaxies: prepared from them.
        rows: of the galaxies whose pictures are wanted.
        most: at most so many pictures, evenly spread over the rows; default 60.
        options: for `open_source`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        galaxies: GalaxySet | StoredSet,
        rows: np.ndarray,
        most: int = MAX_PICTURES,
        **options: Any,
    ):
        if not isinstance(galaxies, GalaxySet | StoredSet):
            raise DataError(f"SourcePictures: expected a GalaxySet, got {brief(galaxies)}")
        rows = numbers(rows, "SourcePictures: the rows", DataError).reshape(-1)
        self.galaxies, self.items = galaxies, list[tuple[int, int]]()
        if is_prepared(path):
            return
        self.source = open_source(path, **options)
        index = {name: i for i, name in enumerate(self.source.ids)}
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
        known = [(int(row), index.get(galaxies.ids[row])) for row in rows]
        self.items = [(row, i) for row, i in known if i is not None]
        deep = set(getattr(self.source, "deep", ()))
        of_deep = [row for row, name in enumerate(galaxies.ids) if index.get(name) in deep]
        # All pictures of 16 bits have one white level.
        self.white = float(galaxies.stretches[of_deep[0], 2]) if of_deep else DEEPEST

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[np.ndarray]:
        if not self.items:
            return
        cutter = Cutter(self.source, Settings(**self.galaxies.settings), self.white)
        for _, i in self.items:
            with contextlib.suppress(UnusableImageError, OSError):  # changed or gone meanwhile
                yield cutter.read(i)[0]  # without the pixels that its mask leaves out

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Prepare a picture as those of the set were prepared.

        Raises:
            UnusableImageError: it cannot be prepared, for whatever reason.
        """
        try:
            return cut_out(picture, Settings(**self.galaxies.settings), self.white)[0]
        except UnusableImageError:
            raise
        except Exception as error:  # or the model just trained would be lost
            raise UnusableImageError(f"fails with {type(error).__name__}") from error
