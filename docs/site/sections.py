"""Extension of Griffe: one-line sections of docstrings, such as Shapes and Source, stand out."""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Shapes|Parameters|Source):", re.MULTILINE)


class Sections(griffe.Extension):
    """Bold titles for the sections that Griffe does not know."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Mark up the docstring of a class."""
        if cls.docstring:
            cls.docstring.value = SECTION.sub(r"**\1:**", cls.docstring.value)
