"""Files of the package that are no Python are installed with it."""

import tomllib
from pathlib import Path

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
