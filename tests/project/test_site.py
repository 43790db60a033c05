"""The site of the documentation: every layer and public name has its place, and it builds."""

import ast
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
from galaxy_runs import quicken

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.galaxy import scene

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# Title, width and needed width of each frame, and its pictures that are missing.
MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const frames = [...document.querySelectorAll("iframe")];
  document.body.textContent = "measured " + JSON.stringify(frames.map((frame) => [
    frame.title,
    frame.contentDocument.documentElement.clientWidth,
    frame.contentDocument.documentElement.scrollWidth,
    [...frame.contentDocument.images].filter((i) => !i.naturalWidth).map((i) => i.src),
  ]));
}, 5000));
</script>
"""
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Keep quiet."""


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
    quicken(monkeypatch)
    names = {"__name__": "notebook", "display": print}
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs"), "outputs are made when the site is built"
        if cell["cell_type"] == "code":
            code = ast.parse("".join(cell["source"]))
            exec(compile(code, path.name, "exec"), names)
    matplotlib.pyplot.close("all")
    assert len(NOTEBOOKS) == 3


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, notebooks and tutorials as they are: they run in tests of their own."""
    if not all(map(find_spec, ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"))):
        pytest.skip("the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DOCS_EXECUTE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_catalogue_is_made_of_docstrings(site):
    page = (site / "layers.html").read_text()
    assert page.count("<strong>Shapes:</strong>") >= len(L.__all__)
    assert "y = gain (x - mean) / sqrt(variance + epsilon) + bias" in page


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_pages_fit_a_screen_and_a_phone(site, tmp_path):
    pages = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    pages = [page for page in pages if not page.startswith(("source/", "404"))]
    frames = "".join(
        f'<iframe title="{page} {width}" width="{width}" height="900" src="{page}"></iframe>'
        for page in pages
        for width in (1200, 390)
    )
    (site / "frames.html").write_text(f"<!DOCTYPE html>{frames}{MEASURE}")
    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=30000", "--dump-dom"]
        address = f"http://127.0.0.1:{server.server_port}/frames.html"
        done = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
        server.shutdown()
    told = re.search(r"measured (\[.*\])", done.stdout)
    found = json.loads(html.unescape(told[1]))
    assert len(found) == 2 * len(pages) > 40
    assert [frame for frame in found if frame[2] > frame[1] or frame[3]] == []
