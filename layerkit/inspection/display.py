"""Short representations: what an object is, in a line, where all its numbers would fill the screen.

A class takes one by `__repr__ = short_repr` in its body, a named tuple by a method that calls it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_ITEMS = 6  # of an array or a collection that is shown in full
MOST_CHARACTERS = 60  # of any one value


def brief(value: Any) -> str:
    """Describe a value in a few words: small ones as they are, others by their kind and size."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None and shape:
        return f"{dtype} {shape}"
    if isinstance(value, str):
        shown = value if len(value) <= MOST_CHARACTERS else value[: MOST_CHARACTERS - 3] + "..."
        return repr(shown)
    if isinstance(value, dict | list | tuple | set | frozenset):
        kind = type(value).__name__
        if len(value) > MOST_ITEMS or len(repr(value)) > MOST_CHARACTERS:
            return f"{kind} of {len(value):,}"
        return repr(value)
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"<{type(value).__name__}>"


def short_repr(self: Any) -> str:
    """Represent a data class, a named tuple or a dictionary by its fields, each in a few words."""
    if dataclasses.is_dataclass(self):
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    elif isinstance(self, dict):
        fields = self
    else:
        fields = self._asdict()
    inside = ", ".join(f"{name}={brief(value)}" for name, value in fields.items())
    return f"{type(self).__name__}({inside})"


class Extra(dict[str, Any]):
    """A dictionary that came with a snapshot: one like any other, but for its representation."""

    __repr__ = short_repr


def html_table(text: str) -> str:
    """Return a plain-text table as HTML for notebooks, which would else break its lines."""
    return f'<pre style="white-space: pre; overflow-x: auto; line-height: 1.3">{escape(text)}</pre>'


def html_grid(title: str, header: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Return a titled table as HTML for notebooks, which give it their own style.

    Args:
        title: shown above the table.
        header: of the columns after the first; none is shown if it is empty.
        rows: the cells of each row after the first, by the first.
    """
    body = "".join(_html_row([name, *cells], "td") for name, cells in rows.items())
    head = f"<thead>{_html_row(['', *header], 'th')}</thead>" if header else ""
    return f"<table><caption>{escape(title)}</caption>{head}<tbody>{body}</tbody></table>"


def _html_row(cells: Sequence[str], tag: str) -> str:
    first, *others = (escape(cell) for cell in cells)
    return f"<tr><th>{first}</th>{''.join(f'<{tag}>{cell}</{tag}>' for cell in others)}</tr>"
