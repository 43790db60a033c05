"""The short examples as a user runs them, each in its tiny mode."""

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
LONG = {
    "galaxy_gdae",
    "galaxy_light",
    "galaxy_profile",
    "results_table",
    "simulate_galaxies",
}  # which have tests of their own
SHORT = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem not in LONG}
ENDS = {  # what each prints in the end, and a percentage that guesses do not reach
    "colour": (r"([\d.]+)% of 200 held-out pictures known", 15),
    "finetuning": (r"([\d.]+)% right after finetuning", 65),
    "gan": (r"([\d.]+)% of 1000 drawn digits are clear", 3),
    "lenet": (r"([\d.]+)% of 360 held-out digits read", 30),
    "logistic_regression": (r"([\d.]+)% right of 142 held-out tumours", 80),
    "lstm": (r"([\d.]+)% of 360 held-out digits read row by row", 30),
    "multitask": (r"([\d.]+)% of 360 held-out digits read", 30),
    "siamese": (r"([\d.]+)% of 360 held-out digits read by their neighbours", 30),
    "surgery": (r"([\d.]+)% of a row of 360 digits read in one pass", 30),
    "tied_autoencoder": (r"([\d.]+)% of the variance restored", 30),
    "unet": (r"([\d.]+)% of all pixels digit or background", 90),
    "unrolled": (r"([\d.]+)% of 360 held-out digits read row by row", 30),
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
    pattern, guessed = ENDS[name]
    found = re.search(pattern, out)
    assert found, out
    assert float(found[1]) > guessed


@pytest.mark.parametrize("name", SHORT)
def test_bad_input_gets_one_line(name, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, name, "--tiny", "--backend", "abacus")
    assert status == 2
    assert re.search(r"^error: .*abacus", err, re.MULTILINE), err
    assert "Traceback" not in err
