"""Extension of Griffe: docstrings of layers read well, and types as a reader knows them."""

import re
from typing import Any

import griffe

# Griffe calls what Args: has "Parameters", so what a layer learns needs another name.
TITLES = {"Shapes": "Shapes", "Parameters": "Learned parameters", "Source": "Source"}
SECTION = re.compile(rf"^({'|'.join(TITLES)}):", re.MULTILINE)


class Sections(griffe.Extension):
    """Bold titles for the sections that Griffe does not know; settings without their rules."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Mark up the docstring of a class."""
        if cls.docstring:
            text = cls.docstring.value
            cls.docstring.value = SECTION.sub(lambda found: f"**{TITLES[found[1]]}:**", text)

    def on_function_instance(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Leave of `Annotated[int, Whole(least=1)]` the type."""
        for parameter in func.parameters:
            parameter.annotation = plain(parameter.annotation)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Do so for the settings of data classes."""
        attr.annotation = plain(attr.annotation)


def plain(annotation: Any) -> Any:
    """Return an annotation without rules."""
    if isinstance(annotation, griffe.ExprBinOp):
        annotation.left, annotation.right = plain(annotation.left), plain(annotation.right)
    elif isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        return annotation.slice.elements[0]
    return annotation
