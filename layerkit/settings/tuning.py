"""Settings that every layer takes for its parameters, whether or not its constructor says so."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from layerkit.settings import Name, Number, Optional, Rule


class OtherLayer(Name):
    """The name of another layer of the net, whose parameters a layer uses."""

    expected = "the name of a layer: non-empty text, not blank, without NUL"
    kept = True


Lender = Annotated[str, OtherLayer()]


class ForEach(Rule):
    """Rule for one value for all parameters of a layer, or a dict of values by their names."""

    def __init__(self, rule: Rule):
        self.rule = rule
        self.expected = f"{rule.expected}, or a dict of that by the names of parameters"

    def accept(self, value: Any) -> Any:
        """Return the value, or the dict, in plain form."""
        if not isinstance(value, dict):
            return self.rule.accept(value)
        if not value or not all(isinstance(name, str) for name in value):
            raise ValueError
        return {name: self.rule.accept(one) for name, one in value.items()}


class Tuning(TypedDict, total=False):
    """Settings that every layer with parameters takes; see layerkit.Layer.

    A constructor that says `**common: Unpack[Tuning]` shows them to type checkers and in `help`.
    """

    shares: str | None
    rate: float | dict[str, float]
    decay: float | dict[str, float]
    max_norm: float | dict[str, float | None] | None


# Those that a layer hands on to each Parameter that it declares, and what they are by default.
TUNING: dict[str, Any] = {"rate": 1.0, "decay": 1.0, "max_norm": None}
COMMON: dict[str, Rule] = {
    "shares": Optional(OtherLayer()),
    "rate": ForEach(Number(least=0)),
    "decay": ForEach(Number(least=0)),
    "max_norm": ForEach(Optional(Number(above=0))),
}
DEFAULTS: dict[str, Any] = {"shares": None, **TUNING}
