"""gather and the results folder: what is prepared once, and when it is prepared again."""

import json
import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.system import files


def picture(rng, path, side=120):
    y, x = np.mgrid[:side, :side] - side / 2
    light = 200 * np.exp(-0.5 * (x**2 / rng.uniform(6, 9) ** 2 + y**2 / rng.uniform(6, 9) ** 2))
    noisy = np.clip(light + rng.normal(10, 3, (side, side)), 0, 255)
    Image.fromarray(noisy.astype("uint8")).save(path)


def test_prepares_once_and_again_when_the_pictures_change(tmp_path, rng, capsys):
    folder, cache = tmp_path / "pictures", tmp_path / "out" / "galaxies.h5"
    folder.mkdir()
    for i in range(4):
        picture(rng, folder / f"{i}.png")
    first = galaxy.gather(folder, cache)
    assert len(first) == 4
    assert (tmp_path / "out" / "contact_sheets" / "kept.png").exists()
    capsys.readouterr()
    np.testing.assert_array_equal(galaxy.gather(folder, cache).images, first.images)
    assert "earlier" in capsys.readouterr().out
    picture(rng, folder / "3.png")
    later = time.time() + 5
    os.utime(folder / "3.png", (later, later))
    changed = galaxy.gather(folder, cache)
    assert not np.array_equal(changed.images[3], first.images[3])
    picture(rng, folder / "4.png")
    assert len(galaxy.gather(folder, cache)) == 5
    assert len(galaxy.gather(folder, cache, limit=2)) == 2
    # A prepared file is itself a source, and a damaged one is made anew.
    assert galaxy.gather(cache, tmp_path / "other.h5").ids == ["0", "1"]
    with pytest.raises(DataError, match="no FITS extensions"):
        galaxy.gather(cache, tmp_path / "other.h5", hdu=1)
    assert not (tmp_path / "other.h5").exists()
    cache.write_bytes(cache.read_bytes()[:3000])
    assert len(galaxy.gather(folder, cache)) == 5


def test_another_extension_is_another_set(tmp_path, rng):
    y, x = np.mgrid[:120, :120] - 60
    bands = [
        900 * np.exp(-np.hypot(y / ratio, x) / 5) + rng.normal(0, 2, (120, 120))
        for ratio in (0.4, 1.0)
    ]
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(band, name=f"B{k}") for k, band in enumerate(bands))]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    one, two = (galaxy.gather(tmp_path / "a.fits", tmp_path / "g.h5", hdu=hdu) for hdu in ("b0", 2))
    assert (one.source, two.source) == ("a.fits[b0]", "a.fits[2]")
    assert one.ids == two.ids == ["a"]
    assert one.images[0, 5:20, 34].mean() < two.images[0, 5:20, 34].mean() - 0.05
    assert len(galaxy.gather(tmp_path / "a.fits", tmp_path / "g.h5")) == 2


def test_results_folder_must_be_writable(tmp_path):
    assert galaxy.results_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("file", "broken"):
        with pytest.raises(DataError, match=r"cannot write.*a file or a broken link of that name"):
            galaxy.results_folder(tmp_path / name)


def folder_of(rng, path, count=3):
    path.mkdir(parents=True)
    for i in range(count):
        picture(rng, path / f"{i}.bmp")  # uncompressed: all of one size
    return path


def zip_of(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def test_two_folders_of_equal_names_are_two_sets(tmp_path, rng):
    cache = tmp_path / "out" / "galaxies.h5"
    first = galaxy.gather(folder_of(rng, tmp_path / "g" / "band"), cache)
    other = folder_of(rng, tmp_path / "r" / "band")
    alone = galaxy.gather(other, tmp_path / "alone" / "galaxies.h5")
    replaced = []
    second = galaxy.gather(other, cache, replacing=replaced.append)
    assert first.ids == second.ids
    np.testing.assert_array_equal(second.images, alone.images)
    assert not np.array_equal(second.images, first.images)
    (told,) = replaced
    np.testing.assert_array_equal(told.images, alone.images)


def test_pictures_changed_behind_ones_back_are_seen(tmp_path, rng, capsys):
    """Names, sizes and times stay equal; only the content changes."""
    folder, cache = folder_of(rng, tmp_path / "pictures"), tmp_path / "out" / "galaxies.h5"
    first = galaxy.gather(folder, cache)
    known = (folder / "1.bmp").stat()
    picture(rng, folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert (folder / "1.bmp").stat().st_size == known.st_size
    changed = galaxy.gather(folder, cache)
    assert not np.array_equal(changed.images[1], first.images[1])
    np.testing.assert_array_equal(changed.images[0], first.images[0])

    archive = zip_of(folder, tmp_path / "pictures.zip")
    of_zip = galaxy.gather(archive, cache)
    capsys.readouterr()
    os.utime(archive, (1, 1))  # its content is what it was
    galaxy.gather(archive, cache)
    assert "earlier" in capsys.readouterr().out
    known = archive.stat()
    zip_of(folder_of(rng, tmp_path / "others"), tmp_path / "others.zip").rename(archive)
    os.utime(archive, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert archive.stat().st_size == known.st_size
    assert not np.array_equal(galaxy.gather(archive, cache).images, of_zip.images)


def test_another_size_or_number_is_another_set(tmp_path, rng):
    folder, cache = folder_of(rng, tmp_path / "g"), tmp_path / "out" / "galaxies.h5"
    assert galaxy.gather(folder, cache, size=48).images.shape == (3, 48, 48)
    assert galaxy.gather(folder, cache).images.shape == (3, 69, 69)
    assert len(galaxy.gather(folder, cache, 2)) == 2
    assert len(galaxy.gather(folder, cache, 20)) == 3


def test_a_set_stays_where_the_new_one_may_not_replace_it(tmp_path, rng):
    cache = tmp_path / "out" / "galaxies.h5"
    folder = folder_of(rng, tmp_path / "g")
    galaxy.gather(folder, cache)
    before = cache.read_bytes()

    def refuse(new):
        raise DataError("not these")

    with pytest.raises(DataError, match="not these"):
        galaxy.gather(folder_of(rng, tmp_path / "r"), cache, replacing=refuse)
    assert cache.read_bytes() == before
    (folder / "0.bmp").touch()  # prepared anew, and what comes out is what is there
    galaxy.gather(folder, cache, replacing=refuse)
    assert sorted(p.name for p in cache.parent.iterdir()) == ["contact_sheets", "galaxies.h5"]


def test_sheets_that_were_interrupted_are_drawn(tmp_path, rng, monkeypatch, capsys):
    from layerkit.galaxy.images.prepare import gather as gathering

    folder, cache = folder_of(rng, tmp_path / "g"), tmp_path / "out" / "galaxies.h5"
    whole = gathering.contact_sheets

    def interrupted(galaxies, folder, source):
        whole(galaxies, folder, source)
        raise KeyboardInterrupt

    monkeypatch.setattr(gathering, "contact_sheets", interrupted)
    with pytest.raises(KeyboardInterrupt):
        galaxy.gather(folder, cache)
    assert [p.name for p in cache.parent.iterdir()] == ["galaxies.h5"]
    monkeypatch.setattr(gathering, "contact_sheets", whole)
    galaxy.gather(folder, cache)
    assert "earlier" in capsys.readouterr().out
    sheets = cache.parent / "contact_sheets"
    assert {p.name for p in sheets.iterdir()} >= {"kept.png", "kept-crops.png"}
    # Other galaxies have other sheets; if these cannot be drawn, the galaxies are there still.
    first = (sheets / "kept.png").read_bytes()
    galaxy.gather(folder_of(rng, tmp_path / "r"), cache)
    assert (sheets / "kept.png").read_bytes() != first

    def full(galaxies, folder, source):
        raise OSError("disk full")

    monkeypatch.setattr(gathering, "contact_sheets", full)
    assert len(galaxy.gather(folder, cache)) == 3
    assert f"no contact sheets in {sheets}: disk full" in capsys.readouterr().out
    assert not sheets.exists()


def test_pictures_of_somebody_in_a_folder_of_that_name_stay(tmp_path, rng):
    """Only sheets that were drawn are removed, and new ones are drawn beside the others."""
    folder, sheets = tmp_path / "pictures", tmp_path / "out" / "contact_sheets"
    for path in (folder, sheets / "negatives"):
        path.mkdir(parents=True)
    picture(rng, folder / "0.png")
    (sheets / "1987.tif").write_bytes(b"a roll of film")
    galaxy.gather(folder, tmp_path / "out" / "galaxies.h5")
    first = (sheets / "kept.png").read_bytes()
    for i in range(2):
        picture(rng, folder / f"{i}.png")
    galaxy.gather(folder, tmp_path / "out" / "galaxies.h5")
    assert (sheets / "kept.png").read_bytes() != first
    assert (sheets / "1987.tif").read_bytes() == b"a roll of film"
    assert (sheets / "negatives").is_dir()


def test_two_that_gather_at_once_both_have_contact_sheets(tmp_path, rng, monkeypatch, capsys):
    from layerkit.galaxy.images.prepare import gather as gathering

    folder, cache = folder_of(rng, tmp_path / "g"), tmp_path / "out" / "galaxies.h5"
    plain, together = gathering.contact_sheets, Barrier(2)

    def at_once(*arguments):
        together.wait(60)  # until the other one has begun
        plain(*arguments)
        together.wait(60)

    monkeypatch.setattr(gathering, "contact_sheets", at_once)
    # Left by a process that was killed; its number is above all that a process may have.
    monkeypatch.setattr(files.socket, "gethostname", lambda: "here")
    left = cache.parent / f".contact_sheets.here-{2**31 - 1}-ab.part"
    left.mkdir(parents=True)
    (left / "kept.png").write_bytes(b"")
    with ThreadPoolExecutor(2) as threads:
        sets = list(threads.map(lambda _: galaxy.gather(folder, cache), range(2)))
    assert len({one.digest for one in sets}) == 1
    assert "no contact sheets" not in capsys.readouterr().out
    assert sorted(p.name for p in cache.parent.iterdir()) == ["contact_sheets", "galaxies.h5"]
    assert (cache.parent / "contact_sheets" / "kept.png").stat().st_size


@pytest.mark.parametrize("where", ["", "out", "a/b"])
def test_results_among_the_pictures_are_no_pictures(tmp_path, rng, where):
    folder = folder_of(rng, tmp_path / "pictures")
    out = folder / where
    galaxy.gather(folder, out / "galaxies.h5")
    galaxy.gather(folder, out / "held_out" / "galaxies.h5")
    for name in ("samples.png", "embedding.png"):
        picture(rng, out / name)
    (out / "metrics.json").write_text("{}")
    (out / "report.html").write_text("")
    galaxy.set_aside(out)
    picture(rng, out / "samples.png")
    assert (out / "before-1" / "samples.png").exists()
    assert galaxy.open_source(folder).ids == ["0", "1", "2"]
    picture(rng, folder / "3.bmp")
    assert len(galaxy.gather(folder, out / "galaxies.h5")) == 4
    (out / "galaxies.h5").write_text("a list of mine")  # and so these are no results
    (out / "before-1" / "metrics.json").unlink()
    assert len(galaxy.open_source(folder)) > 4


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_results_in_a_zip_are_no_pictures(tmp_path, rng, separator):
    folder = folder_of(rng, tmp_path / "pictures")
    out = folder / "out"
    galaxy.gather(folder, out / "galaxies.h5")
    galaxy.gather(folder, folder / "mine.h5")
    picture(rng, out / "samples.png")
    (out / "metrics.json").write_text("{}")
    (out / "report.html").write_text("")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]

    def zipped(name, files):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in files:
                archive.writestr(str(file).replace("/", separator), (folder / file).read_bytes())
        return galaxy.open_source(tmp_path / name)

    assert zipped("all.zip", files).ids == ["0", "1", "2"]
    # The galaxies alone tell a run's folder, and so do its report and its numbers.
    for lost in ({"galaxies.h5"}, {"report.html", "metrics.json"}):
        assert zipped("some.zip", [f for f in files if f.name not in lost]).ids == ["0", "1", "2"]
    lost = {"galaxies.h5", "metrics.json"}
    assert "samples" in zipped("mine.zip", [f for f in files if f.name not in lost]).ids
    with pytest.raises(DataError, match=r"only results of training runs; .* or a zip of pictures"):
        zipped("results.zip", [f for f in files if f.parts[0] == "out"])


def test_figures_are_known_by_name():
    from layerkit.galaxy import layout
    from layerkit.galaxy.report.captions import CAPTIONS

    assert set(layout.FIGURES) == set(CAPTIONS)


def test_json_is_whole(tmp_path):
    values = {"a": 1, "b": float("nan"), "c": {"d": [float("inf"), 2.5]}, "e": "\udcff", "f": 1j}
    galaxy.write_json(tmp_path / "m.json", values)
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "a": 1,
        "b": None,
        "c": {"d": [None, 2.5]},
        "e": "\udcff",
        "f": "1j",
    }


def test_a_folder_of_results_alone_is_no_empty_folder(rng, tmp_path):
    pictures = folder_of(rng, tmp_path / "q")
    galaxy.gather(pictures, tmp_path / "out" / "galaxies.h5")
    with pytest.raises(DataError, match=r"only results of training runs; give one of their gal"):
        galaxy.gather(tmp_path / "out", tmp_path / "again.h5")


def test_a_cache_given_as_text(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        galaxy.gather(tmp_path / "none", str(tmp_path / "galaxies.h5"))
    with pytest.raises(DataError, match="expected the path of a file, got None"):
        galaxy.gather(tmp_path, None)


@pytest.mark.parametrize("folder", [True, False])
def test_no_picture_of_the_source_is_overwritten(folder, tmp_path, rng):
    for name in ("a.png", "b.png"):
        picture(rng, tmp_path / name)
    before = (tmp_path / "b.png").read_bytes()
    with pytest.raises(DataError, match=r"b\.png: a file of the source"):
        galaxy.gather(tmp_path if folder else tmp_path / "b.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == before


def test_galaxies_kept_among_the_pictures_are_no_pictures(tmp_path, rng, capsys):
    for name in ("a.png", "b.png"):
        picture(rng, tmp_path / name)
    for _ in range(2):
        galaxies = galaxy.gather(tmp_path, tmp_path / "set.h5")
        assert (galaxies.ids, galaxies.read) == (["a", "b"], 2)
        assert (tmp_path / "contact_sheets" / "kept.png").exists()
    assert "earlier" in capsys.readouterr().out


def test_a_picture_that_is_gone_costs_the_sheets_only(tmp_path, rng, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        picture(rng, folder / name)

    def lose(galaxies):
        (folder / "b.png").unlink()

    cache = tmp_path / "out" / "galaxies.h5"
    cache.parent.mkdir()
    cache.touch()
    assert galaxy.gather(folder, cache, replacing=lose).ids == ["a", "b"]
    assert "no contact sheets" in capsys.readouterr().out
