"""Worker processes: as many as there is work for, and none that ends the others' work."""

import pytest
from simulated import Pictures, blob, picture
from unlucky import Unlucky

from layerkit.errors import DataError
from layerkit.galaxy.images.decode.bounds import TOO_LARGE
from layerkit.galaxy.images.prepare import workers as work
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load


def test_no_more_workers_start_than_there_is_work_for(monkeypatch):
    started = []

    def pooled(job, chunks, workers):
        started.append(workers)
        return ([job(item) for item in chunk] for chunk in chunks)

    monkeypatch.setattr(work, "_pooled", pooled)
    assert list(work.results_of(abs, range(-70, 0), 10**6)) == list(range(70, 0, -1))
    assert started == [3]


def test_no_process_to_be_had_is_no_fault_of_the_source(rng, tmp_path, monkeypatch):
    def none(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(work, "_pooled", none)
    good = Pictures(*[picture(rng, blob(212, 212, 20))] * 40)
    with pytest.raises(DataError, match=r"stopped \(Resource temporarily unavail.*try workers=1"):
        prepare(good, tmp_path / "set.h5", progress=False, workers=2)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_kills_its_worker_is_counted(rng, tmp_path):
    good = picture(rng, blob(106, 106, 10, side=212), side=212)
    report = prepare(Unlucky(good), tmp_path / "set.h5", progress=False, workers=2)
    assert report.excluded == {
        "crashes its process": 1, TOO_LARGE: 1, "fails with ZeroDivisionError": 1
    }  # fmt: skip
    galaxies = load(tmp_path / "set.h5")
    assert galaxies.ids == [f"g{i}" for i in range(40) if i not in (5, 7, 33)]
