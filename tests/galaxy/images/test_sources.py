"""Sources: every kind of file is read as the intensities that were written to it."""

import bz2
import gzip
import io
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image
from skimage.data import hubble_deep_field

from layerkit.errors import DataError
from layerkit.galaxy import contact_sheets, load
from layerkit.galaxy.images.crop.scaling import stretch, unstretch
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.galaxy.images.sources import hubble
from layerkit.galaxy.images.sources.sources import open_source


def encoded(pixels, kind="PNG", **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def pixels_of(rng, *shape, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.fixture
def zipped(tmp_path):
    def write(entries):
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return path

    return write


def reason(source, i):
    with pytest.raises(UnusableImageError) as caught:
        source.read(i)
    return str(caught.value)


def test_zip_is_read_in_place(rng, zipped):
    colour, grey = pixels_of(rng, 20, 30, 3), pixels_of(rng, 15, 15)
    path = zipped(
        [
            ("images/", b""),
            ("images/deep/17.png", encoded(colour)),
            ("images/2.png", encoded(grey)),
            ("__MACOSX/images/._2.png", b"resource fork"),
            ("images/.DS_Store", b"finder"),
            ("images/notes.txt", b"not a picture"),
        ]
    )
    source = open_source(path)
    assert (source.name, len(source)) == ("set.zip", 3)
    assert source.ids == ["17", "2", "notes"]
    image = source.read(0)
    assert (image.dtype, image.shape) == (np.float32, (20, 30))
    np.testing.assert_allclose(image, colour.mean(2) / 255, atol=1e-7)
    copy = pickle.loads(pickle.dumps(source))  # after a read, with the zip open
    np.testing.assert_allclose(copy.read(1), grey / 255, atol=1e-7)
    assert reason(source, 2) == "not an image"


def test_bad_members_do_not_spoil_the_zip(rng, zipped):
    good = encoded(pixels_of(rng, 64, 64), "JPEG")
    path = zipped([("cut.jpg", good[: len(good) // 2]), ("rot.jpg", good), ("good.jpg", good)])
    content = bytearray(path.read_bytes())
    content[content.find(b"rot.jpg") + 60] ^= 0xFF  # the archive's checksum no longer agrees
    path.write_bytes(content)
    source = open_source(path)
    assert reason(source, 0) == "unreadable"
    assert reason(source, 1) == "unreadable"
    np.testing.assert_allclose(source.read(2), np.asarray(Image.open(io.BytesIO(good))) / 255)


def test_folder_is_searched_and_sorted(rng, tmp_path):
    for name in ("b/1.png", "a/1.png", "a/2.png", "a/2.jpg", "3.fits.gz.png"):
        path = tmp_path / "pile" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels_of(rng, 8, 8), "JPEG" if name.endswith("jpg") else "PNG"))
    (tmp_path / "pile" / ".hidden.png").write_bytes(b"")
    source = open_source(tmp_path / "pile")
    assert source.name == "pile"
    assert source.ids == ["3.fits.gz", "a/1", "a/2.jpg", "a/2.png", "b/1"]


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


def test_eight_bits_are_light(rng, tmp_path):
    rgba = pixels_of(rng, 9, 11, 4)
    expected = rgba[..., :3].mean(2) / 255
    for name, content in {
        "rgba.png": encoded(rgba),
        "colour.tiff": tiff(rgba[..., :3], photometric="rgb"),
        "planar.tiff": tiff(
            rgba[..., :3].transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"
        ),
        "packed.tiff": tiff(rgba[..., :3], photometric="rgb", compression="zlib"),
        "colour.bmp": encoded(rgba[..., :3], "BMP"),
        "colour.webp": encoded(rgba[..., :3], "WEBP", lossless=True),
        "false.fits": encoded(rgba[..., :3]),  # the content decides
    }.items():
        image = one(tmp_path, name, content)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, atol=1e-7)
    indexed = Image.fromarray(rgba[..., :3]).quantize(16)
    file = io.BytesIO()
    indexed.save(file, "PNG")
    np.testing.assert_allclose(
        one(tmp_path, "palette.png", file.getvalue()),
        np.asarray(indexed.convert("RGB")).mean(2) / 255,
        atol=1e-7,
    )


def test_sixteen_bits_keep_their_numbers(rng, tmp_path):
    grey, colour = pixels_of(rng, 9, 11, dtype=np.uint16), pixels_of(rng, 9, 11, 3, dtype=np.uint16)
    more = pixels_of(rng, 9, 11, 4, dtype=np.uint16)
    planar = colour.transpose(2, 0, 1).copy()
    for name, content, expected in [
        ("grey.png", encoded(grey), grey),
        ("colour.png", deep_png(colour), np.rint(colour.mean(2))),
        ("alpha.png", deep_png(more), np.rint(more[..., :3].mean(2))),
        ("grey.tif", tiff(grey), grey),
        ("big.tif", tiff(grey, bigtiff=True, byteorder=">"), grey),
        ("white.tif", tiff(grey, photometric="miniswhite"), 65535 - grey),
        ("packed.tif", tiff(grey, compression="zlib", predictor=True), grey),
        ("colour.tif", tiff(colour, photometric="rgb"), np.rint(colour.mean(2))),
        ("alpha.tif", tiff(more, photometric="rgb"), np.rint(more[..., :3].mean(2))),
        ("planar.tif", tiff(planar, photometric="rgb"), np.rint(colour.mean(2))),
    ]:
        image = one(tmp_path, name, content)
        assert image.dtype == np.uint16, name
        np.testing.assert_array_equal(image, expected, name)
        assert open_source(tmp_path / name).deep == [0]
    (tmp_path / "odd.png").write_bytes(deep_png(more[..., :2]))
    assert reason(open_source(tmp_path / "odd.png"), 0).startswith("a 16-bit grey PNG")


def test_floats_and_signed_integers_are_physical(rng, tmp_path):
    flux = rng.normal(0, 1e-3, (9, 11, 3))
    for kind in ("f4", "f8"):
        values = flux.astype(kind)
        one_band = one(tmp_path, "flux.tif", tiff(values[..., 0]))
        assert one_band.dtype == np.float64
        np.testing.assert_array_equal(one_band, values[..., 0])
        three = one(tmp_path, "rgb.tif", tiff(values, photometric="rgb"))
        np.testing.assert_allclose(three, flux.mean(2), atol=1e-9)
    counts = rng.integers(-3000, 3000, (9, 11))
    for kind in ("i2", "i4", "u4"):
        image = one(tmp_path, "counts.tif", tiff(abs(counts).astype(kind)))
        assert image.dtype == np.float64
        np.testing.assert_array_equal(image, abs(counts))


def test_stretch_does_not_depend_on_units_and_can_be_undone(rng):
    sky = rng.normal(0, 1, (60, 60))
    sky[30:34, 30:34] += 500
    image = stretch(sky, 0, 1, sky.max())
    assert image.min() >= 0
    assert image.max() == 1
    np.testing.assert_allclose(
        stretch(sky * 1e-11 + 3e-9, 3e-9, 1e-11, sky.max() * 1e-11 + 3e-9), image, atol=1e-6
    )
    assert image[0, 0] == pytest.approx(
        np.arcsinh((sky[0, 0] + 3) / 10) / np.arcsinh((sky.max() + 3) / 10), abs=1e-6
    )
    assert np.isnan(stretch(np.where(sky > 100, np.nan, sky), 0, 1, 9)[31, 31])
    inside = (image > 0) & (image < 1)
    back = unstretch(np.stack([image, image]), [[0, 1, sky.max()], [100, 2, 100 + 2 * sky.max()]])
    np.testing.assert_allclose(back[0][inside], sky[inside], atol=1e-3)
    np.testing.assert_allclose(back[1][inside], 100 + 2 * sky[inside], atol=2e-3)
    np.testing.assert_array_equal(unstretch(image, [0, 0, 4095]), 4095 * image.astype("f8"))


def test_fits(rng, tmp_path):
    data = rng.gamma(1, 100, (12, 14)).astype(np.float32)
    first = fits_file(fits.PrimaryHDU(data))
    counts = data.astype(np.int32)
    unsigned = fits.PrimaryHDU(data.astype(np.uint16))  # BZERO is 32768
    blank = fits.PrimaryHDU(data.astype(np.int16))
    blank.header["BLANK"] = int(data.astype(np.int16)[3, 4])
    for name, content, expected in [
        ("a.fits", first, data),
        ("b.fits.gz", gzip.compress(first), data),
        ("b.bz2", bz2.compress(first), data),
        ("c.fit", fits_file(fits.PrimaryHDU(), fits.ImageHDU(data[None])), data),
        ("d.flt", first, data),
        ("d", first, data),
        ("d.jpg", first, data),
        ("e.img", fits_file(unsigned), data.astype(np.uint16)),
        ("f.fz", fits_file(fits.PrimaryHDU(), fits.CompImageHDU(counts)), counts),
        ("g.fits", fits_file(fits.PrimaryHDU(), fits.CompImageHDU(
            data, compression_type="GZIP_2", quantize_level=0)), data),
    ]:  # fmt: skip
        image = one(tmp_path, name, content)
        assert image.dtype == np.float64
        np.testing.assert_array_equal(image, expected, name)
    holed = one(tmp_path, "h.fits", fits_file(blank))
    assert np.isnan(holed[3, 4])
    (tmp_path / "table.fits").write_bytes(fits_file(fits.PrimaryHDU()))
    (tmp_path / "cut.fits").write_bytes(first[:2900])
    assert reason(open_source(tmp_path / "table.fits"), 0) == "not an image"
    assert reason(open_source(tmp_path / "cut.fits"), 0) == "unreadable"


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
@pytest.mark.parametrize("tile", [None, (5, 14), (12, 14)])
@pytest.mark.parametrize("whole", [True, False])
def test_tiles_in_a_file_that_is_not_padded_to_full_blocks(kind, tile, whole, rng, tmp_path):
    """Some programs leave the last block of 2,880 bytes short."""
    if kind == "HCOMPRESS_1":
        tile = (12, 14)
    data = rng.normal(0, 1e3, (12, 14)).astype("i4" if whole else "f4")
    image = fits.CompImageHDU(data, compression_type=kind, quantize_level=16, tile_shape=tile)
    content = fits_file(fits.PrimaryHDU(), image)
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        header, start = hdus[1].header, hdus[1].fileinfo()["datLoc"]
    end = start + header["NAXIS1"] * header["NAXIS2"] + header["PCOUNT"]
    assert set(content[end:]) == {0}
    with fits.open(io.BytesIO(content)) as hdus:
        expected = hdus[1].data  # noise is quantised, and so not what it was
    if whole:
        np.testing.assert_array_equal(expected, data)
    for short in (content[:end], content[: end + 9]):
        for name, packed in (("a.fits.fz", short), ("a.fits.gz", gzip.compress(short))):
            np.testing.assert_array_equal(one(tmp_path, name, packed), expected)
    (tmp_path / "cut.fits.fz").write_bytes(content[: start + 2])
    assert reason(open_source(tmp_path / "cut.fits.fz"), 0) == "unreadable"


def test_stacks_in_a_zip(rng, zipped):
    stacks = rng.normal(0, 1, (2, 5, 12, 14))
    packed = [fits.CompImageHDU(x, compression_type="GZIP_1", quantize_level=0) for x in stacks]
    path = zipped([
        ("a.fits", fits_file(fits.PrimaryHDU(), *packed)),
        ("b.tif", tiff(stacks[0], photometric="minisblack", compression="zlib")),
        ("c.fits.gz", gzip.compress(fits_file(fits.PrimaryHDU(stacks[1])))),
    ])  # fmt: skip
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert source.ids[9:16] == ["a[0009]", *(f"b[{k:04d}]" for k in range(5)), "c[0000]"]
    expected = [*stacks[0], *stacks[1], *stacks[0], *stacks[1]]
    for k in [*range(20), *rng.permutation(20)]:
        np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)


def test_colours_and_stacks(rng, tmp_path):
    band = rng.normal(0, 1, (4, 12, 14))
    stack = rng.normal(0, 1, (6, 12, 14))

    def check(content, expected, name="s.fits"):
        (tmp_path / name).write_bytes(content)
        source = pickle.loads(pickle.dumps(open_source(tmp_path / name)))
        many = len(expected) > 1
        assert source.ids == [f"s[{k:04d}]" if many else "s" for k in range(len(expected))]
        for k in [*range(len(source)), 0]:
            np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)

    def primary(data):
        return fits_file(fits.PrimaryHDU(data))

    for n in (3, 4):
        check(primary(band[:n]), [band[:n].mean(0)])
        check(primary(band[:n].transpose(1, 2, 0)), [band[:n].mean(0)])
    check(primary(band[:1, None]), [band[0]])
    check(primary(band[:2]), band[:2])
    check(primary(stack), stack)
    check(primary(stack[:, None]), stack)
    check(primary(np.stack([band[:3], band[1:]])), [band[:3].mean(0), band[1:].mean(0)])
    check(fits_file(fits.PrimaryHDU(), fits.CompImageHDU(stack, quantize_level=0,
          compression_type="GZIP_1")), stack)  # fmt: skip
    check(gzip.compress(primary(stack)), stack)
    check(fits_file(fits.PrimaryHDU(), *(fits.ImageHDU(x) for x in stack)), stack)
    check(fits_file(fits.PrimaryHDU(stack[0]), *(fits.ImageHDU(x) for x in stack[1:])), stack)
    check(tiff(stack, photometric="minisblack"), stack)
    check(tiff(stack, photometric="minisblack", planarconfig="separate"), stack)
    check(tiff(stack, photometric="minisblack", volumetric=True), stack)
    check(tiff(stack.astype("f4"), photometric="minisblack", compression="zlib"), stack)
    deep = pixels_of(rng, 6, 12, 14, dtype=np.uint16)
    check(tiff(deep, imagej=True), deep)
    grey = pixels_of(rng, 6, 12, 14)
    check(tiff(grey, photometric="minisblack"), grey / 255)


def test_many_pictures_in_hdf5(rng, tmp_path):
    def check(expected, **data):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            for name, values in data.items():
                file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))
        source = pickle.loads(pickle.dumps(open_source(tmp_path / "s.h5")))
        assert len(source) == len(expected)
        for k in range(len(source)):
            np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)
        return source

    colour = pixels_of(rng, 5, 12, 14, 3)
    galaxy10 = check(colour.mean(3) / 255, images=colour, ans=np.arange(5), ra=np.ones(5))
    assert galaxy10.ids == [f"s[{k:04d}]" for k in range(5)]
    assert galaxy10.read(0).dtype == np.float32
    check(colour.mean(3) / 255, images=colour.transpose(0, 3, 1, 2))
    check([colour[0].mean(2) / 255], images=colour[0])
    flux = rng.normal(0, 1, (3, 12, 14))
    assert check(flux, anything=flux).read(0).dtype == np.float64
    check([flux[0]], images=flux[0])
    deep = pixels_of(rng, 4, 12, 14, dtype=np.uint16)
    assert check(deep, images=deep.astype(">u2")).deep == [0, 1, 2, 3]


def test_science_extensions_come_first(rng, tmp_path):
    science, weight = rng.normal(0, 1, (2, 12, 14))
    path = tmp_path / "a.fits"

    def check(expected, *hdus, **settings):
        path.write_bytes(fits_file(*hdus))
        source = open_source(path, **settings)
        assert len(source) == 1
        np.testing.assert_array_equal(source.read(0), expected)

    def image(name, data=weight):
        return fits.ImageHDU(data, name=name)

    first = fits.PrimaryHDU()
    for name in ("WHT", "ERR", "weight_map", "VAR_POISSON", "DQ", "IVAR", "MASK", "SIGMA"):
        check(science, first, image(name), image("SCI", science))
        check(science, first, image(name), image("", science))
        check(science, fits.PrimaryHDU(science), image(name))
    check(science, fits.PrimaryHDU(weight), image("IMAGE", science))
    flags = fits.CompImageHDU(np.zeros((12, 14), np.int32), name="BPM")
    check(science, first, flags, fits.CompImageHDU(science, name="SCI", quantize_level=0,
          compression_type="GZIP_1"))  # fmt: skip
    every = (first, image("WHT"), image("SCI", science))
    check(weight, *every, hdu=1)
    check(weight, *every, hdu="wht")
    assert reason(open_source(path, hdu=7), 0) == "no image in HDU 7"
    path.write_bytes(fits_file(first, image("WHT")))
    assert reason(open_source(path), 0) == (
        "only weights, masks, models or the like; choose an image with hdu"
    )


def test_names_of_any_bytes(rng, tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"caf\xff.png", b"two\nlines.png"):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(encoded(pixels_of(rng, 8, 8)))
    source = open_source(folder)
    assert source.ids == ["caf\\xe9", "caf\\xff", "two\\nlines"]
    assert all(source.read(k).shape == (8, 8) for k in range(3))
    (tmp_path / "s[0001].png").write_bytes(encoded(pixels_of(rng, 8, 8)))
    (tmp_path / "s.tif").write_bytes(tiff(rng.normal(0, 1, (2, 8, 8)), photometric="minisblack"))
    ids = open_source(tmp_path).ids
    assert len(ids) == len(set(ids)) == 6


def test_regular_files_only(rng, tmp_path):
    folder = tmp_path / "pile"
    (folder / "sub" / "deep").mkdir(parents=True)
    picture = encoded(pixels_of(rng, 8, 8))
    (folder / "sub" / "deep" / "1.png").write_bytes(picture)
    os.mkfifo(folder / "pipe.fits")
    os.symlink("/dev/zero", folder / "zero.png")
    with socket.socket(socket.AF_UNIX) as one_end:
        one_end.bind(str(folder / "end"))
        (folder / "gone.png").symlink_to(folder / "nothing")
        source = open_source(folder)
        assert source.ids == ["end", "gone", "pipe", "1", "zero"]
        reasons = {source.ids[k]: reason(source, k) for k in (0, 1, 2, 4)}
        assert reasons == {
            "end": "not a regular file", "gone": "unreadable",
            "pipe": "not a regular file", "zero": "not a regular file",
        }  # fmt: skip
        for path in (folder / "pipe.fits", folder / "end", "/dev/zero"):
            with pytest.raises(DataError, match="not a regular file"):
                open_source(path)


def test_linked_folders_are_followed_once(rng, tmp_path):
    folder, other = tmp_path / "pile", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for path in (folder / "1.png", other / "2.png"):
        path.write_bytes(encoded(pixels_of(rng, 8, 8)))
    (folder / "a-link").symlink_to(other)
    (folder / "again").symlink_to(other)
    (folder / "b-link").symlink_to(folder)
    (folder / "up").symlink_to("/")
    (other / "back").symlink_to(folder)
    (folder / "3.png").symlink_to(other / "2.png")
    (folder / "4.png").symlink_to(folder / "1.png")
    assert open_source(folder).files == ["1.png", "a-link/2.png"]  # 3 and 4 are other names of them
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "link").symlink_to(other)
    assert sorted(open_source(empty).ids) == ["1", "2"]  # one of them by way of `back`
    farm = tmp_path / "farm"
    farm.mkdir()
    for name, target in (("a", folder / "1.png"), ("b", other / "2.png"), ("c", other / "2.png")):
        (farm / f"{name}.png").symlink_to(target)
    assert open_source(farm).ids == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.zip", None, "no such file"),
        ("empty.zip", b"PK\5\6" + bytes(18), "an empty zip"),
        ("false.zip", b"galaxies", "not a zip"),
        ("cut.zip", b"PK\3\4" + bytes(50), "truncated"),
        ("notes.txt", b"twelve galaxies", "not a zip, a picture"),
        ("folder/", None, "an empty folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path, name, content, says):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message


def test_prepared_sets_are_told_apart(tmp_path):
    path = tmp_path / "hubble.h5"
    prepare(open_source(None), path, limit=20, progress=False)
    assert is_prepared(path)
    with pytest.raises(DataError, match=r"load\(\)"):
        open_source(path)
    assert not is_prepared(None)
    assert not is_prepared(tmp_path)
    (tmp_path / "other").write_bytes(b"text")
    assert not is_prepared(tmp_path / "other")


def test_built_in_galaxies_need_no_network(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("a download")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    hubble._picture.cache_clear()
    source = pickle.loads(pickle.dumps(open_source(None)))
    assert len(source) > 500
    assert len(set(source.ids)) == len(source)
    picture = hubble_deep_field().mean(2) / 255
    for i in range(0, len(source), 50):
        row, column = (int(n) for n in source.ids[i].split("_")[1:])
        image = source.read(i)
        middle = image.shape[0] // 2
        corner = row - middle, column - middle
        matches = [
            np.abs(image - picture[y : y + image.shape[0], x : x + image.shape[1]]).max() < 1e-6
            for y in range(max(0, corner[0] - 1), corner[0] + 2)
            for x in range(max(0, corner[1] - 1), corner[1] + 2)
            if picture[y : y + image.shape[0], x : x + image.shape[1]].shape == image.shape
        ]
        assert sum(matches) == 1


def test_the_first_row_of_fits_pictures_is_at_the_bottom(rng, tmp_path):
    """Stored with a prepared set, and so on contact sheets; of a mixture, the most common."""
    side = 120
    y, x = np.mgrid[:side, :side] - side / 2
    light = 1000 * np.exp(-np.hypot(x, y) / 6) + rng.normal(10, 2, (side, side))
    shots = tmp_path / "shots"
    shots.mkdir()
    for name in ("a.fits", "b.fits"):
        fits.writeto(shots / name, light.astype("f4"))
    (shots / "c.txt").write_text("no picture")
    Image.fromarray(np.clip(light / 5, 0, 255).astype("u1")).save(shots / "d.png")
    assert open_source(shots).row_order == "bottom"
    assert open_source(shots / "a.fits").row_order == "bottom"
    assert open_source(shots / "d.png").row_order == "top"
    prepare(open_source(shots / "a.fits"), tmp_path / "set.h5", workers=1)
    galaxies = load(tmp_path / "set.h5")
    assert galaxies.row_order == "bottom"
    source = open_source(shots / "a.fits")
    sheets = {}
    for order in ("top", "bottom"):
        drawn = replace(galaxies, row_order=order)
        paths = contact_sheets(drawn, tmp_path / order, source)
        sheets[order] = {p.name: np.asarray(Image.open(p)) for p in paths}
    for name, sheet in sheets["bottom"].items():
        np.testing.assert_array_equal(sheet, sheets["top"][name][::-1])  # of one tile
    (shots / "b.fits").unlink()
    assert open_source(shots).row_order == "top"  # as many of either: as pictures usually are


def test_a_link_to_itself_costs_no_other_picture(rng, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(tmp_path / name)
    (tmp_path / "around.png").symlink_to("around.png")
    source = open_source(tmp_path)
    assert source.ids == ["a", "around", "b"]
    assert [source.read(i).shape for i in (0, 2)] == [(9, 9)] * 2
    with pytest.raises(UnusableImageError, match="unreadable"):
        source.read(1)


@pytest.mark.parametrize("hdu", [True, -1, 1.5, b"SCI", ["SCI"]])
def test_an_hdu_that_is_neither_number_nor_name(hdu, tmp_path):
    with pytest.raises(DataError, match="hdu must be a whole number"):
        open_source(tmp_path, hdu)


@pytest.mark.parametrize("path", ["", "a\0b", 5, True, []])
def test_a_path_that_is_none(path):
    with pytest.raises(DataError, match="expected the path of a file"):
        open_source(path)


def test_a_zip_entry_above_the_archive_is_a_picture_as_others_are(rng, tmp_path):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(file, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../up.png", "in/.hidden.png", "\u202egnp.png"):
            archive.writestr(name, file.getvalue())
    assert open_source(tmp_path / "a.zip").ids == ["up", "\\u202egnp"]


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


@pytest.mark.parametrize("names", [
    ("DATA", "STAT", "DQ"), ("DATA", "ERRMAP", "NMAP"), ("COADD", "NIMAGE"), ("", "RESIDUAL"),
    ("COADD", "DEPTH", "CHI2", "MASKBITS"), ("FLUX", "CONF"), ("BGSUB", "BGMOD"),
])  # fmt: skip
def test_planes_of_other_observatories_that_are_no_picture(names, rng, tmp_path):
    planes = rng.random((len(names), 20, 30))
    images = [fits.ImageHDU(p, name=n) for p, n in zip(planes, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path)
    assert source.ids == ["a"]
    np.testing.assert_array_equal(source.read(0), planes[0])


def test_bands_along_the_last_axis_are_a_picture_each(rng, tmp_path):
    images = rng.random((3, 20, 30, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = images
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = images[..., :2]
    fits.writeto(tmp_path / "c.fits", images[0])
    source = open_source(tmp_path)
    assert len(source) == 3 * 5 + 3 * 2 + 5
    expected = [*np.moveaxis(images, -1, 1).reshape(15, 20, 30)]
    expected += [*np.moveaxis(images[..., :2], -1, 1).reshape(6, 20, 30)]
    for i, picture in enumerate([*expected, *np.moveaxis(images[0], -1, 0)]):
        np.testing.assert_array_equal(source.read(i), picture)


def test_a_data_set_without_rows_is_no_image(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (0, 20, 30), np.float32)
    (tmp_path / "b").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "b" / "b.png")
    assert reason(open_source(tmp_path), 0) == "not an image"


def test_an_encrypted_entry_says_so(zipped):
    path = zipped([("a.png", encoded(np.zeros((9, 9), np.uint8)))])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert reason(open_source(path), 0) == "encrypted"


@pytest.mark.parametrize("empty", [0.0, 1.0, np.nan])
def test_bands_without_data_are_left_out_of_the_mean(empty, rng, tmp_path):
    bands = rng.normal(5, 1, (4, 20, 30))
    bands[3] = empty  # no survey there, or an alpha channel in floats
    expected = bands[:3].mean(axis=0)
    fits.writeto(tmp_path / "a.fits", bands)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = np.moveaxis(bands, 0, -1)[None]
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(bands, 0, -1), photometric="rgb")
    fits.writeto(tmp_path / "d.fits", np.full((3, 20, 30), empty))
    bands[0, 2, 3] = np.nan  # a bad pixel of one band is one of the picture
    fits.writeto(tmp_path / "e.fits", bands)
    source = open_source(tmp_path)
    for i in range(3):
        np.testing.assert_allclose(source.read(i), expected, rtol=1e-12)
    np.testing.assert_array_equal(source.read(3), empty)
    expected[2, 3] = np.nan
    np.testing.assert_allclose(source.read(4), expected, rtol=1e-12)


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


def test_the_built_in_pictures_have_no_extensions():
    with pytest.raises(DataError, match=r"built-in .* no FITS extensions"):
        open_source(None, hdu=1)


def test_the_number_of_an_hdu_may_be_a_string(rng, tmp_path):
    pixels = rng.random((20, 30))
    images = [fits.ImageHDU(x, name=n) for x, n in ((pixels, "SCI"), (pixels + 1, "WHT"))]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    source = open_source(tmp_path, "2")
    assert source.name == open_source(tmp_path, 2).name
    np.testing.assert_array_equal(source.read(0), pixels + 1)


def hdf5(path, matlab=False, attributes=(), **datasets):
    block = {"userblock_size": 512} if matlab else {}
    with h5py.File(path, "w", **block) as file:
        for name, values in datasets.items():
            file[name] = values
            file[name].attrs.update(attributes)
    if matlab:
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def check_all(path, expected, **close):
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert len(source) == len(expected)
    for i, picture in enumerate(expected):
        np.testing.assert_allclose(source.read(i), picture, **{"rtol": 1e-6, **close})
    return source


@pytest.mark.parametrize("matlab", [False, True])
def test_pictures_that_matlab_wrote(matlab, rng, tmp_path):
    """Its arrays have their axes in reverse, as HDF5 sees them."""
    colour = rng.random((20, 24, 24, 3))  # n, height, width
    wide = colour[:, :, :18]
    path = tmp_path / "a.mat"
    hdf5(path, matlab, images=colour.T)
    check_all(path, colour.mean(3))
    if matlab:
        hdf5(path, True, images=wide.transpose(1, 2, 3, 0).T)
        check_all(path, wide.mean(3))
        hdf5(path, True, images=wide.transpose(0, 3, 1, 2).T)
        check_all(path, wide.mean(3))
        hdf5(path, True, images=wide[..., 0].transpose(1, 2, 0).T)
        check_all(path, wide[..., 0])
        hdf5(path, True, images=wide[0].T)
        check_all(path, [wide[0].mean(2)])
    else:
        hdf5(path, images=wide.T)  # 3 x 18 pictures of 24 x 20, as well
        assert reason(open_source(path), 0).startswith("ambiguous axes")
    hdf5(path, matlab, images=colour[..., 0].T)
    assert reason(open_source(path), 0).startswith("ambiguous axes")


def test_pictures_along_the_last_axis(rng, tmp_path):
    colour = rng.random((20, 24, 18, 3))
    path = tmp_path / "a.h5"
    hdf5(path, images=colour.transpose(1, 2, 3, 0))  # height, width, 3, n
    check_all(path, colour.mean(3))
    fits.writeto(tmp_path / "a.fits", colour.transpose(1, 2, 3, 0))
    check_all(tmp_path / "a.fits", colour.mean(3))


@pytest.mark.parametrize("shape", [(24, 24, 20), (24, 24, 5, 20), (24, 18, 5, 20), (12, 14, 2),
                                   (1, 24, 24, 20), (3, 20, 24, 18)])  # fmt: skip
def test_axes_of_uncertain_order_are_refused(shape, rng, tmp_path):
    hdf5(tmp_path / "a.h5", images=rng.random(shape))
    fits.writeto(tmp_path / "a.fits", rng.random(shape))
    for name in ("a.h5", "a.fits"):
        assert reason(open_source(tmp_path / name), 0).startswith("ambiguous axes")


def test_few_galaxies_of_many_bands_are_no_reversed_colours(rng, tmp_path):
    images = rng.random((3, 20, 20, 5))
    hdf5(tmp_path / "a.h5", images=images)
    check_all(tmp_path / "a.h5", images.transpose(0, 3, 1, 2).reshape(15, 20, 20))


def smooth(rng, *shape):
    return rng.normal(0, 1, shape).cumsum(-1).cumsum(-2) / shape[-1]


def test_flattened_pictures_are_refused(rng, tmp_path):
    path = tmp_path / "a.h5"
    for pictures in (
        rng.random((20, 64, 64)),  # 20 x 4096, which no picture of a galaxy is
        smooth(rng, 300, 20, 20),  # 300 x 400, which one might be
        smooth(rng, 300, 3, 16, 16), smooth(rng, 300, 3, 16, 16).transpose(0, 2, 3, 1),
    ):  # fmt: skip
        hdf5(path, images=pictures.reshape(len(pictures), -1))
        assert reason(open_source(path), 0).startswith("rows that look like flattened")
    fits.writeto(tmp_path / "a.fits", rng.random((20, 4096)))
    assert reason(open_source(tmp_path / "a.fits"), 0).startswith("rows that look like flattened")
    for picture in (smooth(rng, 300, 400), smooth(rng, 400, 400), rng.random((300, 400)),
                    smooth(rng, 200, 768)):  # fmt: skip
        hdf5(path, images=picture)
        np.testing.assert_array_equal(open_source(path).read(0), picture)


def test_scaled_numbers_of_netcdf(rng, tmp_path):
    packed = rng.integers(-900, 900, (2, 12, 14)).astype("i2")
    packed[0, 3, 4] = -32767
    expected = 0.25 * packed + 7
    expected[0, 3, 4] = np.nan
    path = tmp_path / "a.nc"
    scale = {"scale_factor": 0.25, "add_offset": np.array([7.0])}
    hdf5(path, attributes={**scale, "_FillValue": np.int16(-32767)}, images=packed)
    assert check_all(path, expected).read(0).dtype == np.float64
    holed = [[1, 99.9], [2, 3]]
    hdf5(path, attributes={"missing_value": np.float32(99.9)}, images=np.float32([holed] * 2))
    check_all(path, [[[1, np.nan], [2, 3]]] * 2)
    byte = pixels_of(rng, 2, 12, 14)
    byte[:, 0, 0], byte[byte == 255] = 255, 254
    byte[0, 5, 6] = 255
    light = byte / np.float32(255)
    light[0, 5, 6] = np.nan
    hdf5(path, attributes={"_FillValue": np.uint8(255)}, images=byte)
    source = check_all(path, light)
    assert {source.read(k).dtype for k in range(2)} == {np.dtype("f4")}
    hdf5(path, attributes={"scale_factor": 0.5}, images=byte.astype("u2"))
    source = check_all(path, 0.5 * byte)
    assert (source.deep, source.read(0).dtype) == ([], np.float64)
    hdf5(path, attributes={"scale_factor": 1.0, "add_offset": 0.0}, images=byte.astype("u2"))
    assert open_source(path).deep == [0, 1]
    for fault in ("two", [1.0, 2.0]):
        hdf5(path, attributes={"scale_factor": fault}, images=byte)
        assert reason(open_source(path), 0).startswith("an HDF5 attribute `scale_factor`")


BADS = [1e30, -1e30, -1.5e35, 0, -99, -999, -9999, -32768]


@pytest.mark.parametrize("bad", BADS)
def test_marks_of_bad_pixels_are_no_data(bad, rng, tmp_path):
    bands = rng.normal(50, 1, (3, 20, 30)).astype("f4")
    bands[1, 3, 4] = bands[1, 5, 6] = bad
    expected = bands.astype("f8").mean(axis=0)
    expected[3, 4] = expected[5, 6] = np.nan
    fits.writeto(tmp_path / "a.fits", bands)
    hdf5(tmp_path / "b.h5", images=np.moveaxis(bands, 0, -1)[None])
    fits.writeto(tmp_path / "c.fits", np.where(np.isnan(expected), bad, expected))
    tifffile.imwrite(tmp_path / "d.tif", np.where(np.isnan(expected), bad, expected))
    source = open_source(tmp_path)
    for i in range(4):
        np.testing.assert_allclose(source.read(i), expected, rtol=1e-6)


def test_numbers_that_mark_bad_pixels_elsewhere_are_data_here(rng, tmp_path):
    noise = rng.normal(0, 40, (30, 30))
    noise[3, 4] = -99  # one of many such
    tall = 1e38 * np.exp(rng.normal(0, 1, (30, 30)))  # luminosities
    counts = np.rint(rng.normal(0, 400, (30, 30))).astype("i2")
    counts[5, 6] = -999
    kept = [noise, tall, counts, *(rng.poisson(rate, (30, 30)) for rate in (0.01, 0.1, 1, 9, 50))]
    kept += [np.maximum(noise, 0), np.where(noise > 60, noise, 0)]
    for i, pixels in enumerate(kept):
        fits.writeto(tmp_path / f"{i}.fits", pixels)
    source = check_all(tmp_path, [kept[int(name)] for name in open_source(tmp_path).ids])
    assert len(source) == 10


@pytest.mark.parametrize("kind", ["i2", "i4", "u2"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_blank_of_fits_integers(kind, packed, rng, tmp_path):
    values = rng.integers(100, 3000, (20, 30)).astype(kind)
    values[3, 4] = 99
    hdu = fits.CompImageHDU(values) if packed else fits.PrimaryHDU(values)
    hdu.header["BLANK"] = 99 - (32768 if kind == "u2" else 0)
    hdus = [fits.PrimaryHDU(), hdu] if packed else [hdu]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    expected = values.astype("f8")
    expected[3, 4] = np.nan
    check_all(tmp_path / "a.fits", [expected])


def galfit(rng, **more):
    planes = rng.random((3, 20, 30))
    hdus = [fits.ImageHDU(plane) for plane in planes]
    for hdu, name in zip(hdus, ("NGC 1", "model", "residual map"), strict=True):
        hdu.header.update({"OBJECT": name, **more})
    hdus[1].header.update({
        "LOGFILE": "galfit.01", "FITSECT": "[1:30,1:20]", "COMP_1": "sersic", "1_XC": "15.1 +/- 0.1"
    })  # fmt: skip
    return planes, fits.HDUList([fits.PrimaryHDU(), *hdus])


@pytest.mark.parametrize("more", [{}, {"EXTNAME": "SCI"}])
def test_models_and_residuals_of_galfit_are_no_pictures(more, rng, tmp_path):
    planes, hdus = galfit(rng, **more)
    path = tmp_path / "imgblock.fits"
    hdus.writeto(path)
    check_all(path, planes[:1])
    np.testing.assert_array_equal(open_source(path, 2).read(0), planes[1])
    for hdu in hdus[1:]:
        hdu.header.remove("COMP_1", ignore_missing=True)
        hdu.header.remove("1_XC", ignore_missing=True)
    hdus.writeto(path, overwrite=True)  # of somebody who calls galaxies so
    assert len(open_source(path)) == 3


def test_stacks_of_pan_starrs_are_in_asinh_magnitudes(rng, tmp_path):
    flux = rng.normal(10, 5, (20, 30))
    hdu = fits.PrimaryHDU(2.5 / np.log(10) * np.arcsinh((flux - 0.5) / (2 * 120)))
    hdu.header.update({"BSOFTEN": 120.0, "BOFFSET": 0.5})
    hdu.writeto(tmp_path / "a.fits")
    check_all(tmp_path / "a.fits", [flux])


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


@pytest.mark.parametrize("kind", ["u1", "u2", "i4"])
@pytest.mark.parametrize("empty", [0, 7])
def test_bands_of_integers_without_data_are_left_out_of_the_mean(kind, empty, rng, tmp_path):
    bands = rng.integers(10, 250, (20, 30, 3)).astype(kind)
    bands[..., 1] = empty
    expected = bands[..., ::2].mean(axis=-1)
    expected = {"u1": expected / 255, "u2": np.rint(expected), "i4": expected}[kind]
    fits.writeto(tmp_path / "a.fits", np.moveaxis(bands, -1, 0))
    hdf5(tmp_path / "b.h5", images=bands[None])
    tifffile.imwrite(tmp_path / "c.tif", bands, photometric="rgb")
    if kind == "u1":
        Image.fromarray(bands).save(tmp_path / "d.png")
    source = open_source(tmp_path)
    np.testing.assert_allclose(source.read(0), bands[..., ::2].mean(axis=-1))
    for i in range(1, len(source)):
        np.testing.assert_allclose(source.read(i), expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name_in_a_zip_are_counted(rng, zipped):
    first, second, third = pixels_of(rng, 3, 9, 9)
    entries = [("a.png", first), ("b.png", second), ("a.png", third)]
    source = open_source(zipped([(name, encoded(pixels)) for name, pixels in entries]))
    assert source.ids == ["a", "b", "a~2"]
    np.testing.assert_allclose(source.read(0), third / 255, rtol=1e-6)
    np.testing.assert_allclose(source.read(1), second / 255, rtol=1e-6)
    assert reason(source, 2) == "replaced by a later entry of that name in the zip"


@pytest.mark.parametrize("fill", [0, -1, np.nan])
def test_a_band_that_ends_within_the_picture_hides_no_gap(fill, rng, tmp_path):
    bands = rng.normal(50, 1, (3, 30, 40))
    expected = bands.mean(axis=0)
    bands[1, :, :9] = fill
    fits.writeto(tmp_path / "a.fits", bands)
    hdf5(tmp_path / "b.h5", images=np.moveaxis(bands, 0, -1)[None].astype("f4"))
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(bands, 0, -1), photometric="rgb")
    for i in range(3):
        picture = open_source(tmp_path).read(i)
        assert np.isnan(picture[:, :9]).all()
        # The line beside a gap may count to it.
        np.testing.assert_allclose(picture[:, 10:], expected[:, 10:], rtol=1e-6)


def float_predicted(pixels):
    """A deflated TIFF with the predictor of floats, after Adobe's Photoshop TIFF Technical Note 3.

    Of each row first the highest bytes of all numbers, then the next, as differences.
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


def test_hdf5_compressions_that_are_not_there_are_named(rng, tmp_path):
    """Plugins mark their filters as optional: one that is missing may have been passed over."""
    pixels = rng.random((4, 20, 30))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(1, 20, 30), compression="gzip")
    content = (tmp_path / "a.h5").read_bytes()
    gzip_filter = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    assert content.count(gzip_filter) == 1
    blosc = struct.pack("<HHHH", 32001, 8, 1, 1) + b"deflate\0"
    (tmp_path / "a.h5").write_bytes(content.replace(gzip_filter, blosc))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, 20, 30))
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        space = h5py.h5s.create_simple(pixels.shape)
        data = h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_DOUBLE, space, plan)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, pixels)
    source = open_source(tmp_path)
    assert reason(source, 0) == "an unsupported HDF5 compression; save it with gzip"
    np.testing.assert_array_equal(source.read(4), pixels[0])


def test_files_that_belong_to_another_by_their_names_are_no_pictures(rng, tmp_path):
    """As SExtractor, SWarp, drizzle and GALFIT's users name weights, masks, errors and models."""
    light = [
        "a.fits",
        "b_sci.fits",
        "coadd.fits",
        "d.jpg",
        "mask.png",
        "e_mask.png",
        "deep/a.fits",
        "a_r.fits",
        "a_exp1.fits",
    ]
    others = [
        "a_mask.png",
        "a_sigma.fits",
        "b_wht.fits",
        "coadd.weight.fits.fz",
        "d-model.png",
        "deep/a_psf.fits",
        "a_r_INVVAR.fits",
    ]
    (tmp_path / "deep").mkdir()
    for name in (*light, *others):
        (tmp_path / name).write_bytes(encoded(pixels_of(rng, 9, 9)))
    source = open_source(tmp_path)
    assert set(source.files) == {*light, *others}
    for i, name in enumerate(source.files):
        if name in light:
            assert source.read(i).shape == (9, 9)
        else:
            assert reason(source, i).startswith("named as weights, a mask, a model or the like")
    assert open_source(tmp_path / "a_mask.png").read(0).shape == (9, 9)  # asked for by name


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("fill", [0, 9])
def test_a_band_of_light_that_ends_within_the_picture_hides_no_gap(kind, fill, rng, tmp_path):
    """The mean of the others and of nothing would be a galaxy with a dark half."""
    y, x = np.mgrid[-64:64, -64:64]
    light = 12 + 200 * np.exp(-np.hypot(x, y / 0.6) / 8)
    bands = light[..., None] + rng.normal(0, 3, (128, 128, 3))
    bands = np.clip(np.rint(bands * (1 if kind == "u1" else 200)), 0, None)
    bands = np.clip(bands, 0, 255 if kind == "u1" else 65535).astype(kind)
    tifffile.imwrite(tmp_path / "whole.tif", bands, photometric="rgb")
    ends = bands.copy()
    ends[:, :50, 1] = fill
    tifffile.imwrite(tmp_path / "ends.tif", ends, photometric="rgb")
    ends, whole = (open_source(tmp_path).read(i) for i in range(2))
    unit = 255 if kind == "u1" else 1
    np.testing.assert_allclose(whole * unit, bands.mean(axis=-1), atol=0.5)
    assert (ends[:, :50] == 0).all()
    # A blank is taken to be wider than it is by what a JPEG blurs.
    np.testing.assert_array_equal(ends[:, 60:], whole[:, 60:])
    report = prepare(open_source(tmp_path), tmp_path / "set.h5", size=32, progress=False)
    assert report.excluded == {"reaches into blank border": 1}
    assert load(tmp_path / "set.h5").ids == ["whole"]


def test_a_zip_whose_folders_are_named_as_on_windows(rng, zipped):
    pixels = pixels_of(rng, 3, 9, 9)
    names = ["train\\1.png", "train\\deep\\2.png", "train\\2_mask.png"]
    entries = list(zip(names, map(encoded, pixels), strict=True))
    hidden = [("__MACOSX\\._1.png", b"x"), ("train\\.thumbs", b"x")]
    source = open_source(zipped([*entries, *hidden]))
    assert source.ids == ["1", "2", "2_mask"]
    for i in range(3):
        np.testing.assert_allclose(source.read(i), pixels[i] / 255, rtol=1e-6)
