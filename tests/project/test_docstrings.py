"""Docstrings of what nets are made of: shapes, every setting with its default, errors, source."""

import dataclasses
import inspect
import re

import pytest

import layerkit as lk
from layerkit import initializers
from layerkit import layers as L

SECTIONS = "Shapes", "Args", "Parameters", "Attributes", "Raises", "Source"
BREAKS = [getattr(lk.breaks, name) for name in lk.breaks.__all__ if name != "Break"]
POLICIES = [policy for policy in vars(lk.rates).values() if dataclasses.is_dataclass(policy)]
SOLVERS = [lk.SGD, lk.Nesterov, lk.Adam, lk.AdamW, lk.RMSProp]
LAYERS = [getattr(L, name) for name in L.__all__]
ALL = [*LAYERS, *SOLVERS, *POLICIES, *initializers.NAMED.values(), *BREAKS]

# Names of blobs, which the shapes tell of, and of what all layers or solvers take.
ELSEWHERE = {"name", "bottom", "bottoms", "tops", "net", *lk.Tuning.__annotations__}


def sections(docstring):
    """Section -> its text."""
    found = re.split(rf"^({'|'.join(SECTIONS)}):", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def settings(docstring):
    """Setting -> what Args says about it; one entry may be of several."""
    entries = re.findall(
        r"^    ([\w, ]+): (.*(?:\n     .*)*)", sections(docstring).get("Args", ""), re.MULTILINE
    )
    return {name: text for names, text in entries for name in names.split(", ")}


def missing(cls):
    """List all that the docstring of a class lacks, a line for each thing."""
    there, told = sections(cls.__doc__), settings(cls.__doc__)
    wanted = {"Source", *(["Shapes"] if issubclass(cls, lk.Layer) else [])}
    # A base class says what it raises itself.
    if re.search(r"self\.fail\(|DataError\(|self\.wrong\(", inspect.getsource(cls)):
        wanted.add("Raises")
    lines = [f"it has no {section}:" for section in sorted(wanted - set(there))]
    for name, parameter in inspect.signature(cls).parameters.items():
        required = parameter.default is parameter.empty
        # Layers' bottoms are given by their place.
        bottom = issubclass(cls, lk.Layer) and parameter.kind is not parameter.KEYWORD_ONLY
        if name in ELSEWHERE or bottom:
            continue
        if name not in told:
            lines.append(f"Args: does not tell of {name}")
        elif not required and not re.search(r"default|\bsee\b|None|without", told[name]):
            lines.append(f"Args: gives no default of {name}")
    return lines


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_docstrings_are_complete(cls):
    assert missing(cls) == []


def test_what_is_missing_is_found():
    class Bare(lk.Layer):
        """Nothing but this."""

        def __init__(self, name, bottom, *, size, gain=1.0):
            super().__init__(name, [bottom])

        def setup(self, shapes):
            self.fail("never")

    assert missing(Bare) == [
        "it has no Raises:",
        "it has no Shapes:",
        "it has no Source:",
        "Args: does not tell of size",
        "Args: does not tell of gain",
    ]
    Bare.__doc__ = """Enough.

    Shapes: any.

    Args:
        size, other: how large,
            in pixels.
        gain: factor.

    Raises:
        NetError: always.

    Source: none.
    """
    assert missing(Bare) == ["Args: gives no default of gain"]
    Bare.__doc__ = Bare.__doc__.replace("factor", "factor, default 1")
    assert missing(Bare) == []
