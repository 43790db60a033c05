"""Sources: every kind of file is read as the intensities that were written to it."""

import gzip
import io
import pickle
import socket
import zipfile

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image
from skimage.data import hubble_deep_field

from layerkit.errors import DataError
from layerkit.galaxy import hubble
from layerkit.galaxy.preparation import prepare
from layerkit.galaxy.sources import UnusableImageError, is_prepared, open_source, stretch


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


def test_every_kind_of_pixel(rng, tmp_path):
    rgba = pixels_of(rng, 9, 11, 4)
    expected = rgba[..., :3].mean(2) / 255
    np.testing.assert_allclose(one(tmp_path, "rgba.png", encoded(rgba)), expected, atol=1e-7)
    deep = pixels_of(rng, 9, 11, dtype=np.uint16)
    np.testing.assert_allclose(one(tmp_path, "deep.png", encoded(deep)), deep / 65535, atol=1e-7)
    indexed = Image.fromarray(rgba[..., :3]).quantize(16)
    file = io.BytesIO()
    indexed.save(file, "PNG")
    np.testing.assert_allclose(
        one(tmp_path, "palette.png", file.getvalue()),
        np.asarray(indexed.convert("RGB")).mean(2) / 255,
        atol=1e-7,
    )

    def tiff(pixels, name, **settings):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **settings)
        return one(tmp_path, name, file.getvalue())

    colour = pixels_of(rng, 9, 11, 3, dtype=np.uint16)
    np.testing.assert_allclose(
        tiff(colour, "deep-colour.tif", photometric="rgb"),
        colour.mean(2) / 65535,
        atol=1 / 65535,
    )
    np.testing.assert_allclose(
        tiff(rgba[..., :3], "colour.tiff", photometric="rgb"), expected, atol=1e-7
    )
    for kind in (np.float32, np.float64):
        unit = rng.random((9, 11)).astype(kind)
        np.testing.assert_allclose(tiff(unit, "unit.tif"), unit, atol=1e-7)
        counts = 1000 + 300 * unit
        np.testing.assert_array_equal(tiff(counts, "counts.tif"), stretch(counts))


def test_stretch_does_not_depend_on_units(rng):
    sky = rng.normal(0, 1, (60, 60))
    sky[30:34, 30:34] += 500
    image = stretch(sky)
    assert image.min() >= 0
    assert image.max() == 1
    np.testing.assert_allclose(stretch(sky * 1e-11 + 3e-9), image, atol=1e-5)
    order = np.argsort(sky.ravel())
    assert (np.diff(image.ravel()[order]) >= 0).all()
    faint, bright = np.median(image), np.median(image[30:34, 30:34])
    assert faint < 0.1 < 0.9 < bright
    assert np.isnan(stretch(np.where(sky > 100, np.nan, sky))[31, 31])


def test_fits(rng, tmp_path):
    data = rng.gamma(1, 100, (12, 14)).astype(np.float32)
    expected = stretch(data)

    def content(*hdus):
        file = io.BytesIO()
        fits.HDUList(list(hdus)).writeto(file)
        return file.getvalue()

    first = content(fits.PrimaryHDU(data))
    np.testing.assert_array_equal(one(tmp_path, "a.fits", first), expected)
    np.testing.assert_array_equal(one(tmp_path, "b.fits.gz", gzip.compress(first)), expected)
    second = content(fits.PrimaryHDU(), fits.ImageHDU(data[None]))
    np.testing.assert_array_equal(one(tmp_path, "c.fit", second), expected)
    squeezed = content(fits.PrimaryHDU(), fits.CompImageHDU(data.astype(np.int32)))
    np.testing.assert_array_equal(
        one(tmp_path, "d.fits.fz", squeezed), stretch(data.astype(np.int32))
    )
    noise = rng.normal(0, 20, data.shape)
    cube = np.stack([data - noise, data + noise, data])
    np.testing.assert_allclose(
        one(tmp_path, "e.fits", content(fits.PrimaryHDU(cube))), expected, atol=1e-5
    )
    (tmp_path / "table.fits").write_bytes(content(fits.PrimaryHDU()))
    (tmp_path / "cut.fits").write_bytes(first[:2900])
    assert reason(open_source(tmp_path / "table.fits"), 0) == "not an image"
    assert reason(open_source(tmp_path / "cut.fits"), 0) == "unreadable"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.zip", None, "no such file"),
        ("empty.zip", b"PK\5\6" + bytes(18), "an empty zip"),
        ("false.zip", b"GIF89a", "not a zip"),
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
