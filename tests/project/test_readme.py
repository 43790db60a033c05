"""The documentation's Python runs as it stands, and the files it links to are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(page.name, code, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def test_the_readme_has_code():
    assert {param.values[0] for param in SNIPPETS} >= {"README.md", "gpu.md"}


@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_code_runs(page, code, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, page, "exec"), {"__name__": "documentation"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []
