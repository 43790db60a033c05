"""Sources of pictures: a folder, a zip, a file, or the built-in Hubble picture.

All sources share one interface: a name, a list of ids, and `read(i)`, which returns one picture.
`decode` describes the formats, and what the values of a picture mean.  Opening a source reads the
headers of its files, as a file may hold several pictures; pixels are decoded by `read`.
"""

from __future__ import annotations

import os
import zipfile
from typing import Protocol

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.formats.signatures import HEAD, is_image_file, other_format
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.galaxy.images.sources.files import NOT_REGULAR, FolderSource, ZipSource
from layerkit.galaxy.images.sources.hubble import HubbleSource
from layerkit.settings import Whole, accept, fitting
from layerkit.system.files import path_of


class Source(Protocol):
    """A set of pictures with one galaxy near the centre of each.

    Sources are pickled and sent to worker processes.  A source may have an attribute `deep`, a list
    of the numbers of its uint16 pictures; `prepare` then measures how many of the 16 bits are used.
    It may also have `row_order`, see `GalaxySet`, and a method `planes(i)` that returns the
    `Planes` of picture `i`: its noise, its mask, its gain and its zero point.

    Several threads may read from the sources of this library, but they take turns: processes are
    faster.

    Attributes:
        name: a short name, for messages and for the prepared file.
        ids: a unique id for each picture.
    """

    name: str
    ids: list[str]

    def __len__(self) -> int:
        """Count the pictures, including those that cannot be read."""
        ...

    def read(self, i: int) -> np.ndarray:
        """Read picture `i`, counted from 0.

        Returns:
            (height, width) of float32, linear light in 0..1; or uint16, linear light on an unknown
            scale; or float64, physical units such as counts and fluxes.  Pixels without data are
            NaN or masked.  A float32 picture with numbers below -0.25 or above 1.25 is excluded:
            give physical units as float64.

        Raises:
            UnusableImageError: the picture cannot be read; the text is the reason.
        """
        ...


@fitting(DataError)
def open_source(path: str | os.PathLike | None, hdu: int | str | None = None) -> Source:
    """Open the pictures at a path.

    A file that holds several pictures (see `decode`) gives each an id, `name[0000]`, `name[0001]`
    and so on, in the order of the file.

    Hidden files, `__MACOSX` entries, results of training runs and second links to a file are
    skipped.  Files whose names say that they are weights, a mask, a model or the like of another
    file, such as `ngc1_mask.png` beside `ngc1.fits` or `masks/1.jpg` beside `images/1.jpg`, are
    counted as pictures that cannot be read, and so are files that are not pictures.

    Args:
        path: a folder of JPEG, PNG, TIFF, FITS or HDF5 files, searched with all its subfolders and
            sorted; a zip of such files, such as Kaggle's `images_training_rev1.zip`, which is not
            unpacked; a single such file; or None, the galaxies of the Hubble Deep Field that
            scikit-image ships (`HubbleSource`).
        hdu: the FITS extension to read, by number or EXTNAME, and the band in it, as "SCI[1]" or
            "[1]"; by default see `FitsPictures`.

    Raises:
        DataError: the path is missing, empty, unreadable or of another kind, or `hdu` is neither a
            number nor a name.
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
        f"{path}: not a zip, a picture, a FITS or an HDF5 file; give one of these, or a folder of"
        " pictures"
    )
