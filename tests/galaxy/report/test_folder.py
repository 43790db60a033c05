"""A run's folder: earlier results are set aside together, and a full disk loses nothing."""

import pytest

from layerkit import galaxy
from layerkit.errors import DataError

RUN = ("model.h5", "best.h5", "metrics.json", "report.html", "samples.png")


def write_run(folder, text, names=RUN):
    for name in names:
        (folder / name).write_text(text)


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_results_are_set_aside_together(tmp_path, capsys):
    assert galaxy.set_aside(tmp_path) is None
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "galaxies.h5").write_text("g")
    for number, text in ((1, "first"), (2, "second")):
        write_run(tmp_path, text)
        assert galaxy.set_aside(tmp_path) == tmp_path / f"before-{number}"
        assert f"before-{number}" in capsys.readouterr().out
        assert texts(tmp_path) == {"notes.txt": "mine", "galaxies.h5": "g"}
    for number, text in ((1, "first"), (2, "second")):
        assert texts(tmp_path / f"before-{number}") == dict.fromkeys(RUN, text)
    (tmp_path / "held_out").mkdir()
    galaxy.set_aside(tmp_path, "galaxies.h5", "held_out", into=tmp_path / "before-2")
    assert (tmp_path / "before-2" / "held_out").is_dir()
    assert texts(tmp_path / "before-2")["galaxies.h5"] == "g"


@pytest.mark.parametrize("links", [True, False])
def test_a_model_that_is_trained_further_is_set_aside_and_stays(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr("os.link", refuse)
    write_run(tmp_path, "finished")
    galaxy.set_aside(tmp_path, model="copy")
    assert texts(tmp_path) == {"model.h5": "finished"}
    assert texts(tmp_path / "before-1") == dict.fromkeys(RUN, "finished")
    (tmp_path / "new").write_text("longer")
    (tmp_path / "new").rename(tmp_path / "model.h5")  # as snapshots are written
    assert texts(tmp_path / "before-1")["model.h5"] == "finished"
    write_run(tmp_path, "stopped")
    galaxy.set_aside(tmp_path, model="leave")
    assert texts(tmp_path) == {"model.h5": "stopped", "best.h5": "stopped"}
    assert set(texts(tmp_path / "before-2")) == {"metrics.json", "report.html", "samples.png"}


@pytest.mark.parametrize("model", ["move", "copy"])
@pytest.mark.parametrize("moves", range(len(RUN) + 1))
def test_killed_while_setting_aside(tmp_path, monkeypatch, model, moves):
    """After any number of moves: the next run completes it, and nothing is lost or mixed."""
    import os

    whole, left = os.replace, moves

    def replace(path, target):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        whole(path, target)

    write_run(tmp_path, "finished")
    monkeypatch.setattr("os.replace", replace)
    if moves < len(RUN):
        with pytest.raises(KeyboardInterrupt):
            galaxy.set_aside(tmp_path, model=model)
    else:
        galaxy.set_aside(tmp_path, model=model)
    monkeypatch.setattr("os.replace", whole)
    galaxy.finish_setting_aside(tmp_path)
    assert texts(tmp_path / "before-1") == dict.fromkeys(RUN, "finished")
    assert set(texts(tmp_path)) <= {"model.h5"}
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["before-1"]


def test_what_cannot_be_set_aside_is_said(tmp_path, monkeypatch):
    write_run(tmp_path, "finished")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match=r"set aside \(No space left.*--out"):
        galaxy.set_aside(tmp_path)


def test_what_cannot_be_saved_is_saved_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = OSError("disk full")
    with pytest.raises(DataError, match=r"disk full; all .* is saved in") as told:
        galaxy.save_somewhere(lambda f: (f / "model.h5").write_text("x"), error, tmp_path / "out")
    (place,) = tmp_path.iterdir()
    assert str(place) in str(told.value)
    assert str(tmp_path / "out") in str(told.value)
    assert texts(place) == {"model.h5": "x"}

    def never(folder):
        (folder / "part").write_text("half of it")
        raise OSError("full too")

    with pytest.raises(DataError, match="nor could it be saved anywhere"):
        galaxy.save_somewhere(never, error, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [place]
