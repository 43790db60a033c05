"""Preparing: galaxies of known place and size are found, framed, kept or excluded."""

import io
import json
import re
import resource
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from simulated import SIDE, Pictures, blob, picture

from layerkit.errors import DataError
from layerkit.galaxy import gather
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.decode.bounds import UnusableImageError
from layerkit.galaxy.images.prepare.contact import contact_sheets
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load
from layerkit.galaxy.images.sources.sources import open_source


def test_from_pictures_to_file(rng, tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    where = {}
    for k in range(6):
        y, x = where[f"good{k}"] = rng.uniform(195, 230, 2)
        pixels = np.rint(255 * picture(rng, blob(y, x, 15 + 2 * k, 0.7))).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(file, "JPEG", quality=95)
        (folder / f"good{k}.jpg").write_bytes(file.getvalue())
    (folder / "cut.jpg").write_bytes(file.getvalue()[:3000])
    (folder / "readme.txt").write_text("galaxies")
    Image.new("RGB", (SIDE, SIDE)).save(folder / "black.png")
    report = prepare(open_source(folder), tmp_path / "new" / "set.h5", progress=False)
    assert (report.read, report.kept) == (9, 6)
    assert report.excluded == {"blank": 1, "unreadable": 1, "not an image": 1}
    assert "6 kept (66.7%)" in str(report)
    assert "1 excluded: not an image (readme)" in str(report)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["set.h5"]

    galaxies = load(tmp_path / "new" / "set.h5")
    assert galaxies.ids == sorted(where)
    assert galaxies.excluded == {
        "black": "blank", "cut": "unreadable", "readme": "not an image",
    }  # fmt: skip
    assert (galaxies.read, galaxies.source, galaxies.size) == (9, "pile", 69)
    assert galaxies.settings == Settings().__dict__
    assert galaxies.images.min() >= 0
    assert galaxies.images.max() <= 1
    np.testing.assert_allclose(galaxies.scales, galaxies.crops[:, 2] / 69)
    for name, (y0, x0, side) in zip(galaxies.ids, galaxies.crops, strict=True):
        assert np.hypot(*(np.array([y0, x0]) + side / 2 - where[name])) < 1
    # Averages of pixels, not rounded to 8 bits again.
    assert len(np.unique(galaxies.images)) > 10 * 256


def test_workers_do_not_change_the_result(rng, tmp_path):
    images = [picture(rng, blob(212, 212, s)) for s in rng.uniform(12, 25, 70)]
    folder = tmp_path / "pile"
    folder.mkdir()
    for k, image in enumerate(images):
        Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(folder / f"{k}.png")
    (folder / "5.png").write_bytes(b"")
    source = open_source(folder)
    one = prepare(source, tmp_path / "one.h5", workers=1, progress=False, limit=68)
    two = prepare(source, tmp_path / "two.h5", workers=2, progress=False, limit=68)
    assert (one.read, one.kept, one.excluded) == (two.read, two.kept, two.excluded)
    assert one.read == 68
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_nothing_usable_leaves_nothing_behind(tmp_path):
    black = np.zeros((50, 50), np.float32)
    source = Pictures(black, UnusableImageError("not an image"), black)
    output = tmp_path / "set.h5"
    output.write_bytes(b"what was there")
    with pytest.raises(DataError, match=r"no usable galaxy in 3 images \(2 blank, 1 not an image"):
        prepare(source, output, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]
    assert output.read_bytes() == b"what was there"


def test_an_interrupt_leaves_nothing_behind(rng, tmp_path):
    good = picture(rng, blob(212, 212, 20))
    output = tmp_path / "set.h5"
    prepare(Pictures(good), output, progress=False)
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        prepare(Pictures(good, good, KeyboardInterrupt()), output, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]
    assert output.read_bytes() == before
    prepare(Pictures(good, good), output, progress=False)
    assert len(load(output)) == 2


def test_a_full_disk_is_an_error_and_leaves_the_old_set(rng, tmp_path, small_disk):
    good = picture(rng, blob(212, 212, 20))
    row = 69 * 69 * 4
    folder = small_disk(40 * row)
    output = folder / "set.h5"
    prepare(Pictures(good), output, progress=False)
    before = output.read_bytes()
    for count in (15, 20, 25, 38, 45, 80):
        # Too many for the disk: twice while they are put together, or as they come.
        many = Pictures(*[good] * count)
        if count == 15:
            prepare(many, folder / "fits.h5", progress=False)
            (folder / "fits.h5").unlink()
            continue
        with pytest.raises(DataError) as caught:
            prepare(many, output, progress=False)
        assert "set.h5: cannot be written (No space left on device)" in str(caught.value)
        assert output.read_bytes() == before
        assert [p.name for p in folder.iterdir()] == ["set.h5"]


@pytest.mark.parametrize("size", [0, 100, 5000, 30_000, 150_000])
def test_files_that_cannot_grow(rng, size, tmp_path):
    good = picture(rng, blob(212, 212, 20))
    output = tmp_path / "set.h5"
    prepare(Pictures(good), output, progress=False)
    before = output.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(DataError, match="cannot be written"):
            prepare(Pictures(*[good] * 9), output, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]


def test_trouble_with_the_source_is_not_the_outputs(rng, tmp_path):
    good = picture(rng, blob(212, 212, 20))
    source = Pictures(good, OSError(5, "Input/output error"))
    report = prepare(source, tmp_path / "set.h5", progress=False)
    assert (report.kept, report.excluded) == (1, {"fails with OSError": 1})
    source = Pictures(OSError(28, "No space left on device"))
    with pytest.raises(DataError, match=r"pictures: no usable .* \(1 fails with OSError\)"):
        prepare(source, tmp_path / "b.h5", progress=False)


def test_the_source_is_never_overwritten(rng, tmp_path):
    pixels = np.rint(255 * picture(rng, blob(212, 212, 20))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for source, output in (
        ("a.png", "a.png"), ("a.png", "link.png"), ("", "a.png"), ("a.zip", "a.zip"),
        ("link.png", "a.png"),
    ):  # fmt: skip
        with pytest.raises(DataError, match="a file of the source"):
            prepare(open_source(tmp_path / source), tmp_path / output, progress=False)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    prepare(open_source(tmp_path / "a.png"), tmp_path / "a.h5", progress=False)
    prepare(open_source(tmp_path / "a.png"), tmp_path / "a.h5", progress=False)


def test_what_the_set_was_made_of(rng, tmp_path):
    good = Pictures(picture(rng, blob(212, 212, 20)))
    origin = {"path": tmp_path, "files": [["a", np.int64(1), 1.5], ["\udcff", 2**63, None]]}
    prepare(good, tmp_path / "set.h5", progress=False, origin=origin)
    found = load(tmp_path / "set.h5").origin
    assert found == {**origin, "path": str(tmp_path)}
    prepare(good, tmp_path / "set.h5", progress=False)
    assert load(tmp_path / "set.h5").origin is None
    with pytest.raises(DataError, match=r"origin\['a'\] is of type object"):
        prepare(good, tmp_path / "set.h5", progress=False, origin={"a": object()})


def test_threads_that_prepare_to_one_path(rng, tmp_path):
    good = picture(rng, blob(212, 212, 20))
    output = tmp_path / "set.h5"
    failures = []

    def work(count):
        try:
            for _ in range(3):
                prepare(Pictures(*[good] * count), output, progress=False)
                assert len(load(output)) in (1, 2, 3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]


PREPARE_AND_HANG = """
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from simulated import Pictures, blob, picture
from layerkit.galaxy.images.prepare.prepare import prepare

class Slow(Pictures):
    def read(self, i):
        if i == 3:
            print("here", flush=True)
            time.sleep(600)
        return super().read(i)

good = picture(np.random.default_rng(0), blob(212, 212, 20))
prepare(Slow(*[good] * 5), sys.argv[2], workers=1, progress=False)
"""


def test_kill_9_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-c", PREPARE_AND_HANG, Path(__file__).parent, tmp_path / "set.h5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"here\n"
        finally:
            child.kill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True, np.True_])
def test_a_limit_that_is_none(limit, rng, tmp_path):
    good = Pictures(picture(rng, blob(212, 212, 20)))
    with pytest.raises(DataError, match="limit must be a whole number, at least 1"):
        prepare(good, tmp_path / "set.h5", progress=False, limit=limit)
    prepare(good, tmp_path / "set.h5", progress=False)
    with pytest.raises(DataError, match="limit must be a whole number, at least 1"):
        load(tmp_path / "set.h5", limit)
    with pytest.raises(DataError, match="limit must be a whole number, at least 1"):
        gather(tmp_path / "set.h5", tmp_path / "cache.h5", limit)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("size", True), ("size", 7.5), ("size", 10**6), ("frame", np.nan), ("frame", 0),
     ("frame", "6"), ("overlap", np.nan), ("threshold", -1), ("background", None),
     ("min_radius", -1), ("workers", "2"), ("workers", 1.5), ("workers", True), ("workers", -1)],
)  # fmt: skip
def test_settings_that_no_picture_can_be_cut_by(name, value, rng, tmp_path):
    good = Pictures(picture(rng, blob(212, 212, 20)))
    with pytest.raises(DataError, match=f"prepare: {name} must be"):
        prepare(good, tmp_path / "set.h5", progress=False, **{name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b", None, 3, ["a"]])
def test_what_is_no_path(path, tmp_path):
    for call in (lambda: prepare(Pictures(), path), lambda: load(path)):
        with pytest.raises(DataError, match="path of a file"):
            call()


def test_output_that_cannot_be_written(rng, tmp_path):
    good = Pictures(picture(rng, blob(212, 212, 20)))
    (tmp_path / "file").write_bytes(b"")
    for output in (tmp_path / "file" / "set.h5", tmp_path):
        with pytest.raises(DataError, match=re.escape(str(output))):
            prepare(good, output, progress=False)


def test_any_program_that_reads_hdf5_can_look_inside(rng, tmp_path):
    good = Pictures(picture(rng, blob(212, 212, 20)))
    prepare(good, tmp_path / "s.h5", size=32, progress=False)
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["images"], load(tmp_path / "s.h5").images)
        assert file["images"].shape == (1, 32, 32)
        assert file["images"].dtype == np.float32
        assert json.loads(file.attrs["ids"]) == ["g0"]
        assert file["scales"][0] == file["crops"][0, 2] / 32


class Own:
    """A source that somebody wrote: pictures and ids from lists."""

    name = "own"

    def __init__(self, pictures, ids):
        self.pictures, self.ids = pictures, ids

    def __len__(self):
        return len(self.pictures)

    def read(self, i):
        return self.pictures[i]


def test_pictures_of_other_types_from_sources_of_ones_own(rng, tmp_path):
    y, x = np.mgrid[-60:60, -60:60]
    light = 200 * np.exp(-np.hypot(x, 2 * y) / 8) + 10 + rng.normal(size=x.shape)
    masked = np.ma.masked_array(light, np.abs(x + 54) < 4)
    gaps = np.where(masked.mask, np.nan, light)
    byte, whole = light.astype(np.uint8), np.round(light * 20).astype(np.int16)
    pictures = [
        byte, np.float32(byte / 255), whole, whole.astype(np.float64), masked, gaps,
        np.stack([light] * 3, axis=-1),
    ]  # fmt: skip
    report = prepare(Own(pictures, list("abcdefg")), tmp_path / "set.h5", progress=False)
    assert report.excluded == {"not two-dimensional": 1}
    galaxies = load(tmp_path / "set.h5")
    sheets = {p.stem for p in contact_sheets(galaxies, tmp_path, Own(pictures, list("abcdefg")))}
    assert sheets == {"kept", "kept-crops", "excluded-not-two-dimensional"}
    byte_alone = [Own([p] * 7, list("abcdefg")) for p in pictures[:2]]
    one, other = (contact_sheets(galaxies, tmp_path / "x", s)[1].read_bytes() for s in byte_alone)
    assert one == other
    images = galaxies.images
    for i in (0, 2, 4):
        np.testing.assert_allclose(images[i], images[i + 1], atol=1e-6)


@pytest.mark.parametrize("ids", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_a_source_whose_pictures_have_no_ids_of_their_own(ids, tmp_path):
    with pytest.raises(DataError, match="expected a unique id for each of 2 pictures, got"):
        prepare(Own([np.zeros((9, 9))] * 2, ids), tmp_path / "set.h5")


@pytest.mark.parametrize("source", ["pictures/", None, [np.zeros((9, 9))]])
def test_what_is_no_source(source, tmp_path):
    with pytest.raises(DataError, match=r"expected a source of pictures.*open_source\(\)"):
        prepare(source, tmp_path / "set.h5")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [0, 1]}, "own: the id of a picture must be text, got 0; make it so"),
        ({"ids": [b"a", b"b"]}, "must be text, got b'a'"),
        ({"ids": [("a",), ("b",)]}, "must be text, got"),
        ({"ids": ["a", None]}, "must be text, got None"),
        ({"ids": None}, "ids must be a list of texts, got None"),
        ({"name": 7}, "the name of a source must be text, got 7"),
        ({"row_order": "upper"}, "row_order must be 'top' or 'bottom'.*got 'upper'"),
        ({"row_order": None}, "row_order must be 'top' or 'bottom'.*got None"),
    ],
)
def test_a_source_that_could_not_be_loaded_again_is_refused_at_once(changes, words, tmp_path):
    source = Own([np.zeros((9, 9))] * 2, ["a", "b"])
    source.read = lambda i: pytest.fail("a picture was read")
    vars(source).update(changes)
    with pytest.raises(DataError, match=words):
        prepare(source, tmp_path / "set.h5")
    assert not list(tmp_path.iterdir())


def test_ids_may_be_an_array_of_text(rng, tmp_path):
    y, x = np.mgrid[-60:60, -60:60]
    light = 200 * np.exp(-np.hypot(x, 2 * y) / 8) + 10 + rng.normal(size=x.shape)
    prepare(Own([light], np.array(["a"])), tmp_path / "set.h5", progress=False)
    assert load(tmp_path / "set.h5").ids == ["a"]
