"""TIFF: compressions and predictors, read as the numbers that were written."""

import struct
import zlib

import numpy as np
import pytest
from picture_files import encoded, pixels_of, reason

from layerkit.galaxy.images.sources.sources import open_source


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
def test_unsigned_tiffs_that_pillow_decodes(compression, rng, tmp_path):
    deep = pixels_of(rng, 20, 30, dtype=np.uint16)
    long = pixels_of(rng, 20, 30, dtype=np.uint32)
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))
    for name, pixels, white in (
        ("a", deep, 1), ("b", ~deep, 0), ("c", long.view(np.int32), 1),
        ("d", (~long).view(np.int32), 0),
    ):  # fmt: skip
        tags = {262: white}  # PhotometricInterpretation
        content = encoded(pixels, "TIFF", compression=compression, tiffinfo=tags)
        assert content.count(signed) == (name in "cd")
        (tmp_path / f"{name}.tif").write_bytes(content.replace(signed, unsigned))
    source = open_source(tmp_path)
    for i, expected in enumerate((deep, deep, long)):
        np.testing.assert_array_equal(source.read(i), expected, source.ids[i])
    assert reason(source, 3) == "an unsupported TIFF compression; save it uncompressed"


def float_predicted(pixels):
    """A deflated TIFF with the predictor of floats, after Adobe's Photoshop TIFF Technical Note 3.

    Each row has the highest bytes of all numbers first, then the next, as differences.
    """
    rows = np.ascontiguousarray(pixels, ">f4").view("u1").reshape(*pixels.shape, 4)
    rows = rows.transpose(0, 2, 1).reshape(len(pixels), -1)
    rows[:, 1:] -= rows[:, :-1].copy()
    strip = zlib.compress(rows.tobytes())
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 32, 259: 8, 262: 1, 273: 146, 277: 1, 278: height,
            279: len(strip), 317: 3, 339: 3}  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4) + strip


def test_floats_that_a_tiff_predicts(rng, tmp_path):
    pixels = rng.normal(0, 1e3, (20, 30)).astype("f4")
    (tmp_path / "a.tif").write_bytes(float_predicted(pixels))
    np.testing.assert_array_equal(open_source(tmp_path).read(0), pixels)
