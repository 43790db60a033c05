"""Stamps: pictures of one galaxy each, in linear units, with their own PSF, noise and mask."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from layerkit.errors import DataError
from layerkit.system.files import path_of

NAMES = ("image", "psf", "variance", "mask")
FEWEST = 20


def read_stamps(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read and check a file of stamps.

    The file is HDF5 with `image`, `variance` (n, side, side), `psf` (n, p, p) or (p, p), and
    `mask`, 0 for good pixels, if there is one; or FITS with extensions of these names.  Pixels that
    are no numbers, or whose variance is not positive, are left out, too, and so are stamps without
    light.

    Returns:
        These arrays, with a mask of 1 for pixels that count, PSFs of unit sum for every stamp, and
        `flux` where the file has `truth/flux`.

    Raises:
        DataError: a file that is missing or of another kind, arrays that are missing or do not fit,
            or fewer than 20 stamps.
    """
    path = path_of(path, DataError)
    found = _read(path)
    for name in NAMES[:3]:
        if name not in found:
            raise DataError(f"{path} has no {name!r}; it needs {', '.join(NAMES[:3])}")
    image, variance, psf = (found[name].astype("float32") for name in ("image", "variance", "psf"))
    if image.ndim != 3 or image.shape[1] != image.shape[2]:
        raise DataError(f"{path}: image must be (n, side, side), got {image.shape}")
    bad = found.get("mask", np.zeros(image.shape, bool)) != 0
    if variance.shape != image.shape or bad.shape != image.shape:
        raise DataError(
            f"{path}: variance {variance.shape} and mask {bad.shape} must have the shape of image, "
            f"{image.shape}"
        )
    if psf.shape[-2] != psf.shape[-1] or psf.shape[-1] % 2 == 0 or psf.ndim not in (2, 3):
        raise DataError(f"{path}: PSFs must be square, of odd side, got {psf.shape}")
    if psf.ndim == 3 and len(psf) != len(image):
        raise DataError(f"{path}: {len(psf)} PSFs for {len(image)} stamps; one or one each")
    psf = np.broadcast_to(psf, (len(image), *psf.shape[-2:]))
    total = psf.sum(axis=(1, 2), keepdims=True)
    if not (total > 0).all():
        raise DataError(f"{path}: a PSF needs a positive sum")
    good = ~bad & np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    image, variance = np.where(good, image, 0), np.where(good, variance, 1)
    seen = image.max(axis=(1, 2)) > 0
    if seen.sum() < FEWEST:
        raise DataError(f"{path}: {seen.sum()} stamps have light; {FEWEST} or more are needed")
    arrays = {"image": image, "psf": psf / total, "variance": variance, "mask": good}
    if "flux" in found:
        arrays["flux"] = found["flux"]
    return {name: array[seen] for name, array in arrays.items()}


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file, as they are."""
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        if str(path).lower().endswith((".fits", ".fit", ".fits.gz")):
            from astropy.io import fits  # here, as HDF5 files need none

            with fits.open(path) as file:
                there = {hdu.name.lower(): hdu.data for hdu in file if hdu.data is not None}
                there.setdefault("image", there.get("primary"))
                return {n: np.array(there[n]) for n in NAMES if there.get(n) is not None}
        import h5py

        with h5py.File(path) as file:
            arrays = {name: file[name][:] for name in NAMES if name in file}
            return {**arrays, **({"flux": file["truth/flux"][:]} if "truth/flux" in file else {})}
    except Exception as error:  # of any kind, from readers of damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not readable as HDF5 or FITS ({reason})") from error
