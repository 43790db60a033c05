"""Preparing into shards: the same galaxies as in one file, whoever prepares them, and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from simulated import blob, picture

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import DataError
from layerkit.galaxy.images.parts import sharded
from layerkit.galaxy.images.stored import StoredSet


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 14 pictures, one broken, and a zip of them."""
    rng = np.random.default_rng(3)
    top = tmp_path_factory.mktemp("pictures")
    (top / "night").mkdir()
    for k, size in enumerate(rng.uniform(12, 25, 13)):
        pixels = np.rint(255 * picture(rng, blob(212, 212, size))).astype(np.uint8)
        Image.fromarray(pixels).save(top / "night" / f"{k:02d}.png")
    (top / "night" / "13.png").write_bytes(b"")
    with zipfile.ZipFile(top / "more.zip", "w") as archive:
        for path in sorted((top / "night").iterdir())[3:9]:
            archive.write(path, path.name)
    return top


@pytest.fixture(scope="module")
def whole(pictures):
    """The galaxies of the folder in one file."""
    galaxy.prepare(
        galaxy.open_source(pictures / "night"), pictures / "whole.h5", workers=1, progress=False
    )
    return galaxy.load(pictures / "whole.h5")


@pytest.fixture(scope="module")
def shards(pictures):
    """Shards of the folder and of the zip, and the report."""
    sources = [pictures / "night", pictures / "more.zip"]
    report = galaxy.prepare_shards(sources, pictures / "shards", each=5, workers=1, progress=False)
    return pictures / "shards", report


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_together_are_the_set_of_one_file(shards, whole):
    folder, report = shards
    names = [f"part-{k:06d}.h5" for k in range(5)]
    assert sorted(p.name for p in folder.glob("*.h5")) == names
    galaxies = galaxy.load(folder)
    assert galaxies.ids == [f"night/{i}" for i in whole.ids] + [
        f"more/{i:02d}" for i in range(3, 9)
    ]
    assert galaxies.excluded == {"night/13": "not an image"}
    for name in ("images", "crops", "scales", "stretches"):
        found, one = getattr(galaxies, name), getattr(whole, name)
        np.testing.assert_array_equal(found, np.concatenate([one, one[3:9]]))
    assert (report.read, report.kept, sum(report.excluded.values())) == (20, 19, 1)
    assert galaxies.read == 20
    assert galaxy.load(folder, limit=7).ids == galaxies.ids[:7]
    assert galaxy.load(folder, limit=7).images.shape == (7, 69, 69)


def test_a_stored_set_is_the_loaded_one(shards):
    galaxies, stored = galaxy.load(shards[0]), StoredSet(shards[0])
    assert stored.digest == galaxies.digest
    assert (stored.ids, stored.read, stored.excluded) == (
        galaxies.ids, galaxies.read, galaxies.excluded,
    )  # fmt: skip
    np.testing.assert_array_equal(list(stored), galaxies.images)
    rows = np.array([0, 4, 5, 6, 12, 18])
    np.testing.assert_array_equal(stored.images_of(rows), galaxies.images[rows])


def test_workers_do_not_change_a_byte(shards, pictures, tmp_path):
    sources = [pictures / "night", pictures / "more.zip"]
    galaxy.prepare_shards(sources, tmp_path / "out", each=5, workers=2, progress=False)
    assert contents(tmp_path / "out") == contents(shards[0])


def test_a_cluster_of_this_machine_prepares_what_plain_processes_prepare(
    shards, pictures, tmp_path
):
    pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    sources = [pictures / "night", pictures / "more.zip"]
    report = galaxy.prepare_shards(
        sources, tmp_path / "out", each=5, workers=1, scheduler="local", progress=False
    )
    assert contents(tmp_path / "out") == contents(shards[0])
    assert (report.read, report.kept) == (20, 19)


def test_the_shards_of_a_killed_worker_are_prepared_again(shards, pictures, tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    sources = [pictures / "night", pictures / "more.zip"]
    with distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=":0") as cluster:
        worker = next(iter(cluster.workers.values()))

        def kill():
            while not list((tmp_path / "out").glob("part-*.h5")):
                time.sleep(0.01)
            os.kill(worker.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        report = galaxy.prepare_shards(
            sources, tmp_path / "out", each=5, scheduler=cluster.scheduler_address, progress=False
        )
        killer.join()
    assert (report.read, report.kept) == (20, 19)
    assert contents(tmp_path / "out") == contents(shards[0])


def test_what_a_killed_scheduler_leaves_is_resumed(shards, pictures, tmp_path):
    pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    at, out = tmp_path / "scheduler.json", tmp_path / "out"
    sources = [pictures / "night", pictures / "more.zip"]

    def start(name, *words):
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *words, "--no-dashboard"]
        return subprocess.Popen([*command, "--scheduler-file", at], stderr=subprocess.DEVNULL)

    scheduler = start("scheduler", "--port", "0")
    worker = start("worker", "--nthreads", "1", "--no-nanny")
    try:
        while not (at.exists() and at.read_text().endswith("}")):  # Dask writes it in pieces
            time.sleep(0.05)

        def kill():
            while not list(out.glob("part-*.json")):
                time.sleep(0.001)
            scheduler.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        address = json.loads(at.read_text())["address"]
        with pytest.raises(DataError, match="resume goes on"):
            galaxy.prepare_shards(sources, out, each=1, scheduler=address, progress=False)
        killer.join()
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    report = galaxy.prepare_shards(sources, out, each=1, workers=1, resume=True, progress=False)
    assert (report.read, report.kept) == (20, 19)
    np.testing.assert_array_equal(galaxy.load(out).images, galaxy.load(shards[0]).images)


def test_resuming_prepares_what_is_missing(shards, pictures, tmp_path, monkeypatch):
    sources, out = [pictures / "night", pictures / "more.zip"], tmp_path / "out"
    shutil.copytree(shards[0], out)
    (out / "part-000001.json").unlink()  # killed between the file and its counts
    (out / "part-000003.h5").unlink()
    made, write_set = [], sharded.write_set

    def counting(source, path, *rest, **options):
        made.append(path.name)
        return write_set(source, path, *rest, **options)

    monkeypatch.setattr(sharded, "write_set", counting)
    with pytest.raises(DataError, match="2 of 5 parts are missing"):
        galaxy.load(out)
    with pytest.raises(DataError, match="not empty"):
        galaxy.prepare_shards(sources, out, each=5, progress=False)
    for other in ({"each": 6}, {"each": 5, "size": 32}):
        with pytest.raises(DataError, match="other sources or settings"):
            galaxy.prepare_shards(sources, out, **other, resume=True, progress=False)
    report = galaxy.prepare_shards(sources, out, each=5, workers=1, resume=True, progress=False)
    assert made == ["part-000001.h5", "part-000003.h5"]
    assert contents(out) == contents(shards[0])
    assert (report.read, report.kept, report.before) == (20, 19, 10)


def test_patterns_and_addresses_are_sources(pictures, whole, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    galaxy.prepare_shards(
        [str(pictures / "night" / "0*.png")], tmp_path / "some", each=4, workers=1, progress=False
    )
    some = galaxy.load(tmp_path / "some")
    assert some.ids == whole.ids[:10]
    np.testing.assert_array_equal(some.images, whole.images[:10])
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.zip", (pictures / "more.zip").read_bytes())
    galaxy.prepare_shards(
        ["memory://bucket/*.zip"], tmp_path / "far", each=4, workers=1, progress=False
    )
    far = galaxy.load(tmp_path / "far")
    assert far.ids == whole.ids[3:9]
    np.testing.assert_array_equal(far.images, whole.images[3:9])
    for wrong, words in (
        ("memory://bucket/none.zip", "no file there"),
        ("nobody://bucket/a.zip", "cannot be listed"),
        (str(tmp_path / "*.zip"), "no file matches"),
    ):
        with pytest.raises(DataError, match=words):
            galaxy.prepare_shards([wrong], tmp_path / "wrong", progress=False)


def test_a_shard_without_galaxies_counts(pictures, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (424, 424)).save(folder / f"{k}.png")
    shutil.copy(pictures / "night" / "00.png", folder / "5.png")
    report = galaxy.prepare_shards(folder, tmp_path / "out", each=2, workers=1, progress=False)
    assert (report.read, report.kept, report.excluded) == (5, 1, {"blank": 4})
    assert galaxy.load(tmp_path / "out").ids == ["5"]
    assert list(galaxy.load(tmp_path / "out").excluded) == ["0", "1", "2", "3"]
    data = L.HDF5Data("x", path=tmp_path / "out")
    assert lk.Net([data], 1, gradients="none").layers["x"].count == 1
    (folder / "5.png").unlink()
    with pytest.raises(DataError, match="no usable galaxy in 4 images"):
        galaxy.prepare_shards(folder, tmp_path / "none", each=2, workers=1, progress=False)
    with pytest.raises(DataError, match="lies in a folder of pictures"):
        galaxy.prepare_shards(folder, folder / "out", progress=False)


def test_all_shards_have_one_white(rng, tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    for k in range(4):  # of 12 bits, of which the first two reach only 11
        light = (4000 if k > 1 else 2000) * np.clip(picture(rng, blob(212, 212, 20)), 0, 1)
        Image.fromarray(np.rint(light).astype(np.uint16)).save(folder / f"{k}.png")
    galaxy.prepare(galaxy.open_source(folder), tmp_path / "one.h5", workers=1, progress=False)
    galaxy.prepare_shards(folder, tmp_path / "out", each=2, workers=1, progress=False)
    one, found = galaxy.load(tmp_path / "one.h5"), galaxy.load(tmp_path / "out")
    np.testing.assert_array_equal(found.images, one.images)
    np.testing.assert_array_equal(found.stretches[:, 2], 4095)


def test_damage_shows(shards, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(shards[0], out)
    content = bytearray((out / "part-000002.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "part-000002.h5").write_bytes(content)
    for read in (galaxy.load, StoredSet):
        with pytest.raises(DataError, match=r"part-000002.h5 is truncated or damaged"):
            read(out)
    index = json.loads((out / "index.json").read_text())
    index["parts"][0]["file"] = "../part-000000.h5"
    (out / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError):
        galaxy.load(out)


def test_shards_that_do_not_belong_together_are_refused(shards, pictures, tmp_path):
    twice, mixed = tmp_path / "twice", tmp_path / "mixed"
    for folder in (twice, mixed):
        shutil.copytree(shards[0], folder)
    shutil.copy(twice / "part-000000.h5", twice / "part-000001.h5")
    galaxy.prepare_shards(
        pictures / "more.zip", tmp_path / "other", size=32, workers=1, progress=False
    )
    for suffix in (".h5", ".json"):
        shutil.copy(tmp_path / "other" / f"part-000000{suffix}", mixed / f"part-000004{suffix}")
    for read in (galaxy.load, StoredSet):
        with pytest.raises(DataError, match="its shards name a galaxy twice"):
            read(twice)
        with pytest.raises(DataError, match=r"part-000004.h5: prepared with other settings than"):
            read(mixed)


def test_a_shard_that_somebody_replaced_is_told(pictures, shards, tmp_path):
    """A whole set by itself, but not the one that was written."""
    shutil.copytree(shards[0], tmp_path / "shards")
    source = galaxy.open_source(pictures / "night")
    galaxy.prepare(source, tmp_path / "b.h5", workers=1, limit=3, progress=False)
    shutil.copy(tmp_path / "b.h5", tmp_path / "shards" / "part-000001.h5")
    for read in (galaxy.load, StoredSet):
        with pytest.raises(DataError, match=r"part-000001.h5: 3 rows, and 5 were written"):
            read(tmp_path / "shards")


def test_shards_in_linear_units_leave_out_masked_pixels_as_one_file_does(tmp_path, rng):
    """A hot pixel that the file masks, beside the middle of each galaxy."""
    (tmp_path / "night").mkdir()
    for k, size in enumerate(rng.uniform(12, 25, 6)):
        pixels = 100 * picture(rng, blob(212, 212, size)).astype("f8")
        mask = np.zeros(pixels.shape, np.uint8)
        pixels[212, 216], mask[212, 216] = 1e5, 1
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI")]
        fits.HDUList([*hdus, fits.ImageHDU(mask, name="MASK")]).writeto(
            tmp_path / "night" / f"{k}.fits"
        )
    options = {"units": "linear", "workers": 1, "progress": False}
    galaxy.prepare(galaxy.open_source(tmp_path / "night"), tmp_path / "whole.h5", **options)
    galaxy.prepare_shards(tmp_path / "night", tmp_path / "shards", each=4, **options)
    whole, found = galaxy.load(tmp_path / "whole.h5"), galaxy.load(tmp_path / "shards")
    assert len(whole) == 6
    assert found.settings["units"] == "linear"
    for name in ("images", "crops", "scales", "stretches"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    refusal = "prepared in units 'linear', and 'stretched' are asked for"
    with pytest.raises(DataError, match=refusal):
        galaxy.train(tmp_path / "shards", tmp_path / "run", iterations=1, held_out=2)
