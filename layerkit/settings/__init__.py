"""Settings: every setting says in the signature that takes it which values it accepts.

    def __init__(self, name: str, bottom: str, *, units: Count, slope: Positive = 0.01): ...

`Count` is an int with a rule, `Annotated[int, Whole(least=1)]`.  Layers, solvers and nets, and with
the decorator `checks` rate policies and initialisers, apply the rules of their signatures when they
are made, and again when an attribute that is called like a setting is assigned later.  A rule also
turns a value into its plain Python form: `np.uint8(7)` into 7, a list of sizes into a tuple.
"""

from layerkit.settings.classes import Checked, Closed, checked, checks, fitting, rule_of, rules_of
from layerkit.settings.rules import (
    LARGEST,
    Choice,
    Count,
    FilePath,
    FilePaths,
    Finite,
    Flag,
    Name,
    Names,
    NotNegative,
    Number,
    Numbers,
    Optional,
    Pair,
    Positive,
    Precision,
    Rule,
    Seed,
    Sizes,
    Text,
    Tops,
    Truth,
    Whole,
    accept,
    real,
    whole,
)

__all__ = [
    "LARGEST",
    "Checked",
    "Choice",
    "Closed",
    "Count",
    "FilePath",
    "FilePaths",
    "Finite",
    "Flag",
    "Name",
    "Names",
    "NotNegative",
    "Number",
    "Numbers",
    "Optional",
    "Pair",
    "Positive",
    "Precision",
    "Rule",
    "Seed",
    "Sizes",
    "Text",
    "Tops",
    "Truth",
    "Whole",
    "accept",
    "checked",
    "checks",
    "fitting",
    "real",
    "rule_of",
    "rules_of",
    "whole",
]
