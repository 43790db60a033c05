"""The framework needs few packages, and what needs more says which."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from layerkit import galaxy

GALAXY = sorted(galaxy.NEEDED)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    slow = "ignore:layerkit's compiled kernels are not:RuntimeWarning"
    hidden = f"import sys\nfor name in {GALAXY!r}:\n    sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-W", slow, "-c", hidden + script, *arguments],
        capture_output=True,
        text=True,
    )


def test_the_framework_needs_none_of_the_packages_of_galaxy():
    done = run(
        "import numpy as np, layerkit as lk\n"
        "from layerkit import layers as L\n"
        "net = lk.Net([L.Input('x', shape=(3,)), L.Dense('y', 'x', units=2)], batch_size=4)\n"
        "print(net.infer('y', x=np.zeros((4, 3))).shape)\n"
    )
    assert (done.stdout, done.stderr) == ("(4, 2)\n", "")


@pytest.mark.parametrize(
    "arguments", [["--version"], ["draw", "galaxy_gdae"], ["galaxy", "--help"]]
)
def test_commands_of_the_framework_need_none_of_them(arguments):
    done = run("from layerkit.cli.main import program\nprogram()\n", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_galaxy_names_what_is_missing_and_how_to_get_it():
    done = run(
        "from layerkit.errors import LayerkitError\n"
        "try:\n    import layerkit.galaxy\n"
        "except LayerkitError as error:\n    print(error)\n"
    )
    assert "scikit-image" in done.stdout
    assert "pip install 'layerkit[galaxy]'" in done.stdout


def test_commands_of_galaxy_tell_in_one_line(tmp_path):
    done = run(
        "from layerkit.cli.main import program\nprogram()\n",
        *["galaxy", "prepare", "--out", str(tmp_path / "set.h5")],
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'layerkit[galaxy]'" in done.stderr


def test_the_extra_names_what_the_package_imports():
    text = Path(__file__).resolve().parents[2].joinpath("pyproject.toml").read_text("utf-8")
    extra = tomllib.loads(text)["project"]["optional-dependencies"]["galaxy"]
    names = [each.split(">")[0] for each in extra]
    assert sorted(names) == sorted(galaxy.NEEDED.values())
