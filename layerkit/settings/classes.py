"""Classes that keep the rules of their settings, when an object is made and afterwards."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from layerkit.errors import LayerkitError, NetError
from layerkit.settings.names import UnknownAttributeError, closest
from layerkit.settings.rules import Optional, Rule, accept

T = TypeVar("T")
_told: set[tuple[str, str, str]] = set()  # annotations that a warning was about
Function = TypeVar("Function", bound=Callable[..., Any])


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

    An annotation that cannot be evaluated has no rule, and a warning says so.

    Args:
        scope: in which annotations that are text are looked up.
    """
    rules: dict[str, Rule] = {}
    for name, hint in inspect.get_annotations(annotated).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, scope)
            except Exception as error:  # of any kind, from somebody's own expression
                place = (annotated.__module__, annotated.__qualname__, name)
                if place in _told:
                    continue
                _told.add(place)
                warnings.warn(
                    f"{annotated.__qualname__}: the annotation of {name}, {hint}, cannot be "
                    f"evaluated ({error}), so a rule in it is not applied; import what it names "
                    "when the program runs, not only for type checkers",
                    RuntimeWarning,
                    stacklevel=3,
                )
                continue
        rule = rule_of(hint)
        if rule is not None:
            rules[name] = rule
    return rules


def checked(
    init: Callable[..., None],
    label: Callable[..., str] | None = None,
    common: Mapping[str, Rule] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Make a constructor apply the rules of its signature, with errors that name their owner.

    Args:
        init: an `__init__`.
        label: names the owner for messages, given the object and the constructor's arguments; the
            name of its class by default.
        common: settings that classes of a user's own take too, though the signature does not name
            them; once the object is made they go to its method `take_common`.  A signature that
            ends in `**name: Unpack[...]` names them all, and gets them itself.
        defaults: what they are by default, for the signature that `help` shows.
    """
    written = inspect.signature(init)
    signature = _spelt_out(written, defaults or {})
    further = {k: rule for k, rule in (common or {}).items() if k not in signature.parameters}
    rules: dict[str, Rule] = {}
    ready = False

    @functools.wraps(init)
    def __init__(self: Any, /, *args: Any, **settings: Any) -> None:  # noqa: N807
        nonlocal ready
        if not ready:  # when first called, as annotations may name what follows in the file
            spelt = signature.parameters.keys() - written.parameters.keys()
            rules.update({name: rule for name, rule in (common or {}).items() if name in spelt})
            rules.update(rules_of(init, getattr(init, "__globals__", {})))
            ready = True
        owner = (label or _kind)(self, *args, **settings)
        taken = {} if _is_ours(self) else further  # ours say what they take
        apart = {name: settings.pop(name) for name in taken if name in settings}
        try:
            given = signature.bind(self, *args, **settings)
        except TypeError as error:
            raise NetError(f"{owner}: {_misfit(signature, settings, error, taken)}") from None
        for name, value in given.arguments.items():
            if name in rules:
                given.arguments[name] = accept(rules[name], value, name, owner)
        init(*given.args, **given.kwargs)
        for name, value in apart.items():
            self.take_common(name, accept(further[name], value, name, owner))
        if isinstance(self, Closed) and type(self).__init__ is __init__:  # not that of a base
            self.close()

    setattr(__init__, "__signature__", signature)  # noqa: B010  # which type checkers do not know
    return __init__


def _spelt_out(signature: inspect.Signature, defaults: Mapping[str, Any]) -> inspect.Signature:
    """Return a signature in which `**name: Unpack[...]` is replaced by the settings it stands for.

    Args:
        signature: of a constructor, with annotations as text.
        defaults: the settings, and what they are by default.
    """
    parameters = list(signature.parameters.values())
    last = parameters[-1]
    if last.kind != last.VAR_KEYWORD or not str(last.annotation).startswith("Unpack["):
        return signature
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in defaults.items()
    ]
    return signature.replace(parameters=[*parameters[:-1], *further])


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


def _misfit(
    signature: inspect.Signature,
    settings: dict[str, Any],
    error: TypeError,
    common: Collection[str] = (),
) -> str:
    """Say what is wrong with a call, for which binding its arguments gave `error`."""
    taken = [p for name, p in signature.parameters.items() if name != "self"]
    unknown = [name for name in settings if name not in signature.parameters]  # mostly misspelt
    problem = str(error)
    if unknown and all(p.kind != p.VAR_KEYWORD for p in taken):
        problem = f"got an unexpected keyword argument {unknown[0]!r}"
    elif "too many" in problem and taken and taken[-1].kind == taken[-1].VAR_KEYWORD:
        problem += ", the rest is given by name, as NAME=value"
    usage = [  # without the annotations, which say to people less than the defaults
        f"{p.name}=..."
        if p.kind == p.KEYWORD_ONLY and p.default is p.empty
        else str(p.replace(annotation=p.empty))
        for p in taken
    ]
    usage += [f"{name}=..." for name in common]
    return f"{problem}; it takes ({', '.join(usage)})"


def _is_ours(thing: Any) -> bool:
    """Tell whether an object is of one of the library's own classes."""
    return type(thing).__module__.partition(".")[0] == __name__.partition(".")[0]


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
        if _is_ours(self):
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
                        n
                        for cls in type(self).__mro__
                        for n, p in vars(cls).items()
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
