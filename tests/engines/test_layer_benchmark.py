"""benchmarks/layers.py: its rows, without looking at how long anything takes."""

import re
import runpy
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "layers.py"
OPTIONS = ["--rounds", "1", "--seconds", "1e-6", "--batch", "2"]


def test_it_times_layers_and_a_step(monkeypatch, capsys):
    monkeypatch.syspath_prepend(PROGRAM.parent)
    for only, rows in (("mean", 3), ("LeNet", 1), ("nothing like it", 0)):
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *OPTIONS, "--only", only])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(PROGRAM), run_name="__main__")
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        found = re.findall(r"^\| (.+?) \| ([\d.]+) \|", out, re.MULTILINE)
        assert len(found) == rows
        assert all(float(number) > 0 for _, number in found)
        has_torch = "PyTorch: left out" not in err
        assert has_torch or "not installed" in err
