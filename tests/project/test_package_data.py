"""Files of the package that are no Python are installed with it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_is_package_data():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = configuration["tool"]["setuptools"]["package-data"]["layerkit"]
    package = ROOT / "layerkit"
    files = {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so", ".pyd")
    }
    assert Path("galaxy/report/page/page.css") in files
    left = [
        str(path)
        for path in sorted(files)
        if not path.is_relative_to("engines/cpu") and not any(map(path.match, globs))
    ]
    assert left == []
    for glob in globs:
        assert any(path.match(glob) for path in files), f"{glob} matches no file"


def test_an_installed_package_writes_its_report(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("pybind11")
    source, built = tmp_path / "source", tmp_path / "built"
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for folder in ("layerkit", "nets"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # All but the compiled engine, which takes a minute.
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    script = (
        "from layerkit.galaxy.report.page import page\n"
        "print(page.__file__)\n"
        "page.write_report('report.html', {'net': 'a net'})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(built)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(run.stdout.strip()).is_relative_to(built)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<dd>a net</dd>" in page
    assert "prefers-color-scheme" in page
    assert "$" not in page
