"""Every option of a command of the galaxy model is explained in the documentation."""

import argparse
import re
from pathlib import Path

import pytest

from layerkit.cli.commands import galaxy

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"scene": "scenes.md"}  # other commands are explained in galaxy.md
EVERYWHERE = {"--help", "--config"}


def inner(parser):
    """The parsers of a parser's commands by name."""
    kind = argparse._SubParsersAction
    return next(action.choices for action in parser._actions if isinstance(action, kind))


def commands():
    parser = argparse.ArgumentParser()
    galaxy.add(parser.add_subparsers())
    (top,) = inner(parser).values()
    return list(inner(top).items())


@pytest.mark.parametrize(("name", "parser"), commands(), ids=lambda x: x if type(x) is str else "")
def test_options_are_documented(name, parser):
    text = (DOCS / PAGES.get(name, "galaxy.md")).read_text(encoding="utf-8")
    words = set(re.findall(r"--[a-z][a-z-]*", text))
    options = [action.option_strings for action in parser._actions if action.option_strings]
    missing = [each[-1] for each in options if not words & {*each} and not EVERYWHERE & {*each}]
    assert len(options) > 1
    assert missing == []
