"""Settings: every setting says in the signature that takes it which values it accepts.

    def __init__(self, name: str, bottom: str, *, units: Count, slope: Positive = 0.01): ...

`Count` is an int with a rule, `Annotated[int, Whole(least=1)]`.  Layers, solvers and nets, and with
the decorator `checks` rate policies and initialisers, apply the rules of their signatures when they
are made, and again when an attribute that is called like a setting is assigned later.  A rule also
turns a value into its plain Python form: `np.uint8(7)` into 7, a list of sizes into a tuple.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import typing
from collections.abc import Callable, Collection
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import numpy as np

from layerkit.errors import LayerkitError, NetError, brief
from layerkit.files import path_of
from layerkit.names import UnknownAttributeError, closest

LARGEST = 2**31 - 1  # of a whole number, unless a rule says otherwise; its products fit 64 bits


class Rule:
    """Which values a setting accepts.

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
        self, least: float = -math.inf, most: float = math.inf, above: float = -math.inf,
        below: float = math.inf, zero: bool = True, hint: str = "",
    ):
        self.least, self.most, self.above, self.below, self.zero = least, most, above, below, zero
        bounds = [
            f"{words} {bound:g}" for words, bound in
            (("at least", least), ("above", above), ("at most", most), ("below", below))
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
        length: how many there must be; None takes any number of them.
        unknown: whether -1 stands for a size to be worked out.
        names: what the sizes are, for messages, such as "(height, width)".
    """

    def __init__(self, length: int | None = None, unknown: bool = False, names: str = ""):
        self.length, self.unknown = length, unknown
        self.expected = f"{names or 'a tuple'} of positive whole numbers"
        if unknown:
            self.expected += " or -1"
        self.expected += ", each below 2^31"

    def accept(self, value: Any) -> tuple[int, ...]:
        """Return a tuple of ints."""
        if not isinstance(value, tuple | list):
            raise ValueError
        sizes = tuple(whole(size) for size in value)
        if self.length not in (None, len(sizes)):
            raise ValueError
        if not all(1 <= s <= LARGEST or (s == -1 and self.unknown) for s in sizes):
            raise ValueError
        return sizes


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


class FilePath(Rule):
    """Where a file is: text, bytes or a path object, not empty, without NUL."""

    expected = "the path of a file: text, bytes or a path object, not empty, without NUL"

    def accept(self, value: Any) -> Path:
        """Return the path."""
        try:
            return path_of(value, NetError)
        except NetError:
            raise ValueError from None


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

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
Assign = Callable[[Any, str, Any], None]


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


def rule_of(hint: Any) -> Rule | None:
    """Return the rule in an annotation, or None where it has none."""
    if typing.get_origin(hint) is Annotated:
        return next((m for m in hint.__metadata__ if isinstance(m, Rule)), None)
    found = [rule for rule in map(rule_of, typing.get_args(hint)) if rule is not None]
    if not found:
        return None
    return Optional(found[0]) if type(None) in typing.get_args(hint) else found[0]


def rules_of(annotated: Any, scope: dict[str, Any]) -> dict[str, Rule]:
    """Return the rules in the annotations of a function or class, by name.

    Args:
        scope: in which annotations that are text are looked up; what is not found has no rule.
    """
    rules: dict[str, Rule] = {}
    for name, hint in inspect.get_annotations(annotated).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, scope)
            except Exception:  # a name of somebody's own that is not there yet, or never
                continue
        rule = rule_of(hint)
        if rule is not None:
            rules[name] = rule
    return rules


def checked(init: Callable[..., None], label: Callable[..., str] | None = None) -> Any:
    """Make a constructor apply the rules of its signature, with errors that name their owner.

    Args:
        init: an `__init__`.
        label: names the owner for messages, given the object and the constructor's arguments; the
            name of its class by default.
    """
    signature = inspect.signature(init)
    rules: dict[str, Rule] = {}
    ready = False

    @functools.wraps(init)
    def __init__(self: Any, /, *args: Any, **settings: Any) -> None:  # noqa: N807
        nonlocal ready
        if not ready:  # when first called, as annotations may name what follows in the file
            rules.update(rules_of(init, getattr(init, "__globals__", {})))
            ready = True
        owner = (label or _kind)(self, *args, **settings)
        try:
            given = signature.bind(self, *args, **settings)
        except TypeError as error:
            raise NetError(f"{owner}: {_misfit(signature, settings, error)}") from None
        for name, value in given.arguments.items():
            if name in rules:
                given.arguments[name] = accept(rules[name], value, name, owner)
        init(*given.args, **given.kwargs)
        if isinstance(self, Closed) and type(self).__init__ is __init__:  # not that of a base
            self.close()

    return __init__


def fitting(error: type[LayerkitError]) -> Callable[[Function], Function]:
    """Make calls that do not fit a function an error that says what it takes; a decorator.

    Args:
        error: the kind of error to raise.
    """
    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: Any, **settings: Any) -> Any:
            try:
                signature.bind(*args, **settings)
            except TypeError as reason:
                name = function.__qualname__.removesuffix(".__init__")
                raise error(f"{name}: {_misfit(signature, settings, reason)}") from None
            return function(*args, **settings)

        return run  # type: ignore[return-value]

    return decorate


def _misfit(signature: inspect.Signature, settings: dict[str, Any], error: TypeError) -> str:
    """Say what is wrong with a call, for which binding its arguments gave `error`."""
    taken = [p for name, p in signature.parameters.items() if name != "self"]
    unknown = [name for name in settings if name not in signature.parameters]  # mostly misspelt
    problem = str(error)
    if unknown and all(p.kind != p.VAR_KEYWORD for p in taken):
        problem = f"got an unexpected keyword argument {unknown[0]!r}"
    elif "too many" in problem and taken and taken[-1].kind == taken[-1].VAR_KEYWORD:
        problem += ", the rest is given by name, as NAME=value"
    usage = [  # without the annotations, which say to people less than the defaults
        f"{p.name}=..." if p.kind == p.KEYWORD_ONLY and p.default is p.empty
        else str(p.replace(annotation=p.empty)) for p in taken
    ]
    return f"{problem}; it takes ({', '.join(usage)})"


def _kind(self: Any, /, *args: Any, **settings: Any) -> str:
    return type(self).__name__


def checks(cls: type[T]) -> type[T]:
    """Make a class apply the rules of its constructor's signature; a decorator."""
    init: Any = checked(cls.__init__)
    setattr(cls, "__init__", init)  # noqa: B010  # in words that type checkers let pass
    return cls


class Closed:
    """Base class whose objects, once they are made, get no attribute that they do not have.

    A misspelt setting would otherwise change nothing, in silence.  Only objects of the library's
    own classes are closed: whoever derives a class may keep in its objects what they like, when
    they like, such as a cache that `forward` makes.  Names that begin with "_" are left alone.

    Attributes:
        fixed: attributes and settings that cannot be assigned once the object is made.
        instead: what to do rather than assign one of these.
    """

    __slots__ = ()
    _closed: ClassVar[bool] = False
    fixed: ClassVar[Collection[str]] = ()
    instead: ClassVar[str] = ""

    def close(self) -> None:
        """Let no new attribute in, if the object is of one of the library's own classes."""
        if type(self).__module__.partition(".")[0] == __name__.partition(".")[0]:
            setattr(self, "_closed", True)  # noqa: B010  # of the object, as of no class

    def open(self) -> None:
        """Let new attributes in again."""
        setattr(self, "_closed", False)  # noqa: B010

    def label(self) -> str:
        """Return what messages call this object."""
        return type(self).__name__

    if not TYPE_CHECKING:  # so that a misspelt attribute still is an error

        def __setattr__(self, name: str, value: Any) -> None:
            """Assign an attribute, a new one only while the object is open."""
            if self._closed and name[0] != "_":
                if name in self.fixed:
                    raise NetError(
                        f"{self.label()}: {name} cannot be changed any more; {self.instead}"
                    )
                if name not in vars(self) and not hasattr(type(self), name):
                    there = [n for n in vars(self) if n[0] != "_"]
                    there += [
                        n for cls in type(self).__mro__ for n, p in vars(cls).items()
                        if isinstance(p, property) and p.fset
                    ]
                    raise UnknownAttributeError(
                        f"{self.label()}: has no attribute {name!r} that could be set; "
                        f"{closest(name, dict.fromkeys([*there, *self.fixed]))}"
                    )
            super().__setattr__(name, value)


class Checked(Closed):
    """Base class whose attributes stay within the rules of the settings they are called like.

    The rules are those of the constructor's signature and of annotations in the class body.
    """

    __slots__ = ()

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return the rule of each attribute that has one."""
        found = _rules.get(cls)
        if found is None:
            found = {}
            for base in reversed(cls.__mro__):
                module = sys.modules.get(base.__module__)
                scope = vars(module) if module else {}
                found.update(rules_of(base, scope))
                init = inspect.unwrap(vars(base)["__init__"]) if "__init__" in vars(base) else None
                if inspect.isfunction(init):
                    found.update(rules_of(init, init.__globals__))
            found = {**cls.own_rules(), **found}
            found = _rules[cls] = {name: rule for name, rule in found.items() if rule.kept}
        return found

    @classmethod
    def own_rules(cls) -> dict[str, Rule]:
        """Return further rules, which no annotation says."""
        return {}

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            """Assign an attribute, within its rule if it has one."""
            rule = self.rules().get(name)
            if rule is not None:
                value = accept(rule, value, name, self.label())
            super().__setattr__(name, value)


_rules: dict[type, dict[str, Rule]] = {}


def in_words(count: int) -> str:
    """Return an amount of memory as people write it."""
    size, units = float(count), iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    for larger in units:
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"


def memory() -> int:
    """Return the bytes of memory that are free on this computer, or more than any if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(1024 * int(x.split()[1]) for x in file if x.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize
