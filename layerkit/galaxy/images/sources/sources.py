"""Where galaxy images come from: a zip, a folder, single files, or the built-in Hubble picture.

Every source looks the same from outside: a name, a list of ids, and `read(i)`, which returns one
picture; `decode` says which formats there are and what the numbers of a picture mean.  Opening a
source looks at the headers of its files, to know how many pictures each holds; pixels are decoded
when asked for.
"""

from __future__ import annotations

import os
import zipfile
from typing import Protocol

import numpy as np

from layerkit.errors import DataError
from layerkit.files import path_of
from layerkit.galaxy.images.decode.signatures import HEAD, is_image_file, other_format
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.galaxy.images.sources.files import NOT_REGULAR, FolderSource, ZipSource
from layerkit.galaxy.images.sources.hubble import HubbleSource
from layerkit.settings import Whole, accept, fitting


class Source(Protocol):
    """A set of pictures, one galaxy near the centre of each.

    `name` is short and goes into messages and file attributes; `ids` are unique.  Sources can be
    pickled and sent to worker processes.  A source may have `deep`, the numbers of those pictures
    that are of type uint16; `prepare` then finds out how many of the 16 bits they use.
    """

    name: str
    ids: list[str]

    def __len__(self) -> int:
        """Count the pictures, or things that should have been pictures."""
        ...

    def read(self, i: int) -> np.ndarray:
        """Read picture `i`, (height, width); raises `UnusableImageError`.

        Its type says what its numbers mean: float32 is linear light in 0..1, uint16 light in steps
        of unknown size, and float64 physical units.
        """
        ...


@fitting(DataError)
def open_source(path: str | os.PathLike | None, hdu: int | str | None = None) -> Source:
    """Open a set of pictures of whatever kind `path` is.

    - None: the galaxies of the Hubble picture that scikit-image ships (`HubbleSource`).
    - a zip, such as Kaggle's `images_training_rev1.zip`: read in place, never unpacked;
    - a folder of JPEG, PNG, TIFF, FITS or HDF5 files, searched through all its subfolders, sorted;
    - a single such file.

    A file that holds several pictures (see `decode`) counts as so many, with the ids `name[0000]`,
    `name[0001]` and so on, in the order of the file.  hdu: the extension of FITS files to read, by
    number or EXTNAME, where it is not to be chosen by their names.

    Hidden files, `__MACOSX` entries, and links to a file that is there already are passed over.
    Files that by their names hold weights, a mask, a model or the like of another, `ngc1_mask.png`
    beside `ngc1.fits`, and any other files that are not pictures, keep their place in the source,
    so that they are counted, and their `read` raises `UnusableImageError`.

    Raises `DataError` where the path is missing, empty, not to be read, or of another kind, and for
    an `hdu` that is neither.
    """
    if isinstance(hdu, str) and hdu.strip().isdecimal():
        hdu = int(hdu)
    if not isinstance(hdu, str | None):
        hdu = accept(Whole(), hdu, "hdu", "a FITS extension, by number or name", DataError)
    if path is None:
        if hdu is not None:
            raise DataError(
                "hdu: the built-in Hubble Deep Field has no FITS extensions to choose; leave hdu "
                "out, or give FITS files"
            )
        return HubbleSource()
    path = path_of(path, DataError)
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file; give a folder, zip or file of pictures")
        if path.is_dir():
            return FolderSource(path, hdu=hdu)
        if not path.is_file():
            raise DataError(f"{path}: {NOT_REGULAR}, but a pipe, socket or device; give a file")
        if is_prepared(path):
            raise DataError(f"{path}: a prepared galaxy set, not pictures; open it with load()")
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if is_image_file(head):
            return FolderSource(path.parent, [path.name], name=path.name, hdu=hdu)
        if zipfile.is_zipfile(path):
            return ZipSource(path, hdu=hdu)
        if head.startswith(b"PK") or path.suffix.lower() == ".zip":
            raise DataError(f"{path}: not a zip file, or a truncated one; fetch it again")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if (other := other_format(head)) is not None:
        raise DataError(f"{path}: {other}")
    raise DataError(
        f"{path}: not a zip, a picture, a FITS file or a prepared HDF5 set; give one of these, or a"
        " folder of pictures"
    )
