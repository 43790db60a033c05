"""Files of pictures in every format, and what a source reads from them."""

import io
import pickle
import struct
import zlib

import h5py
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image

from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.sources.sources import open_source


def encoded(pixels, kind="PNG", **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def pixels_of(rng, *shape, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def reason(source, i):
    with pytest.raises(UnusableImageError) as caught:
        source.read(i)
    return str(caught.value)


def one(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    source = open_source(path)
    assert len(source) == 1
    assert source.ids == [name.split(".")[0]]
    return source.read(0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(pixels):
    """A PNG of 16 bits with the colours of `pixels`, (height, width, 1 to 4)."""
    height, width, samples = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels, **settings):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **settings)
    return file.getvalue()


def fits_file(*hdus):
    file = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


def hdf5(path, matlab=False, attributes=(), **datasets):
    block = {"userblock_size": 512} if matlab else {}
    with h5py.File(path, "w", **block) as file:
        for name, values in datasets.items():
            file[name] = values
            file[name].attrs.update(attributes)
    if matlab:
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def read_alone(folder, i):
    """The only picture in file `i` of a folder, as it is there: beside others it may be turned."""
    return open_source(sorted(folder.iterdir())[i]).read(0)


def check_all(path, expected, **close):
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert len(source) == len(expected)
    for i, picture in enumerate(expected):
        np.testing.assert_allclose(source.read(i), picture, **{"rtol": 1e-6, **close})
    return source
