"""Short representations: what an object is, in a line, where all its numbers would fill the screen.

A class takes one by `__repr__ = short_repr` in its body, a named tuple by a method that calls it.
"""

from __future__ import annotations

import dataclasses
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
