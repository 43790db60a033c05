"""Names: what messages say of those that are not there, and mappings whose errors say it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from layerkit.errors import NetError, brief

T = TypeVar("T")


class UnknownNameError(NetError, KeyError):
    """A name that a mapping does not have; a KeyError too, as of any other mapping."""


class UnknownAttributeError(NetError, AttributeError):
    """An attribute that an object does not have; an AttributeError too, as of any other object."""


def quoted(names: Iterable[Any]) -> str:
    """List names for messages."""
    return ", ".join(repr(n) for n in names) or "none"


def closest(name: Any, names: Iterable[str]) -> str:
    """Say which name may have been meant by one that is not there, for messages."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1) if isinstance(name, str) else []
    return f"did you mean {close[0]!r}?" if close else f"there are {quoted(names)}"


def matches(pattern: str, names: Iterable[str]) -> list[str]:
    """List the names of parameters that match a pattern such as "g*", or whose layers' names do.

    A name is that very name, though it may hold what patterns do: "block[1]".
    """
    both = [(name, (name, name.rpartition("/")[0])) for name in names]
    return [name for name, own in both if pattern in own] or [
        name for name, own in both if any(fnmatch.fnmatchcase(x, pattern) for x in own)
    ]


class Named(dict[str, T]):
    """A dictionary of the things that a net or a solver holds by name.

    Args:
        kind: the word for one of the values in messages.
        values: name -> value.
        instead: advice for those who try to put in another value, which nothing else would see;
            None where values may be put in and taken out.
    """

    def __init__(
        self, kind: str, values: Mapping[str, T] | None = None, instead: str | None = None
    ):
        super().__init__(values or {})
        self.kind, self.instead = kind, instead

    def __missing__(self, name: Any) -> NoReturn:
        raise UnknownNameError(f"no {self.kind} {brief(name)}; {closest(name, self)}")

    def __setitem__(self, name: str, value: T) -> None:
        """Put a value in, unless it would be seen by nobody."""
        # `history["m"] += 1` ends in putting in the very array that is there.
        if self.instead is not None and self.get(name) is not value:
            raise NetError(
                f"{self.kind} {brief(name)} cannot be put in or replaced; {self.instead}"
            )
        super().__setitem__(name, value)

    def update(self, *others: Any, **more: Any) -> None:
        """Put values in, each as by itself."""
        for name, value in dict(*others, **more).items():
            self[name] = value

    def __ior__(self, others: Any) -> Any:  # type: ignore[misc]
        self.update(others)
        return self

    def setdefault(self, name: str, value: Any = None) -> Any:
        """Return the value, put in if there is none."""
        if name not in self:
            self[name] = value
        return self[name]

    def __delitem__(self, name: str) -> None:
        """Take a value out, unless its owner still uses it."""
        self._keep(name)
        super().__delitem__(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a value out and return it, unless its owner still uses it."""
        if name in self:
            self._keep(name)
        return super().pop(name, *default)

    def popitem(self) -> tuple[str, T]:
        """Take the last value out, unless its owner still uses it."""
        self._keep(next(reversed(self), None))
        return super().popitem()

    def clear(self) -> None:
        """Take all values out, unless their owner still uses them."""
        self._keep(next(iter(self), None))
        super().clear()

    def _keep(self, name: Any) -> None:
        if self.instead is not None:
            raise NetError(
                f"{self.kind} {brief(name)} cannot be taken out: its owner still uses it"
            )

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy is anybody's
