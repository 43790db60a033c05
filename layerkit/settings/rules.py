"""Rules: which values a setting accepts, and their plain Python form."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from layerkit.errors import LayerkitError, NetError, brief
from layerkit.system.files import path_of

LARGEST = 2**31 - 1  # of a whole number, unless a rule says otherwise; its products fit 64 bits


class Rule:
    """The values that a setting accepts.

    Attributes:
        expected: the values in words, as in "units must be <expected>".
        kept: whether the attribute called like the setting holds its value.
    """

    expected = "anything"
    kept = True

    def accept(self, value: Any) -> Any:
        """Return `value` in plain form.

        Raises:
            ValueError: a value that is not accepted; its text, if any, is used for `expected`.
        """
        return value


class Number(Rule):
    """A finite real number between bounds; truth values and text are none.

    Args:
        least, most: bounds that are themselves accepted.
        above, below: bounds that are not.
        zero: whether 0 is accepted.
        hint: what to do instead, for messages.
    """

    def __init__(
        self,
        least: float = -math.inf,
        most: float = math.inf,
        above: float = -math.inf,
        below: float = math.inf,
        zero: bool = True,
        hint: str = "",
    ):
        self.least, self.most, self.above, self.below, self.zero = least, most, above, below, zero
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (
                ("at least", least),
                ("above", above),
                ("at most", most),
                ("below", below),
            )
            if math.isfinite(bound)
        ]
        self.expected = "a finite number"
        if bounds:
            self.expected += f", {' and '.join(bounds)}"
        if not zero:
            self.expected += " other than 0"
        self.expected += f" ({hint})" if hint else ""

    def accept(self, value: Any) -> float:
        """Return a float."""
        number = float(real(value))
        inside = self.least <= number <= self.most and self.above < number < self.below
        if not math.isfinite(number) or not inside or (number == 0 and not self.zero):
            raise ValueError
        return number


class Whole(Rule):
    """A whole number between bounds; neither truth values nor floats such as 3.0 are whole.

    Args:
        least, most: bounds, themselves accepted.
    """

    def __init__(self, least: int = 0, most: int = LARGEST):
        self.least, self.most = least, most
        self.expected = f"a whole number, at least {least}"
        if most != LARGEST:
            self.expected += f" and at most {most}"

    def accept(self, value: Any) -> int:
        """Return an int."""
        number = whole(value)
        if number > self.most == LARGEST:
            raise ValueError(f"{self.expected} and at most {LARGEST}")
        if not self.least <= number <= self.most:
            raise ValueError
        return number


class Truth(Rule):
    """True or False, NumPy's among them; no other number."""

    expected = "True or False"

    def accept(self, value: Any) -> bool:
        """Return a bool."""
        if not isinstance(value, bool | np.bool_):
            raise ValueError
        return bool(value)


class Choice(Rule):
    """One of a few values.

    Args:
        values: the values, text or None.
    """

    def __init__(self, *values: str | None):
        self.values = values
        self.expected = f"one of {', '.join(map(repr, values))}"

    def accept(self, value: Any) -> str | None:
        """Return the value."""
        if not (value is None or isinstance(value, str)) or value not in self.values:
            raise ValueError
        return value


class Sizes(Rule):
    """A tuple or list of whole numbers of at least 1.

    Args:
        lengths: how many there can be; without any, as many as come.
        unknown: whether -1 stands for a size to be worked out.
        names: what the sizes are, for messages, such as "(height, width)".
    """

    def __init__(self, *lengths: int, unknown: bool = False, names: str = ""):
        self.lengths, self.unknown = lengths, unknown
        self.expected = f"{names or 'a tuple'} of positive whole numbers"
        if unknown:
            self.expected += " or -1"
        self.expected += ", each below 2^31"

    def accept(self, value: Any) -> tuple[int, ...]:
        """Return a tuple of ints."""
        if not isinstance(value, tuple | list):
            raise ValueError
        sizes = tuple(whole(size) for size in value)
        if self.lengths and len(sizes) not in self.lengths:
            raise ValueError
        if not all(1 <= s <= LARGEST or (s == -1 and self.unknown) for s in sizes):
            raise ValueError
        return sizes


class Pair(Rule):
    """A whole number, or two of them: for rows and for columns.

    Args:
        least: the least number accepted.
    """

    def __init__(self, least: int = 0):
        self.number = Whole(least)
        self.expected = f"{self.number.expected}, or a pair of them (rows, columns)"

    def accept(self, value: Any) -> int | tuple[int, int]:
        """Return an int, or a tuple of two."""
        if not isinstance(value, tuple | list):
            return self.number.accept(value)
        if len(value) != 2:
            raise ValueError
        return self.number.accept(value[0]), self.number.accept(value[1])


class Numbers(Rule):
    """A tuple, list or array of finite numbers.

    Args:
        least: the least that a number may be.
    """

    def __init__(self, least: float = -math.inf):
        self.number = Number(least=least)
        self.expected = f"a tuple of numbers, each {self.number.expected}"

    def accept(self, value: Any) -> tuple[float, ...]:
        """Return a tuple of floats."""
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = list(value)
        if not isinstance(value, tuple | list):
            raise ValueError
        return tuple(self.number.accept(number) for number in value)


class Name(Rule):
    """The name of a layer or blob: text that is not blank, without NUL, that UTF-8 can hold."""

    expected = "a name: non-empty text, not blank, without NUL"
    kept = False

    def accept(self, value: Any) -> str:
        """Return the name."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("a name that UTF-8 can hold, without lone surrogates") from None
        return str(value)


class Names(Name):
    """One name, or a tuple or list of names."""

    expected = "a name, or a list of names: non-empty text, not blank, without NUL"

    def accept(self, value: Any) -> Any:
        """Return the name, or a list of them."""
        if not isinstance(value, tuple | list):
            return super().accept(value)
        if not value:
            raise ValueError
        return [super(Names, self).accept(name) for name in value]


class Precision(Rule):
    """A dtype that a net can have, by name or as NumPy has it."""

    expected = "'float32' or 'float64'"

    def accept(self, value: Any) -> str:
        """Return the name; the order of bytes is this computer's."""
        try:
            name = np.dtype(value).name if value is not None else ""
        except (TypeError, ValueError):
            name = ""
        if name not in ("float32", "float64"):
            raise ValueError
        return name


class FilePath(Rule):
    """The path of a file: text, bytes or a path object, not empty, without NUL."""

    expected = "the path of a file: text, bytes or a path object, not empty, without NUL"

    def accept(self, value: Any) -> Path:
        """Return the path."""
        try:
            return path_of(value, NetError)
        except NetError:
            raise ValueError from None


class FilePaths(FilePath):
    """The path of a file, or a tuple or list of paths."""

    expected = f"{FilePath.expected}, or a list of such paths"

    def accept(self, value: Any) -> Any:
        """Return the path, or a list of them."""
        if not isinstance(value, tuple | list):
            return super().accept(value)
        if not value:
            raise ValueError
        return [super(FilePaths, self).accept(path) for path in value]


class Optional(Rule):
    """None, or what another rule accepts.

    Args:
        rule: the other rule.
    """

    def __init__(self, rule: Rule):
        self.rule, self.kept = rule, rule.kept
        self.expected = f"{rule.expected}, or None"

    def accept(self, value: Any) -> Any:
        """Return None, or the value in plain form."""
        return None if value is None else self.rule.accept(value)


Count = Annotated[int, Whole(least=1)]
NotNegative = Annotated[float, Number(least=0)]
Positive = Annotated[float, Number(above=0)]
Finite = Annotated[float, Number()]
Seed = Annotated[int, Whole(-(2**63), 2**63 - 1)]
Flag = Annotated[bool, Truth()]
Text = Annotated[str, Name()]
Tops = Annotated[str | list[str] | tuple[str, ...], Names()]


def real(value: Any) -> Any:
    """Return a real number that came as one, or as a NumPy array without axes.

    Raises:
        ValueError: anything else, such as a truth value, text or a complex number.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError
    try:
        float(value)
    except OverflowError:
        raise ValueError from None
    return value


def whole(value: Any) -> int:
    """Return a whole number as an int; it may come as a NumPy integer, or an array without axes.

    Raises:
        ValueError: anything else, such as a truth value or a float.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise ValueError
    return int(value)


def accept(
    rule: Rule, value: Any, setting: str, label: str, error: type[LayerkitError] = NetError
) -> Any:
    """Return a value in plain form.

    Args:
        setting, label: names of the setting and of what has it, for the message.
        error: the kind of error to raise.

    Raises:
        error: a value that the rule does not accept.
    """
    try:
        return rule.accept(value)
    except ValueError as reason:
        expected = str(reason) or rule.expected
        raise error(f"{label}: {setting} must be {expected}, got {brief(value)}") from None
