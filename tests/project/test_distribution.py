"""The source distribution and the wheel: whole, and at work outside the clone.

Two shortcuts keep this to a few seconds.  The compiled engine, which takes a minute, is left out as
where there is no compiler; its sources must be in the source distribution, of which the wheel is
built.  And the fresh environment borrows the dependencies of this one, but not the clone.
"""

import email.parser
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from galaxy_runs import galaxy_picture

ROOT = Path(__file__).resolve().parents[2]
TREES = ("layerkit", "nets")
FILES = ("CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
BUILD = "import sys; from setuptools import build_meta as b; b.{}(sys.argv[1])"


def built(kind, source, out):
    """Build by the hook that installers call, with no compiler; the one file in `out`."""
    for package, least in (("setuptools", "77"), ("pybind11", None)):
        pytest.importorskip(package, minversion=least)
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind), str(out)],
        cwd=source,
        env={**os.environ, "CC": "false", "CXX": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution."""
    top = tmp_path_factory.mktemp("sdist")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for tree in TREES:
        shutil.copytree(ROOT / tree, top / "clone" / tree, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, top / "clone")
    return built("build_sdist", top / "clone", top / "dist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that the source distribution makes, and nothing of the clone beside it."""
    top = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(top, filter="data")
    return built("build_wheel", top / sdist.name.removesuffix(".tar.gz"), top / "dist")


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The folder of programs of a new environment with the wheel."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(folder)
    bases = {"base": str(folder), "platbase": str(folder)}
    programs, packages = (
        Path(sysconfig.get_path(kind, "venv", vars=bases)) for kind in ("scripts", "purelib")
    )
    # Folders that a .pth file names are searched, but their own .pth files, one of which may lead
    # to the clone, are not read.
    borrowed = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    python = programs / ("python.exe" if os.name == "nt" else "python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-deps", "--no-compile", str(wheel)],
        # A clone on PYTHONPATH that was built or installed passes for the wheel itself.
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return programs


@pytest.fixture
def elsewhere(fresh, tmp_path):
    """Runs a program of the new environment in a folder outside the clone; its output."""

    def run(program, *words):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env["PYTHONWARNINGS"] = "ignore:layerkit.s compiled kernels"
        done = subprocess.run(
            [str(fresh / program), *map(str, words)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_source_distribution_is_whole(sdist):
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for tree in TREES
        for path in (ROOT / tree).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so", ".pyd")
    }
    assert {"layerkit/engines/cpu/module.cpp", "nets/galaxy_gdae.py"} <= wanted
    assert (wanted | set(FILES)) - found == set()


def test_the_wheel_holds_the_package_and_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        found = email.parser.Parser().parsestr(archive.read(metadata).decode())
    needed = {path.relative_to(ROOT).as_posix() for path in (ROOT / "layerkit").rglob("*.py")}
    needed |= {f"layerkit/nets/{path.name}" for path in (ROOT / "nets").glob("*.py")}
    assert needed | {"layerkit/galaxy/boxed/galaxy_zoo.h5"} <= names
    assert not [n for n in names if n.startswith(("tests/", "nets/", "examples/"))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found.get_all("Classifier") == project["classifiers"]
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload().startswith("# layerkit")
    core = [need for need in found.get_all("Requires-Dist") if "extra ==" not in need]
    assert sorted(core) == sorted(project["dependencies"])


def test_twine_passes_both(sdist, wheel):
    if importlib.util.find_spec("twine") is None:
        pytest.skip("twine is not installed")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_installed_package_is_not_the_clone(elsewhere, fresh):
    version = elsewhere("layerkit", "--version").strip()
    script = "import layerkit; print(layerkit.__file__, layerkit.__version__)"
    path, own = elsewhere("python", "-c", script).split()
    assert version == own
    assert Path(path).is_relative_to(fresh.parent)
    assert "digraph net" in elsewhere("layerkit", "draw", "galaxy_gdae")


def test_a_folder_of_pictures_becomes_a_catalogue_joined_to_ones_own(elsewhere, tmp_path, rng):
    (tmp_path / "mine").mkdir()
    for k in range(3):
        galaxy_picture(rng).save(tmp_path / "mine" / f"g{k}.png")
    Table({"name": ["g2", "g0", "other"], "redshift": [0.2, 0.1, 0.9]}).write(
        tmp_path / "own.csv", format="ascii.csv"
    )
    words = "mine", "--draws", 1, "--join", "own.csv", "--id-column", "name"
    out = elsewhere("layerkit", "galaxy", "encode", *words, "--out", "table.fits")
    assert "3 pictures, 3 encoded" in out
    found = Table.read(tmp_path / "table.fits")
    assert list(found["id"]) == ["g0", "g1", "g2"]
    np.testing.assert_array_equal(np.ma.filled(found["redshift"], np.nan), [0.1, np.nan, 0.2])
    assert np.isfinite(found["bound"]).all()
    assert (found["half_light_radius"] > 1).all()


def test_the_installed_package_writes_its_report(elsewhere, tmp_path):
    script = (
        "from layerkit.galaxy.report.page import page\n"
        "page.write_report('report.html', {'net': 'a net'})\n"
    )
    elsewhere("python", "-c", script)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<dd>a net</dd>" in page
    assert "prefers-color-scheme" in page
    assert "$" not in page
