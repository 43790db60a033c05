"""Hooks of MkDocs: files outside docs/ join the site, layers get entries, tutorials their outputs.

Links are written as they work in the repository.  A file of the repository that is linked to
becomes a page of the site.
"""

import contextlib
import io
import os
import posixpath
import re
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

# Pages that lie outside docs/ -> their names in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "performance.md",
    "layerkit/galaxy/boxed/galaxy_zoo.md": "boxed_model.md",
}
NAMES = {name: path for path, name in PAGES.items()}
LANGUAGES = {".py": "python", ".h": "cpp", ".cpp": "cpp", ".cu": "cuda", ".toml": "toml"}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
PYTHON = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
ENTRIES = re.compile(r"^(?:Layers|Base class): (`[\w.]+`(?:,\s+`\w+`)*)\.$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and a page for each file or folder that is linked to."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    sources: set[str] = set()
    for file in files.documentation_pages():
        if file.src_uri.endswith(".md"):
            for _, link, _ in LINK.findall(file.content_string):
                sources |= {path for path in [target(file.src_uri, link)] if is_source(path)}
    for path in sorted(sources | {p for folder in sources for p in inside(folder)}):
        page = File.generated(
            config, source_page(path), content=listing(path), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
    files.append(
        File.generated(config, "extra.css", abs_src_path=str(ROOT / "docs/site/extra.css"))
    )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site, and names of layers into entries."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        path = target(here, match[2])
        if path is None:
            return match[0]
        if path in PAGES:
            name = PAGES[path]
        elif is_source(path):
            name = source_page(path)
        else:
            name = posixpath.relpath(path, "docs")
        return match[1] + posixpath.relpath(name, posixpath.dirname(here) or ".") + match[3]

    if here.endswith(".md") and not here.startswith("source/"):
        markdown = LINK.sub(turned, markdown)
    if here.startswith("tutorials/") and os.environ.get("DOCS_EXECUTE") != "false":
        markdown = with_outputs(markdown, here)
    return ENTRIES.sub(lambda match: entries(match[1]), markdown)


def entries(names: str) -> str:
    """Return the entry of each class, which mkdocstrings makes of its docstring."""
    found = re.findall(r"[\w.]+", names)
    paths = [name if name.startswith("layerkit.") else f"layerkit.layers.{name}" for name in found]
    return "\n\n".join(f"::: {path}" for path in paths)


def with_outputs(markdown: str, name: str) -> str:
    """Run a page from top to bottom, and put behind each block of Python what it prints."""
    names = {"__name__": "tutorial"}

    def run(block: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block[1], name, "exec"), names)
        output = printed.getvalue().rstrip()
        return (
            f"{block[0]}\n```{{ .text .output .no-copy }}\n{output}\n```\n" if output else block[0]
        )

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return PYTHON.sub(run, markdown)


def target(name: str, link: str) -> str | None:
    """Return the path in the repository that a page of this name links to, or None."""
    if "://" in link or link.startswith("mailto:"):
        return None
    folder = posixpath.dirname(NAMES.get(name, f"docs/{name}"))
    return posixpath.normpath(posixpath.join(folder, link))


def is_source(path: str | None) -> bool:
    """Tell whether a path is of a file or folder of the repository that is no page yet."""
    outside = path is not None and path not in PAGES and not path.startswith("docs/")
    return outside and path is not None and (ROOT / path).exists()


def inside(path: str) -> list[str]:
    """Return the Python files of a folder; none for a file."""
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / path).glob("*.py"))


def source_page(path: str) -> str:
    """Return the name of the page that shows a file or folder."""
    return f"source/{path}.md"


def listing(path: str) -> str:
    """Return the Markdown of such a page."""
    place = ROOT / path
    if place.is_dir():
        names = [Path(p).name for p in inside(path)]
        body = "\n".join(f"- [`{name}`]({place.name}/{name}.md)" for name in names)
    else:
        language = LANGUAGES.get(place.suffix, "text")
        body = f"````{language}\n{place.read_text(encoding='utf-8')}````"
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n{body}\n"
