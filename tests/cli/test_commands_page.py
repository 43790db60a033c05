"""The page on the command line: it names every command, and its examples run as they stand."""

import re
import runpy
import shlex
from pathlib import Path

import h5py
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands_of(usage):
    """The commands that a help text lists."""
    return set(re.findall(r"^    (\w+) ", usage, re.MULTILINE))


def test_every_command_is_named(layerkit, text):
    top, galaxy = (commands_of(layerkit(*words, "--help")[1]) for words in ([], ["galaxy"]))
    assert len(top) > 6
    assert len(galaxy) > 6
    named = set(re.findall(r"^\| `(\w+)[ `]", text, re.MULTILINE))
    assert named == top
    assert set(re.findall(r"^\| `galaxy (\w+)`", text, re.MULTILINE)) - {"COMMAND"} == galaxy


def test_the_examples_run(layerkit, text, tmp_path):
    pytest.importorskip("sklearn")
    for code in blocks(text, "py"):
        name = re.match(r"# (\w+\.py)\n", code)
        (tmp_path / name[1]).write_text(code)
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    ran = set()
    for line in lines:
        program, *words = shlex.split(line)
        if program == "python":
            runpy.run_path(str(tmp_path / words[0]))
            continue
        assert program == "layerkit"
        code, out, err = layerkit(*words)
        assert code == 0, (line, err)
        assert out.strip() or (tmp_path / words[words.index("--out") + 1]).exists(), line
        ran.add(words[0])
        if words[0] == "test":  # the net has learned
            accuracy = float(re.search(r"^accuracy +(\S+)", out, re.MULTILINE)[1])
            assert accuracy > 0.8
    assert ran == {"train", "test", "infer", "time", "check", "draw", "devices", "galaxy"}
    with h5py.File(tmp_path / "answers.h5") as file:
        assert file["logits"].shape == (10, 10)
        assert file["h"].shape == (10, 32)
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 41
    takes_a_net = [line for line in lines if re.search(r"classifier|galaxy_gdae", line)]
    assert all("--set" in line for line in takes_a_net)
