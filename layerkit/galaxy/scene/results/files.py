"""Files of a measured field: catalogue, model image, residual, posterior draws and a page."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.catalogue.tables.tables import write_catalogue
from layerkit.galaxy.scene.results.page import write_page
from layerkit.system.files import path_of, write_atomically

if TYPE_CHECKING:
    from layerkit.galaxy.scene.scene import Scene


FILES = (
    *("catalogue.fits", "catalogue.ecsv", "catalogue.parquet"),
    *("model.fits", "residual.fits", "samples.npz", "report.html"),
)


def write_scene(scene: Scene, out: str | os.PathLike[str]) -> list[str]:
    """Write a measured field into a folder, which is made if it is not there.

    These are catalogue.fits, catalogue.ecsv and, with pyarrow, catalogue.parquet; model.fits and
    residual.fits; samples.npz, where samples were asked for; report.html last.

    Returns:
        The names of the files.

    Raises:
        DataError: the folder or a file cannot be written.
    """
    folder = path_of(out, DataError)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {folder}: cannot make this folder: {error.strerror}") from error
    written = [name for name in FILES if _is_written(name, scene)]
    for name in written:
        if name.startswith("catalogue"):
            write_catalogue(scene.table, folder / name)
    try:
        _write_image(folder / "model.fits", scene.model, scene)
        _write_image(folder / "residual.fits", scene.residual, scene)
        if scene.samples:
            write_atomically(folder / "samples.npz", lambda part: _save_samples(part, scene))
        write_page(folder / "report.html", scene)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from error
    return written


def _is_written(name: str, scene: Scene) -> bool:
    """Tell whether one of FILES is among those of a scene."""
    if name.endswith(".parquet"):
        return all(importlib.util.find_spec(package) for package in ("pyarrow", "pandas"))
    return name != "samples.npz" or bool(scene.samples)


def _save_samples(part: Path, scene: Scene) -> None:
    """Write the draws of each source."""
    arrays = {f"source_{i}": draws for i, draws in scene.samples.items()}
    with open(part, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_image(path: Path, image: np.ndarray, scene: Scene) -> None:
    """Write an image of all bands, with the field's WCS."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about keywords cut to eight characters
        # With the distortions that the standard does not know, such as SIP's.
        wcs = scene.field.wcs
        header = fits.Header() if wcs is None else wcs.to_header(relax=True)
        for b, band in enumerate(scene.field.filters):
            header[f"BAND{b + 1}"] = band.encode("ascii", "backslashreplace").decode()
        data = (image if len(image) > 1 else image[0]).astype(np.float32)
        hdu = fits.PrimaryHDU(data, header)
        write_atomically(path, lambda part: hdu.writeto(part, overwrite=True))
