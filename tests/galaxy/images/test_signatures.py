"""Formats that are not read say what to do."""

import tarfile
import zipfile

import numpy as np
import pytest
from astropy.io import fits
from picture_files import hdf5, reason

from layerkit.errors import DataError
from layerkit.galaxy.images.sources.sources import open_source


def test_tables_and_archives_say_what_to_do(rng, tmp_path):
    stamps = fits.Column("stamp", "256E", dim="(16,16)", array=rng.random((5, 16, 16)))
    words = fits.Column("words", "12A", dim="(4,3)", array=np.array([["a", "b", "c"]] * 5))
    for name, column in (("a", stamps), ("b", words)):
        table = fits.BinTableHDU.from_columns([column])
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / f"{name}.fits")
    np.save(tmp_path / "c.npy", rng.random((5, 16, 16)))
    for name, mode in (("d.tar", "w"), ("e.tar.gz", "w:gz"), ("f.tar.bz2", "w:bz2")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(tmp_path / "a.fits", "a.fits")
    (tmp_path / "g.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform".ljust(300))
    with zipfile.ZipFile(tmp_path / "h.zip", "w") as archive:
        archive.write(tmp_path / "a.fits", "a.fits")
    hdf5(tmp_path / "i.h5", images=rng.random((5, 16, 16)) + 1j)
    hdf5(tmp_path / "j.h5", images=rng.random((5, 16, 16)) > 0.5, psf=rng.random((9, 9)))
    source = open_source(tmp_path)
    says = ["a FITS table with images", "not an image", "a NumPy array; save",
            *["a tar archive; unpack"] * 3, "a MATLAB file older than version 7.3; save",
            "a zip archive inside a folder or another archive; open it by itself",
            *["an HDF5 file whose `images` is not an array of real numbers"] * 2]  # fmt: skip
    for i, start in enumerate(says):
        assert reason(source, i).startswith(start)
    with pytest.raises(DataError, match=r"d\.tar: a tar archive; unpack it"):
        open_source(tmp_path / "d.tar")
    assert reason(open_source(tmp_path / "e.tar.gz"), 0).startswith("a tar archive")
