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
    suffixes = [".fits", ".ecsv"]
    if importlib.util.find_spec("pyarrow") and importlib.util.find_spec("pandas"):
        suffixes.append(".parquet")
    written = [f"catalogue{suffix}" for suffix in suffixes]
    for name in written:
        write_catalogue(scene.table, folder / name)
    for name, image in (("model.fits", scene.model), ("residual.fits", scene.residual)):
        _write_image(folder / name, image, scene)
        written.append(name)
    if scene.samples:

        def save(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez_compressed(
                    file,
                    allow_pickle=False,
                    **{f"source_{i}": draws for i, draws in scene.samples.items()},
                )

        write_atomically(folder / "samples.npz", save)
        written.append("samples.npz")
    write_page(folder / "report.html", scene)
    return [*written, "report.html"]


def _write_image(path: Path, image: np.ndarray, scene: Scene) -> None:
    """Write an image of all bands, with the field's WCS."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about keywords cut to eight characters
        header = fits.Header() if scene.field.wcs is None else scene.field.wcs.to_header()
        for b, band in enumerate(scene.field.filters):
            header[f"BAND{b + 1}"] = band
        data = (image if len(image) > 1 else image[0]).astype(np.float32)
        hdu = fits.PrimaryHDU(data, header)
        write_atomically(path, lambda part: hdu.writeto(part, overwrite=True))
