"""The site of the documentation: every layer and public name has its place, and it builds."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.galaxy import scene

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def entries(text):
    """Names of the classes that a page asks the entries of."""
    lists = re.findall(r"^(?:Layers|Base class): ((?:`[\w.]+`(?:,\s+)?)+)\.$", text, re.MULTILINE)
    return [name for names in lists for name in re.findall(r"[\w.]+", names)]


def test_the_catalogue_has_every_layer_once():
    found = [name for name in entries((DOCS / "layers.md").read_text()) if "." not in name]
    assert sorted(found) == sorted(L.__all__)


def test_the_api_has_every_public_name():
    text = "".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    found = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    homes = [("layerkit", lk), ("layerkit.galaxy", galaxy), ("layerkit.galaxy.scene", scene)]
    homes += [(f"layerkit.{m.__name__.split('.')[-1]}", m) for m in (lk.breaks,)]
    wanted = {f"{home}.{name}" for home, module in homes for name in module.__all__}
    # The catalogue is elsewhere; these modules have entries for what is in them.
    elsewhere = {"layers", "Layer", "LayerkitError", "breaks", "initializers", "rates", "snapshot"}
    assert wanted - found - {f"layerkit.{name}" for name in elsewhere} == set()


def test_every_page_is_in_the_navigation():
    pages = re.findall(
        r": ([\w/]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    ours = {str(path.relative_to(DOCS)) for path in [*DOCS.rglob("*.md"), *NOTEBOOKS]}
    assert ours - set(pages) == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch, capsys):
    """Every cell, in order; a kernel would cost seconds more and show nothing else."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook", "display": print}
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs"), "outputs are made when the site is built"
        if cell["cell_type"] == "code":
            code = ast.parse("".join(cell["source"]))
            exec(compile(code, path.name, "exec"), names)
    matplotlib.pyplot.close("all")
    assert len(NOTEBOOKS) == 3


@pytest.mark.skipif(
    not all(map(find_spec, ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"))),
    reason="the extra docs is not installed",
)
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        # Notebooks run in a test of their own.
        env={**os.environ, "PYTHONPATH": str(ROOT), "DOCS_EXECUTE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "max(x, 0)" in (tmp_path / "layers.html").read_text()
