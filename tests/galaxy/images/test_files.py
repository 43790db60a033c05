"""The files of folders and zips: each is one source's, once, and a bad one costs no other."""

import gzip
import io
import multiprocessing
import os
import pickle
import socket
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from picture_files import encoded, fits_file, pixels_of, reason, tiff
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.contact import contact_sheets
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load
from layerkit.galaxy.images.sources.files import FolderSource
from layerkit.galaxy.images.sources.results import without_results
from layerkit.galaxy.images.sources.sources import open_source


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
    # Most are of FITS, whose first row is at the bottom: those of the TIFF are turned.
    expected = [*stacks[0], *stacks[1], *stacks[0][:, ::-1], *stacks[1]]
    for k in [*range(20), *rng.permutation(20)]:
        np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)


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


def test_a_link_to_itself_costs_no_other_picture(rng, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(tmp_path / name)
    (tmp_path / "around.png").symlink_to("around.png")
    source = open_source(tmp_path)
    assert source.ids == ["a", "around", "b"]
    assert [source.read(i).shape for i in (0, 2)] == [(9, 9)] * 2
    with pytest.raises(UnusableImageError, match="unreadable"):
        source.read(1)


def test_a_zip_entry_above_the_archive_is_a_picture_as_others_are(rng, tmp_path):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(file, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../up.png", "in/.hidden.png", "\u202egnp.png"):
            archive.writestr(name, file.getvalue())
    assert open_source(tmp_path / "a.zip").ids == ["up", "\\u202egnp"]


def test_an_encrypted_entry_says_so(zipped):
    path = zipped([("a.png", encoded(np.zeros((9, 9), np.uint8)))])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert reason(open_source(path), 0) == "encrypted"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name_in_a_zip_are_counted(rng, zipped):
    first, second, third = pixels_of(rng, 3, 9, 9)
    entries = [("a.png", first), ("b.png", second), ("a.png", third)]
    source = open_source(zipped([(name, encoded(pixels)) for name, pixels in entries]))
    assert source.ids == ["a", "b", "a~2"]
    np.testing.assert_allclose(source.read(0), third / 255, rtol=1e-6)
    np.testing.assert_allclose(source.read(1), second / 255, rtol=1e-6)
    assert reason(source, 2) == "replaced by a later entry of that name in the zip"


def test_a_zip_whose_folders_are_named_as_on_windows(rng, zipped):
    pixels = pixels_of(rng, 3, 9, 9)
    names = ["train\\1.png", "train\\deep\\2.png", "train\\2_mask.png"]
    entries = list(zip(names, map(encoded, pixels), strict=True))
    hidden = [("__MACOSX\\._1.png", b"x"), ("train\\.thumbs", b"x")]
    source = open_source(zipped([*entries, *hidden]))
    assert source.ids == ["1", "2", "2_mask"]
    for i in range(3):
        np.testing.assert_allclose(source.read(i), pixels[i] / 255, rtol=1e-6)


def test_the_first_row_of_fits_pictures_is_at_the_bottom(rng, tmp_path):
    """Stored with a prepared set, and so on contact sheets; the fewer of a mixture are turned."""
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
    noise = fits.ImageHDU(np.cumsum(np.ones((side, side)), axis=0), name="VAR")
    fits.append(shots / "a.fits", noise.data, noise.header)
    mixed = open_source(shots)
    assert mixed.row_order == "top"  # as many of either: as pictures usually are
    a, d = (mixed.ids.index(name) for name in "ad")
    np.testing.assert_array_equal(mixed.read(a), light.astype("f4")[::-1])
    np.testing.assert_array_equal(mixed.planes(a).variance, noise.data[::-1])
    np.testing.assert_array_equal(mixed.read(d), open_source(shots / "d.png").read(0))


class Yielding(io.FileIO):
    """A file that lets other threads go on between a seek and the read that follows it."""

    def seek(self, *where):
        position = super().seek(*where)
        time.sleep(1e-4)
        return position


@pytest.mark.parametrize("kind", ["a.fits", "a.tif", "folder"])
def test_threads_that_read_from_one_source(kind, rng, tmp_path, monkeypatch):
    pictures = rng.normal(0, 1, (24, 12, 14)).astype("f4")
    path = tmp_path / kind
    if kind == "a.fits":
        path.write_bytes(fits_file(fits.PrimaryHDU(pictures)))
    elif kind == "a.tif":
        path.write_bytes(tiff(pictures, photometric="minisblack"))
    else:
        path.mkdir()
        for k, picture in enumerate(pictures):
            (path / f"{k:02}.fits").write_bytes(fits_file(fits.PrimaryHDU(picture)))
    source = open_source(path)
    monkeypatch.setattr(
        FolderSource,
        "_open",
        lambda self, k: io.BufferedReader(Yielding(self.path / self.files[k]), 512),
    )
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.read, [*range(24)] * 2))
    np.testing.assert_array_equal(read, [*pictures, *pictures])


def test_threads_leave_the_filters_of_warnings_as_they_were(rng, tmp_path, monkeypatch):
    """The process has one list of them, which each decoder changes and puts back."""
    for name in "ab":
        (tmp_path / f"{name}.fits").write_bytes(fits_file(fits.PrimaryHDU(rng.random((9, 9)))))
    sources = [open_source(tmp_path / f"{name}.fits") for name in "ab"]
    inside, plain = threading.Event(), FolderSource._open

    def wait(self, k):  # the first one is done while the second one is not
        first = not inside.is_set()
        inside.set()
        time.sleep(0.1 if first else 0.3)
        return plain(self, k)

    monkeypatch.setattr(FolderSource, "_open", wait)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda source: source.read(0), sources))
    assert list(warnings.filters) == before


def test_a_process_forked_while_a_thread_reads_can_read(rng, tmp_path, monkeypatch):
    """The thread is not there in the process, and so would never give back what it has taken."""
    pixels = pixels_of(rng, 2, 9, 9)
    for name, values in zip("ab", pixels, strict=True):
        (tmp_path / f"{name}.png").write_bytes(encoded(values))
    source = open_source(tmp_path)
    opening, go_on, plain = threading.Event(), threading.Event(), FolderSource._open

    def wait(self, k):
        if k == 0:
            opening.set()
            go_on.wait()
        return plain(self, k)

    monkeypatch.setattr(FolderSource, "_open", wait)
    fork = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(source.read, 0)
        opening.wait()
        results = fork.Queue()
        child = fork.Process(target=lambda: results.put(source.read(1)))
        child.start()
        try:
            second = results.get(timeout=20)
        finally:
            child.kill()
            child.join()
            go_on.set()
        np.testing.assert_allclose([first.result(), second], pixels / 255, rtol=1e-6)


def test_settings_beside_a_prepared_set_are_no_picture():
    files = ["a.png", "g.h5", "g.h5.toml", "mine.toml", "other.h5", "other.h5.toml"]
    left = without_results(files, lambda name: name == "g.h5")
    assert left == ["a.png", "mine.toml", "other.h5", "other.h5.toml"]
