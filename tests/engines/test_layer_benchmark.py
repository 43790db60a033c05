"""benchmarks/layers.py: its rows, without looking at how long anything takes."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "layers.py"
OPTIONS = ["--rounds", "1", "--seconds", "1e-6", "--batch", "2"]


def test_it_times_layers_and_a_step():
    for only, rows in (("mean", 3), ("LeNet", 1), ("nothing like it", 0)):
        done = subprocess.run(
            [sys.executable, PROGRAM, *OPTIONS, "--only", only], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = re.findall(r"^\| (.+?) \| ([\d.]+) \|", done.stdout, re.MULTILINE)
        assert len(found) == rows
        assert all(float(number) > 0 for _, number in found)
        has_torch = "PyTorch: left out" not in done.stderr
        assert has_torch or "not installed" in done.stderr
