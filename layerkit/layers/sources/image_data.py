"""ImageData: pictures from the files of a folder, with labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from layerkit.data import pictures
from layerkit.data.order import sample_rows
from layerkit.errors import NetError
from layerkit.layer import Shape
from layerkit.layers.sources.data import Augmentation, Crop, Data, Depth, Deviation, Mean, Scale
from layerkit.settings import Choice, FilePath, Flag, Optional, Pair, Rule, Tops, whole
from layerkit.system.files import path_of

Size = Annotated[int | tuple[int, int] | None, Optional(Pair(1))]


class Channels(Rule):
    """Rule for the number of a picture's channels."""

    expected = "1 for grey or 3 for colour"

    def accept(self, value: Any) -> int:
        """Return an int."""
        if whole(value) not in (1, 3):
            raise ValueError
        return whole(value)


class Table(Rule):
    """Rule for files and labels: the path of a CSV file, or pairs."""

    expected = "the path of a CSV file, or a list of pairs (file, label)"

    def accept(self, value: Any) -> Any:
        """Return a path, a list of pairs, or None."""
        if value is None:
            return None
        if isinstance(value, list | tuple):
            pairs = [tuple(pair) for pair in value if isinstance(pair, list | tuple)]
            if len(pairs) < len(value) or not all(len(pair) == 2 for pair in pairs):
                raise ValueError
            return pairs
        try:
            return path_of(value, NetError)
        except NetError:
            raise ValueError from None


class ImageData(Data):
    """Source of pictures in PNG, JPEG and TIFF files, and of their labels.

    With two tops, `tops=["x", "t"]`, the second is the number of each picture's class: each
    sub-folder is a class, numbered in the order of their names; or a table says it.  With one top
    all pictures below the folder are served, without labels.

    Shapes: no bottom; tops (n, channels, height, width), numbers from 0, black, to 1, white, and
    labels (n,).  Files of floats keep their numbers.  Colour, and grey with transparency, is read
    at 8 bits, other grey at up to 32; signed integers, none of which is white, are refused.

    Nothing is kept in memory: files are decoded as they are needed, by Pillow, in the thread that
    `prefetch` asks for.

    Args:
        folder: the folder.
        table: path of a CSV file with columns "file" and "label", or a list of such pairs, with
            paths relative to the folder; labels are whole numbers, or names of classes.
            None, the default, goes by the sub-folders.
        tops: names of the tops, by default the layer's name.
        size: (height, width) of the pictures, one number for both; by default that of the first.
        fit: "exact", the default, for pictures that must have that size; "resize" stretches them to
            it; "crop" scales them to cover it, and takes the middle.
        channels: 3, the default, or 1 for grey.
        shuffle: True, the default, for a new order in each epoch.
        augment, scale, mean, deviation, crop, mirror: for the pictures; see Data.
        integers: names of tops that hold integers as they are, by default none; see Data.
        prefetch: batches that are decoded ahead in the background, default 2; see Data.
        integers: a top, or a list of tops, that hold integers; see Data.  None is the default.

    Attributes:
        files: the paths, in the order of a test net.
        classes: names of the classes in the order of their numbers; none where labels are numbers.

    Raises:
        DataError: a folder or file that is missing, a file that cannot be decoded or has another
            size; the message names it.

    Source: Caffe's ImageData layer.
    """

    decided = (*Data.decided, "folder", "table", "size", "fit", "channels", "files", "classes")

    def __init__(
        self,
        name: str,
        *,
        folder: Annotated[str | os.PathLike[str], FilePath()],
        table: Annotated[Any, Table()] = None,
        tops: Tops | None = None,
        size: Size = None,
        fit: Annotated[str, Choice("exact", "resize", "crop")] = "exact",
        channels: Annotated[int, Channels()] = 3,
        shuffle: Flag = True,
        augment: Augmentation = None,
        scale: Scale = 1.0,
        mean: Mean = None,
        deviation: Deviation = None,
        crop: Crop = None,
        mirror: Flag = False,
        prefetch: Depth = 2,
        integers: Tops | None = None,
    ):
        super().__init__(
            name, tops, shuffle, augment, scale, mean, deviation, crop, mirror, prefetch, integers
        )
        if len(self.tops) > 2:
            self.fail(f"has pictures and labels for two tops, but tops= names {self.tops}")
        if table is not None and len(self.tops) < 2:
            self.fail('a table gives labels, which need a top: tops=["x", "t"]')
        self.folder = Path(folder).absolute()  # it is read later, perhaps from elsewhere
        self.table: Any = table if isinstance(table, list | None) else Path(table).absolute()
        self.size = (size, size) if isinstance(size, int) else size
        self.fit, self.channels = fit, channels

    def example_shapes(self) -> list[Shape]:
        """Find the files and decode the first; return the shapes of pictures and labels."""
        if self.table is None:
            found = pictures.in_folder(self.folder, len(self.tops) == 2, self.wrong)
        else:
            found = pictures.in_table(self.table, self.folder, self.wrong)
            pictures.check_files(found.files, self.wrong)
        self.files, self.labels, self.classes = found
        self.count = len(self.files)
        self._expected: Shape | None = self.size and (self.channels, *self.size)
        first = self._picture(0)
        self._expected = first.shape
        return [first.shape] if self.labels is None else [first.shape, ()]

    def _picture(self, row: int) -> np.ndarray:
        """Decode a picture, and compare its size."""
        path = self.files[row]
        try:
            found = pictures.decode(path, self.channels, self.size, self.fit)
        except ValueError as error:
            raise self.wrong(f"{path} cannot be read as a picture ({error})") from error
        if self._expected is not None and found.shape != self._expected:
            raise self.wrong(
                f"{path} is of {found.shape[1]} x {found.shape[2]} pixels (height x width), "
                f"expected {self._expected[1]} x {self._expected[2]}; give size= and "
                'fit="resize" or fit="crop"'
            )
        return found

    def _pictures(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._picture(int(row)) for row in rows])

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return pictures of this stretch of the epoch, and their labels."""
        rows = self.rows(epoch, start, stop)
        labels = [] if self.labels is None else [self.labels[rows]]
        return [self._pictures(rows), *labels]

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return pictures in the order of the files."""
        return self._pictures(np.arange(start, stop))

    def dtypes(self) -> list[np.dtype]:
        """Return the dtypes of pictures and labels."""
        dtypes = [np.dtype(kind) for kind in ("float32", "int64")]
        return dtypes[: len(self.tops)]

    def signature(self) -> list[Any]:
        """Return the names of all files, labels, and the sizes of some files, too."""
        names = [os.path.relpath(file, self.folder) for file in self.files]
        sizes = [os.path.getsize(self.files[row]) for row in sample_rows(len(names))]
        labels = [] if self.labels is None else [self.labels]
        return [*super().signature(), repr((names, sizes)).encode(), *labels]
