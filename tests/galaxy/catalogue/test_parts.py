"""Catalogues in parts: encoded by one process or by Dask, resumed, and read as one."""

import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
from astropy.io import fits
from linear_galaxies import PICTURE, ellipse
from PIL import Image

import layerkit as lk
from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.catalogue import boxes, parts
from layerkit.galaxy.images.parts import working
from layerkit.saving import snapshot


@pytest.fixture(scope="module")
def whole(shared, tmp_path_factory):
    """A catalogue in parts of 23 pictures, of a source that is given twice."""
    out = tmp_path_factory.mktemp("parts") / "whole"
    sources = [shared["pictures"], shared["pictures"]]
    counts = galaxy.encode_parts(shared["run"], sources, out, each=23, draws=1)
    return sources, out, counts


def texts(folder):
    return {p.name: p.read_text() for p in sorted(folder.glob("*.json"))}


def rows(folder):
    return galaxy.read_catalogue(folder)


def test_the_parts_together_are_the_catalogue(shared, whole):
    sources, out, counts = whole
    found, one = rows(out), galaxy.encode(shared["run"], sources[0], draws=1)
    assert list(found["id"]) == 2 * list(one["id"])
    assert list(found["file"]) == 2 * list(one["file"])
    for name in ("z_mean_0", "z_sd_0"):
        np.testing.assert_allclose(found[name], np.tile(one[name], 2), rtol=1e-4)
    good = sum(not reason for reason in found["reason"])
    assert counts["pictures"] == len(found) == 2 * len(one)
    assert counts["encoded"] == good
    assert sum(counts["unusable"].values()) == len(found) - good
    sizes = [json.loads(t)["pictures"] for n, t in texts(out).items() if n != "index.json"]
    assert max(sizes) == 23


def test_scales_of_wcs_and_given_ones_are_in_every_part(shared, tmp_path, rng):
    """Pictures with a WCS and without one: sizes in arcseconds, as `encode` has them."""
    folder = tmp_path / "sky"
    folder.mkdir()
    for k in range(6):
        image = ellipse(PICTURE, 7.0, 0.6, 30.0 * k, peak=900.0, sky=50.0)
        hdu = fits.PrimaryHDU(image + rng.normal(0, 1, image.shape))
        if k % 2 == 0:
            hdu.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0)
            hdu.header.update(CDELT1=-0.2 / 3600, CDELT2=0.2 / 3600, CRPIX1=60.0, CRPIX2=60.0)
        hdu.writeto(folder / f"g{k}.fits")
    for given in (None, 0.5):
        out = tmp_path / f"out-{given}"
        options = {"draws": 2, "pixel_scale": given}
        galaxy.encode_parts(shared["run"], [folder], out, each=1, **options)
        found, one = rows(out), galaxy.encode(shared["run"], folder, **options)
        scale = np.where(np.arange(6) % 2, np.nan, 0.2) if given is None else np.full(6, given)
        for table in (found, one):
            np.testing.assert_allclose(table["pixel_scale"], scale, rtol=1e-6)
            np.testing.assert_allclose(
                table["half_light_radius_arcsec"], table["half_light_radius"] * scale, rtol=1e-9
            )
        np.testing.assert_allclose(
            found["half_light_radius_arcsec"], one["half_light_radius_arcsec"], rtol=1e-3
        )


def test_parts_of_16_bits_share_the_white_of_their_source(shared, tmp_path):
    """The brightest picture alone reaches 12 bits."""
    folder = tmp_path / "deep"
    folder.mkdir()
    for k, peak in enumerate((4000, 1800)):
        image = ellipse(PICTURE, 7.0, 0.6, 30.0, peak=peak, sky=20.0)
        Image.fromarray(image.astype(np.uint16)).save(folder / f"g{k}.png")
    galaxy.encode_parts(shared["run"], [folder], tmp_path / "out", each=1, draws=0)
    found, one = rows(tmp_path / "out"), galaxy.encode(shared["run"], folder, draws=0)
    np.testing.assert_allclose(found["squared_error"], one["squared_error"], rtol=1e-4)


def test_a_model_in_the_box_encodes_parts_by_its_name(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    boxed = shared["run"] / "model.h5"
    monkeypatch.setattr(boxes, "BOXED", tmp_path / "box")
    (tmp_path / "box").mkdir()
    shutil.copy(boxed, tmp_path / "box" / "mine.h5")
    galaxy.encode_parts("mine", [shared["pictures"]], tmp_path / "out", each=50, draws=0)
    assert len(rows(tmp_path / "out"))


@pytest.mark.parametrize(("workers", "scheduler"), [(2, None), (1, "local")])
def test_processes_of_this_machine_encode_what_one_encodes(
    shared, whole, tmp_path, workers, scheduler
):
    if scheduler:
        pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    sources, out, _ = whole
    counts = galaxy.encode_parts(
        shared["run"], sources[:1], tmp_path / "out", each=23, draws=1, workers=workers,
        scheduler=scheduler,
    )  # fmt: skip
    one, other = rows(out), rows(tmp_path / "out")
    assert counts["pictures"] == len(other) > 23
    for name in one.colnames:
        np.testing.assert_array_equal(one[name][: len(other)], other[name], err_msg=name)


def test_plain_processes_share_jobs_and_a_killed_one_is_told():
    jobs = [(7, 2), (9, 4), (8, 3)]
    for workers in (1, 2):
        found = working.shared_out("sums", divmod, jobs, workers, None, "again")
        assert sorted(found) == [(2, 1), (2, 2), (3, 1)]
    kills = [(signal.SIGKILL,), (signal.SIGKILL,)]
    with pytest.raises(DataError, match=r"sums: a process was killed.*; add again, with"):
        list(working.shared_out("sums", signal.raise_signal, kills, 2, None, "add again"))


def test_workers_of_a_cluster_here_keep_their_memory(monkeypatch):
    """Each block that goes back to the system costs as much time as the work with it."""
    pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    import dask

    monkeypatch.setattr(
        "distributed.Client", lambda **settings: (settings, dask.config.get(working.ENVIRONMENT))
    )
    settings, environment = working._client(2, "local")
    assert settings["n_workers"] == 2
    assert "OMP_NUM_THREADS" in environment
    assert "MALLOC_TRIM_THRESHOLD_" not in environment
    assert "MALLOC_TRIM_THRESHOLD_" in dask.config.get(working.ENVIRONMENT)


def test_a_scheduler_has_workers_of_its_own(shared, tmp_path):
    given = {"workers": 2, "scheduler": "tcp://127.0.0.1:9"}
    for call in (
        lambda: galaxy.encode_parts(shared["run"], [shared["pictures"]], tmp_path / "o", **given),
        lambda: galaxy.prepare_shards(shared["pictures"], tmp_path / "o", **given),
    ):
        with pytest.raises(DataError, match=r"tcp://127.0.0.1:9 has workers of its own; leave"):
            call()
    assert not (tmp_path / "o").exists()


def test_the_work_of_a_killed_worker_is_done_again(shared, whole, tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    sources, out, counts = whole
    with distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=":0") as cluster:
        first = next(iter(cluster.workers.values()))

        def kill():
            while not list((tmp_path / "out").glob("part-*")):
                time.sleep(0.01)
            os.kill(first.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = galaxy.encode_parts(
            shared["run"],
            sources,
            tmp_path / "out",
            each=23,
            draws=1,
            scheduler=cluster.scheduler_address,
        )
        killer.join()
    assert found == counts
    assert texts(tmp_path / "out") == texts(out)


def test_resuming_encodes_what_is_missing(shared, whole, tmp_path, monkeypatch):
    sources, out, counts = whole
    done, encode_part = [], parts.encode_part

    def some(folder, part, *rest):
        if len(done) == 2:
            raise DataError("the power failed")
        done.append(part.file)
        return encode_part(folder, part, *rest)

    monkeypatch.setattr(parts, "encode_part", some)
    arguments = (shared["run"], sources, tmp_path / "out")
    with pytest.raises(DataError, match="power"):
        galaxy.encode_parts(*arguments, each=23, draws=1)
    with pytest.raises(DataError, match="parts are missing"):
        galaxy.read_catalogue(tmp_path / "out")
    with pytest.raises(DataError, match="not empty"):
        galaxy.encode_parts(*arguments, each=23, draws=1)
    with pytest.raises(DataError, match="other sources or settings"):
        galaxy.encode_parts(*arguments, each=23, draws=2, resume=True)
    again = []

    def others(folder, part, *rest):
        again.append(part.file)
        return encode_part(folder, part, *rest)

    monkeypatch.setattr(parts, "encode_part", others)
    assert galaxy.encode_parts(*arguments, each=23, draws=1, resume=True) == counts
    assert len(done) == 2
    assert sorted(done + again) == sorted(p.name for p in out.glob("part-*.fits"))
    assert texts(tmp_path / "out") == texts(out)


def test_the_files_of_a_prepared_set_are_parts(shared, tmp_path):
    side = galaxy.load_model(shared["run"]).pixels ** 0.5
    galaxy.prepare_shards(
        shared["pictures"], tmp_path / "shards", each=25, size=int(side), workers=1, progress=False
    )
    counts = galaxy.encode_parts(shared["run"], [tmp_path / "shards"], tmp_path / "out", draws=1)
    found, one = rows(tmp_path / "out"), galaxy.encode(shared["run"], shared["pictures"], draws=1)
    assert counts["pictures"] == len(found) == len(one)
    at = {name: k for k, name in enumerate(found["id"])}
    order = [at[name] for name in one["id"]]
    assert list(found["reason"][order]) == list(one["reason"])
    np.testing.assert_allclose(found["z_mean_0"][order], one["z_mean_0"], rtol=1e-4)
    with pytest.raises(DataError, match="no FITS extensions"):
        galaxy.encode_parts(shared["run"], [tmp_path / "shards"], tmp_path / "other", hdu=1)


def test_a_scheduler_without_workers_is_one_line_after_some_time(shared, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    monkeypatch.setattr(working, "PATIENCE", 0.3)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(DataError, match=r"no worker for 0\.3 seconds.*dask worker .*resume"):
            galaxy.encode_parts(
                shared["run"], [shared["pictures"]], tmp_path / "out", scheduler=address
            )


def test_resuming_takes_neither_other_pictures_nor_another_model(shared, tmp_path):
    """Which would be in one catalogue with those that were encoded before."""
    pictures, run, out = (tmp_path / name for name in ("pictures", "run", "out"))
    shutil.copytree(shared["pictures"], pictures)
    shutil.copytree(shared["run"], run)
    options = {"each": 30, "draws": 0, "resume": True}
    first = galaxy.encode_parts(run, [pictures], out, **options)
    (out / "part-000001.json").unlink()
    names = sorted(p.name for p in pictures.iterdir())
    kept = (pictures / names[0]).read_bytes()
    (pictures / names[0]).write_bytes((pictures / names[-1]).read_bytes())
    with pytest.raises(DataError, match=f"pictures that have changed since, in {pictures}"):
        galaxy.encode_parts(run, [pictures], out, **options)
    (pictures / names[0]).write_bytes(kept)
    stamp = (shared["pictures"] / names[0]).stat()
    os.utime(pictures / names[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    model = (run / "model.h5").read_bytes()
    net = galaxy.load_model(run).net
    net.params["z_mean/bias"].data[...] += 1
    lk.save(run / "model.h5", net, extra=snapshot.read_extra(run / "model.h5"))
    with pytest.raises(DataError, match="model digest"):
        galaxy.encode_parts(run, [pictures], out, **options)
    (run / "model.h5").write_bytes(model)
    assert galaxy.encode_parts(run, [pictures], out, **options) == first


@pytest.mark.parametrize("counts", ["{}", "[]", '{"pictures": "many"}', '{"pictures": 1}', "x"])
def test_a_part_with_damaged_counts_is_made_again(counts, shared, whole, tmp_path):
    sources, out, first = whole
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "part-000001.json").write_text(counts)
    arguments = (shared["run"], sources, tmp_path / "out")
    assert galaxy.encode_parts(*arguments, each=23, draws=1, resume=True) == first
    assert texts(tmp_path / "out") == texts(out)


def test_a_part_that_somebody_replaced_is_told(whole, tmp_path):
    """Else the table would lack rows, or fail as Astropy fails."""
    _, out, _ = whole
    shutil.copytree(out, tmp_path / "out")
    part = tmp_path / "out" / "part-000001.fits"
    table = galaxy.read_catalogue(part)
    part.unlink()
    table[:-2].write(part)
    with pytest.raises(DataError, match=rf"part-000001.fits: {len(table) - 2} rows, and "):
        rows(tmp_path / "out")
    table["z_mean_0"] = ["text"] * len(table)
    part.unlink()
    table.write(part)
    with pytest.raises(DataError, match="do not fit together"):
        rows(tmp_path / "out")


def test_a_scheduler_that_is_not_there_is_one_line(shared, tmp_path, monkeypatch):
    pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    monkeypatch.setattr(working, "WAIT", 0.5)
    with pytest.raises(DataError, match="resume goes on"):
        galaxy.encode_parts(
            shared["run"], [shared["pictures"]], tmp_path / "o", scheduler="tcp://127.0.0.1:9"
        )
