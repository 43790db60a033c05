"""The documentation's Python runs as it stands, its commands parse, and its links lead on."""

import argparse
import re
import shlex
import sys
from pathlib import Path

import pytest
from galaxy_runs import quicken

from layerkit.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
TUTORIALS = [page for page in PAGES if page.parent.name == "tutorials"]


def fenced(page, language):
    """Blocks of a page in a language, or in none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for found, block in blocks if found == language]


SNIPPETS = [
    pytest.param(page.name, code, id=f"{page.stem}-{i}")
    for page in PAGES
    if page not in TUTORIALS
    for i, code in enumerate(fenced(page, "python"))
]


def test_the_readme_has_code():
    assert {param.values[0] for param in SNIPPETS} >= {"README.md", "gpu.md"}


@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_code_runs(page, code, capsys, monkeypatch):
    for word, package in {"export_onnx": "onnx", "to_galsim": "galsim"}.items():
        if word in code:
            pytest.importorskip(package)
    monkeypatch.chdir(ROOT)
    exec(compile(code, page, "exec"), {"__name__": "documentation"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run_from_top_to_bottom(page, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    quicken(monkeypatch)
    names = {"__name__": "documentation"}
    for code in fenced(page, "python"):
        exec(compile(code, page.name, "exec"), names)
    assert capsys.readouterr().out.strip()


def commands(page):
    """The layerkit commands of a page, as lists of words."""
    text = "".join(fenced(page, "")).replace("\\\n", " ")
    lines = [line.partition("layerkit ") for line in text.splitlines()]
    # Behind mpiexec, say, but not inside a sentence.
    return [shlex.split(end, comments=True) for start, _, end in lines if end and "#" not in start]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_these_options(page, monkeypatch):
    read = argparse.ArgumentParser.parse_args
    parsed = []

    def only_parse(parser, *args):
        parsed.append(read(parser, *args))
        raise KeyboardInterrupt  # instead of running it

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    for words in commands(page):
        monkeypatch.setattr(sys, "argv", ["layerkit", *words])
        with pytest.raises(KeyboardInterrupt):
            main()
    assert len(parsed) == len(commands(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []
