"""The short examples as a user runs them, each in its tiny mode."""

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
LONG = {"galaxy_gdae", "results_table"}  # which have tests of their own
SHORT = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem not in LONG}
ENDS = {  # what each prints in the end, as far as it is sure after a few steps
    "finetuning": r"(?P<percent>[\d.]+)% right after finetuning",
    "lenet": r"(?P<percent>[\d.]+)% of 360 held-out digits read",
    "lstm": r"(?P<percent>[\d.]+)% of 360 held-out digits read row by row",
    "siamese": r"(?P<percent>[\d.]+)% of 360 held-out digits read by their neighbours",
    "tied_autoencoder": r"(?P<percent>[\d.]+)% of the variance restored",
    "unrolled": r"(?P<percent>[\d.]+)% of 360 held-out digits read row by row",
}


def run(monkeypatch, capsys, name, *arguments):
    """The exit status, what was printed, and the errors, of an example run in this process."""
    monkeypatch.setattr(sys, "argv", [str(SHORT[name]), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SHORT[name]), run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def test_every_example_has_a_row():
    assert set(ENDS) == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_an_example_is_short_and_says_what_it_reaches(name):
    lines = SHORT[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80
    assert re.search(r"\d\d(\.\d)?%", "\n".join(lines).split('"""')[1])


@pytest.mark.parametrize("name", SHORT)
def test_a_tiny_run(name, monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, name, "--tiny")
    assert status == 0, err
    found = re.search(ENDS[name], out)
    assert found, out
    assert float(found["percent"]) > 30  # guesses read 10


@pytest.mark.parametrize("name", SHORT)
def test_bad_input_gets_one_line(name, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, name, "--tiny", "--backend", "abacus")
    assert status == 2
    assert re.search(r"^error: .*abacus", err, re.MULTILINE), err
    assert "Traceback" not in err
