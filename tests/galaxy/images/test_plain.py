"""Plain pictures: turned as their Orientation tag asks, and refused where damaged."""

import io

import numpy as np
import pytest
import tifffile
from picture_files import chunk, encoded, one, pixels_of, reason
from PIL import Image

from layerkit.galaxy.images.sources.sources import open_source

SEEN = {  # Exif orientation -> where [[1, 2, 3], [4, 5, 6]] is seen
    1: [[1, 2, 3], [4, 5, 6]], 2: [[3, 2, 1], [6, 5, 4]], 3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]], 5: [[1, 4], [2, 5], [3, 6]], 6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]], 8: [[3, 6], [2, 5], [1, 4]],
}  # fmt: skip


@pytest.mark.parametrize("orientation", SEEN)
def test_pictures_are_turned_as_their_orientation_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x112] = orientation
    grey = np.array(SEEN[1])
    blocks = np.kron(30 * grey, np.ones((16, 16))).astype(np.uint8)
    for name in ("a.png", "b.tif", "c.webp", "d.jpg"):
        settings = {"lossless": True} if name == "c.webp" else {"quality": 100}
        Image.fromarray(blocks).save(tmp_path / name, exif=exif, **settings)
    Image.fromarray(blocks.astype(np.uint16) * 100).save(tmp_path / "e.png", exif=exif)
    tag = (0x112, "H", 1, orientation, True)
    for name, deep in (("f.tif", np.uint16), ("g.tif", np.float32)):
        tifffile.imwrite(tmp_path / name, blocks.astype(deep), extratags=[tag])
    source = open_source(tmp_path)
    for i, name in enumerate(source.ids):
        middles = source.read(i)[8::16, 8::16]
        seen = np.round(6.0 * middles / middles.max()).astype(int)
        np.testing.assert_array_equal(seen, SEEN[orientation], name)


def test_an_orientation_that_cannot_be_read_costs_no_picture(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_allclose(open_source(tmp_path).read(0), grey / 255, atol=1e-7)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_whose_pixels_are_damaged_is_unreadable(depth, rng, tmp_path):
    """Each chunk has its checksum; a bit that is flipped would be read as another number."""
    pixels = pixels_of(rng, 12, 14, dtype=f"u{depth // 8}")
    content = encoded(pixels)
    start, stop = content.index(b"IDAT") + 4, content.index(b"IEND") - 4
    for at in [*rng.integers(start, stop, 40), stop - 1]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.png").write_bytes(damaged)
        assert reason(open_source(tmp_path / "a.png"), 0) == "unreadable"
    palette = Image.fromarray(pixels.astype("u1")).convert("P")
    file = io.BytesIO()
    palette.save(file, "PNG")
    damaged = bytearray(file.getvalue())
    damaged[damaged.index(b"PLTE") + 9] ^= 1
    (tmp_path / "a.png").write_bytes(damaged)
    assert reason(open_source(tmp_path / "a.png"), 0) in ("unreadable", "not an image")


def test_a_png_whose_last_words_are_damaged_is_readable(rng, tmp_path):
    pixels = pixels_of(rng, 12, 14)
    content = encoded(pixels)
    words = bytearray(chunk(b"tEXt", b"Author\0somebody"))
    words[-1] ^= 1
    end = content[-12:]
    for tail in (words + end, words[:-3], b"", end[:-1] + b"?", end + b"more"):
        picture = one(tmp_path, "a.png", content[:-12] + tail)
        np.testing.assert_allclose(picture, pixels / 255, rtol=1e-6)
