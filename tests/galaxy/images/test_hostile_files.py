"""Hostile files: what is huge, endless or broken is one picture's misfortune, and is counted."""

import bz2
import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from astropy.io import fits
from picture_files import chunk, encoded, fits_file, reason, tiff
from PIL import Image
from simulated import blob, picture

from layerkit.galaxy.images.decode import bounds
from layerkit.galaxy.images.decode.formats import fits as fits_pictures
from layerkit.galaxy.images.decode.formats import tiff as tiff_pictures
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.sources.sources import open_source


def fits_header(**keys):
    cards = [f"{key:8}= {value:>20}" for key, value in {"SIMPLE": "T", **keys}.items()]
    header = "".join(card.ljust(80) for card in [*cards, "END"]).encode()
    return header.ljust(-(-len(header) // 2880) * 2880)


def claims(*sides, bits=-32):
    axes = {f"NAXIS{k}": n for k, n in enumerate(sides, start=1)}
    return fits_header(BITPIX=bits, NAXIS=len(sides), **axes)


def png(width, height):
    """A grey PNG that is black, as small as can be."""
    row = bytes(width + 1)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def raw_tiff(width, height, bits, compression, strip, following=0):
    """A TIFF of one strip and one page, followed by the page at the offset `following`."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1),
        (273, 4, 134), (277, 3, 1), (278, 4, height), (279, 4, len(strip)), (339, 3, 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0\x0a\0" + entries + struct.pack("<I", following) + strip


def painted_over(times):
    """A progressive JPEG of 2,000 x 2,000 pixels whose last scan comes so many times."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rfind(b"\xff\xda")
    return content[:last] + content[last:-2] * times + b"\xff\xd9"


def deflated_tile(before=b""):
    """A compressed FITS image of 60 x 60 pixels, the one tile of which becomes 20 MB."""
    image = fits.CompImageHDU(
        np.zeros((60, 60)), compression_type="GZIP_1", quantize_level=0, tile_shape=(60, 60)
    )
    content = io.BytesIO(fits_file(fits.PrimaryHDU(), image))
    with fits.open(content, disable_image_compression=True) as hdus:
        tile = np.frombuffer(before + gzip.compress(bytes(20_000_000)), "u1")
        column = np.array([tile], dtype=object)
        table = fits.BinTableHDU.from_columns(
            [fits.Column("COMPRESSED_DATA", format="PB()", array=column)], header=hdus[1].header
        )
        return fits_file(fits.PrimaryHDU(), table)


def hdf5(**settings):
    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        written.create_dataset("images", **settings)
    return file.getvalue()


def linked():
    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        written["images"] = h5py.ExternalLink("/etc/passwd", "images")
    return file.getvalue()


def virtual():
    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        layout = h5py.VirtualLayout((3, 20, 20), "u1")
        layout[0] = h5py.VirtualSource("other.h5", "images", (20, 20))
        written.create_virtual_dataset("images", layout)
    return file.getvalue()


def animation(kind):
    file = io.BytesIO()
    frames = [Image.new("L", (9, 9), 20 * k) for k in range(5)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


TOO_LARGE = "too large"


ELSEWHERE = "HDF5 images stored in other files; copy them into this one"


HOSTILE = {
    "axes.fits": (claims(100_000, 100_000) + bytes(2880), "unreadable"),
    "cube.fits": (claims(10, 10, 10**9, bits=8) + bytes(2880), "unreadable"),
    "less.fits": (claims(-5, 10) + bytes(2880), "not an image"),
    "more.fits": (fits_header(BITPIX=8, NAXIS=999) + bytes(2880), "unreadable"),
    "tile.fits": (deflated_tile(), TOO_LARGE),
    "tile2.fits": (deflated_tile(before=gzip.compress(bytes(28_800))), TOO_LARGE),
    "text.gz": (gzip.compress(b"hello" * 1000), "not an image"),
    "under.png": (png(9000, 9000), TOO_LARGE),  # Pillow itself has its limit at twice as many
    "long.png": (png(2**25 + 1, 1), TOO_LARGE),
    "scans.jpg": (painted_over(300), TOO_LARGE),
    "wide.tif": (raw_tiff(9_961_532, 60, 16, 8, zlib.compress(bytes(10**6))), TOO_LARGE),
    "wide8.tif": (raw_tiff(9_961_532, 60, 8, 8, zlib.compress(bytes(10**6))), TOO_LARGE),
    "strip.tif": (raw_tiff(60, 60, 16, 8, zlib.compress(bytes(10**7))), TOO_LARGE),
    "loop.tif": (raw_tiff(8, 8, 16, 1, bytes(128), following=8), "unreadable"),
    "short.tif": (raw_tiff(5000, 5000, 16, 1, bytes(128)), "unreadable"),
    "claims.h5": (hdf5(shape=(10**6, 400, 400), dtype="f4"), TOO_LARGE),
    "chunk.h5": (
        hdf5(shape=(2, 20_000, 20_000), dtype="u1", chunks=(2, 20_000, 20_000)), TOO_LARGE
    ),
    "link.h5": (linked(), "an HDF5 file without a data set `images`"),
    "virtual.h5": (virtual(), ELSEWHERE),
    "external.h5": (
        hdf5(shape=(3, 20, 20), dtype="u1", external=[("/etc/passwd", 0, 1200)]), ELSEWHERE
    ),
    "records.h5": (hdf5(data=np.zeros((3, 9, 9), [("a", "f4")])),
                   "an HDF5 file whose `images` is not an array of real numbers"),
    "moving.gif": (animation("GIF"), "an animation"),
    "moving.png": (animation("PNG"), "an animation"),
    "ghost.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    "nothing.jpg": (b"", "not an image"),
    "sound.webp": (b"RIFF\0\0\0\0WAVEfmt ", "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_have_their_reason_and_take_little_memory(name, tmp_path):
    content, expected = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(name, content)
    tracemalloc.start()
    try:
        for source in (open_source(tmp_path), open_source(tmp_path / "set.zip")):
            assert reason(source, source.ids.index(name.split(".")[0])) == expected
        assert tracemalloc.get_traced_memory()[1] <= bounds.MAX_BYTES
    finally:
        tracemalloc.stop()


def test_one_bad_file_does_not_end_the_preparation_of_others(rng, tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    for name, (content, _) in HOSTILE.items():
        (folder / name).write_bytes(content)
    pixels = np.rint(255 * picture(rng, blob(212, 212, 20))).astype(np.uint8)
    (folder / "good.png").write_bytes(encoded(pixels))
    for workers in (1, 2):
        report = prepare(open_source(folder), tmp_path / "set.h5", progress=False, workers=workers)
        assert report.kept == 1
        assert report.read == len(HOSTILE) + 1
        assert report.excluded[TOO_LARGE] == sum(why == TOO_LARGE for _, why in HOSTILE.values())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_decompression_ends_at_its_bound(pack, tmp_path, monkeypatch):
    content = claims(4000, 1000, bits=8) + bytes(4_000_000)
    path = tmp_path / "a.fits.packed"
    path.write_bytes(pack(content))
    assert len(path.read_bytes()) < 6000
    assert open_source(path).read(0).shape == (1000, 4000)
    monkeypatch.setattr(bounds, "MAX_BYTES", 2**20)
    tracemalloc.start()
    try:
        assert reason(open_source(path), 0) == TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_zip_entries_are_bounded_by_what_they_say(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("large.fits", "w") as entry:
            entry.write(claims(16384, 16385, bits=8))
            for _ in range(129):
                entry.write(bytes(2**21))
        archive.writestr("small.fits", claims(20, 20, bits=8) + bytes(2880))
    assert reason(open_source(path), 0) == TOO_LARGE
    # A zip may lie about the size of what it holds.
    content = path.read_bytes().replace(struct.pack("<I", 5760), struct.pack("<I", 3000))
    path.write_bytes(content)
    assert reason(open_source(path), 1) == "unreadable"


def test_too_many_pages_and_extensions(tmp_path, monkeypatch):
    for module in (fits_pictures, tiff_pictures):
        monkeypatch.setattr(module, "MAX_DIRECTORIES", 50)
    pages = np.zeros((60, 8, 8), np.float32)
    (tmp_path / "a.tif").write_bytes(tiff(pages, photometric="minisblack"))
    hdus = [fits.ImageHDU(page) for page in pages]
    (tmp_path / "b.fits").write_bytes(fits_file(fits.PrimaryHDU(), *hdus))
    source = open_source(tmp_path)
    assert [reason(source, k) for k in range(len(source))] == [TOO_LARGE] * 2
