"""Loading: what a snapshot holds goes into a net, all of it or a chosen part."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from layerkit.errors import SnapshotError, brief
from layerkit.inspection.display import Extra
from layerkit.net import Net
from layerkit.saving.snapshot import Contents, check_arguments, opened
from layerkit.saving.states import learned
from layerkit.settings import Truth, accept, fitting
from layerkit.settings.names import matches, quoted
from layerkit.solvers.solver import Solver

Patterns = str | Sequence[str]
Rename = Mapping[str, str] | Callable[[str], str]
Shape = tuple[int, ...]


@fitting(SnapshotError)
def load(
    path: str | os.PathLike[str],
    net: Net,
    solver: Solver | None = None,
    *,
    only: Patterns | None = None,
    skip: Patterns | None = None,
    rename: Rename | None = None,
    strict: bool = True,
) -> Loaded:
    """Read a snapshot into a net and, if given, its solver: all of it or nothing.

    Training that resumes here equals training that never stopped, bit for bit on NumPy.  Without a
    solver the net may have other data layers than the one that was saved, or none.

    To finetune, a part is loaded:

        print(lk.load("digits.h5", net, skip="logits").report)
        lk.load("digits.h5", net, only=["conv*/weight"], strict=False)
        lk.load("digits.h5", net, rename={"encoder_*": "*"})

    The part is of parameters, and of statistics such as BatchNorm's; seed, pass and positions in
    the data stay the net's own.  A shape that differs is an error, unless the name is skipped.

    Args:
        path: the snapshot.
        net: the net.
        solver: the solver that trains it; loaded with the whole of a snapshot only.
        only: names of parameters of the net, of its layers, or patterns such as "conv*/weight", one
            or a list: nothing else is loaded.
        skip: such names or patterns, of what `only` has left; these are not loaded.
        rename: names in the snapshot -> names in the net, of parameters or layers; each "*" stands
            for any letters, equal on both sides: `{"encoder_*": "enc_*"}` loads what the file calls
            "encoder_1/weight" into the net's "enc_1/weight".  Or a function that is given a
            parameter's name in the snapshot and returns that in the net.
        strict: True, the default: all parameters that `only` and `skip` leave must be both in the
            snapshot and in the net.  False leaves those that are in one of them as they are; the
            report tells.

    Returns:
        The `extra` that `save` was given, a dict; its attribute `report` says what was loaded, what
        was not, and why.

    Raises:
        SnapshotError: the file is missing, truncated, damaged, of a newer format, or of another net
            or solver; a pattern that matches nothing; nothing to load.  The message says which, and
            net and solver are unchanged.
    """
    check_arguments(net, solver)
    choice = Choice(only, skip, rename, strict)
    if solver is not None and not choice.everything:
        raise SnapshotError(
            "load: a solver continues from a whole snapshot only; load a part without it"
        )
    with net.lock, opened(path) as snapshot:
        net.lock.check_own(net.arena.data, SnapshotError, "load")
        if not choice.everything:
            return Loaded(snapshot.json("extra"), choice.load(net, Part(snapshot, net)))
        loaded = Contents(snapshot, net, solver)
        loaded.apply(net, solver)
        names = {name: name for name in learned(net)}
        return Loaded(loaded.extra, Report(snapshot.name, names))


@dataclass
class Report:
    """List of the parameters that were loaded, and of those that were not; print it.

    Attributes:
        file: the file.
        loaded: name in the net -> name in the file.
        left: name in the net -> why it was left as it was.
        unused: name in the file -> why it was not used.
    """

    file: str
    loaded: dict[str, str]
    left: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{len(self.loaded)} of {len(self.loaded) + len(self.left)} loaded from {self.file}"
        ]
        lines += [f"  {a}" + (f" (there {b})" if a != b else "") for a, b in self.loaded.items()]
        for title, names in (("left as they were", self.left), ("not used", self.unused)):
            if names:
                width = max(map(len, names))
                lines += [f"{title}:", *(f"  {n.ljust(width)}  {why}" for n, why in names.items())]
        return "\n".join(lines)

    __repr__ = __str__


class Loaded(Extra):
    """The `extra` of a snapshot, and a report of what was loaded with it."""

    def __init__(self, extra: Mapping[str, Any], report: Report):
        super().__init__(extra)
        self.report = report


class Source(Protocol):
    """Arrays of a file, by name.

    Attributes:
        name: the file, for messages.
        shapes: name -> shape of each array.
    """

    name: str
    shapes: dict[str, Shape]

    def array(self, name: str, dtype: np.dtype) -> np.ndarray:
        """Read an array, in a dtype that must be able to hold it."""


class Part(Contents):
    """The parameters and statistics of a snapshot, whatever net they are for."""

    def __init__(self, file: Any, net: Net):
        self.old = file.integer("format") < 2
        self.file, self.name = file, file.name
        self.groups, self.most_groups = 0, 100 + 10 * len(net.params)
        sections = [s for s in ("params", "statistics") if s == "params" or file.is_group(s)]
        self.places = {
            name: self._path(section, name)
            for section in sections
            for name in self._stored(section)
        }
        self.shapes: dict[str, Shape] = {
            name: file.dataset(*place, kinds="f").shape
            for name, place in sorted(self.places.items())
        }

    def array(self, name: str, dtype: np.dtype) -> np.ndarray:
        """Read an array, in a dtype that must be able to hold it."""
        return self._read(self.places[name], self.shapes[name], dtype)


class Choice:
    """The part of a file that is to be loaded; see `load` for the arguments.

    Attributes:
        everything: whether nothing but the whole will do.
    """

    def __init__(
        self, only: Patterns | None, skip: Patterns | None, rename: Rename | None, strict: bool
    ):
        self.strict = accept(Truth(), strict, "strict", "load", SnapshotError)
        self.only, self.skip = patterns_of("only", only), patterns_of("skip", skip)
        good = rename is None or callable(rename) or isinstance(rename, Mapping)
        if isinstance(rename, Mapping):
            pairs = [*rename.keys(), *rename.values()]
            good = all(isinstance(x, str) and x for x in pairs)
        if not good:
            raise SnapshotError(
                "load: rename must be a dict of names in the file -> names in the net, or a "
                f"function of a name, got {brief(rename)}"
            )
        self.rename = rename
        self.everything = self.strict and only is None and skip is None and rename is None

    def load(self, net: Net, source: Source) -> Report:
        """Put the chosen arrays into the net; on an error or interrupt put the old ones back."""
        own, report = learned(net), self.report(net, source)
        to_device = net.backend.asarray
        values = {
            name: to_device(source.array(there, net.dtype)) for name, there in report.loaded.items()
        }
        before = {name: own[name].data.copy() for name in values}
        try:
            net.passed = False
            for name, array in values.items():
                own[name].data[...] = array
        except BaseException:
            for name, array in before.items():
                own[name].data[...] = array
            raise
        return report

    def report(self, net: Net, source: Source) -> Report:
        """Decide what is loaded, and say why the rest is not.

        Raises:
            SnapshotError: something that should be loaded cannot be.
        """
        own = {name: tuple(x.shape) for name, x in learned(net).items()}
        there = self.renamed(source)
        names = list(dict.fromkeys([*own, *there]))
        chosen = set(names) if self.only is None else matching("only", self.only, names)
        skipped = set() if self.skip is None else matching("skip", self.skip, names)
        report = Report(source.name, {})
        for name in names:
            why = "skipped" if name in skipped else "not among only="
            if name in chosen - skipped:
                if name in own and name in there:
                    shape = source.shapes[there[name]]
                    if shape != own[name]:
                        raise SnapshotError(
                            f"{source.name}: {name!r} has shape {shape} there, and {own[name]} in "
                            f"this net; to load the others, skip it: skip={name!r}"
                        )
                    report.loaded[name] = there[name]
                    continue
                why = "not in the file" if name in own else "not in the net"
                if self.strict:
                    whose = "the net's" if name in own else "the file's"
                    raise SnapshotError(
                        f"{source.name}: {whose} {name!r} is {why}; skip it (skip={name!r}), give "
                        "rename=, or load with strict=False"
                    )
            if name in own:
                report.left[name] = why
            if name in there:
                report.unused[there[name]] = why
        if not report.loaded:
            raise SnapshotError(
                f"{source.name}: there is nothing to load; it has {quoted(source.shapes)}, the net "
                f"{quoted(own)}"
            )
        return report

    def renamed(self, source: Source) -> dict[str, str]:
        """Return the name in the net -> the name in the file."""
        found: dict[str, str] = {}
        used: set[str] = set()
        for name in source.shapes:
            new: Any = name
            if isinstance(self.rename, Mapping):
                for pattern, replacement in self.rename.items():
                    renamed = _renamed(name, pattern, replacement)
                    if renamed is not None:
                        new = renamed
                        used.add(pattern)
                        break
            elif self.rename is not None:
                new = self.rename(name)
                if not isinstance(new, str):
                    raise SnapshotError(
                        f"load: rename must return a name for {name!r}, got {brief(new)}"
                    )
            if new in found:
                raise SnapshotError(
                    f"{source.name}: {found[new]!r} and {name!r} would both become {new!r}"
                )
            found[new] = name
        if isinstance(self.rename, Mapping):
            for pattern in self.rename:
                if pattern not in used:
                    raise SnapshotError(
                        f"load: rename: no name in {source.name} matches {pattern!r}; there are "
                        f"{quoted(source.shapes)}"
                    )
        return found


def _renamed(name: str, pattern: str, replacement: str) -> str | None:
    """Return the new name of a parameter, or None where the pattern does not match it."""
    if pattern.count("*") != replacement.count("*"):
        raise SnapshotError(
            f"load: rename: {pattern!r} and {replacement!r} must have the same number of '*'"
        )
    layer, _, own = name.rpartition("/")
    letters = re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    for text, rest in ((name, ""), (layer, f"/{own}")):
        match = letters.fullmatch(text)
        if match and text:
            parts, groups = replacement.split("*"), [*match.groups(), ""]
            return "".join(p + g for p, g in zip(parts, groups, strict=True)) + rest
    return None


def patterns_of(what: str, given: Any) -> list[str] | None:
    """Return one pattern, or several, as a list."""
    found = [given] if isinstance(given, str) else given
    if found is None:
        return None
    good = isinstance(found, Iterable) and not isinstance(found, Mapping)
    found = list(found) if good else found
    if not good or not all(isinstance(x, str) for x in found):
        raise SnapshotError(
            f"load: {what} must be a name or pattern such as 'conv*/weight', or a list of them, "
            f"got {brief(given)}"
        )
    return found


def matching(what: str, patterns: list[str], names: list[str]) -> set[str]:
    """Return the names that match, by themselves or by their layers.

    Raises:
        SnapshotError: a pattern that none matches.
    """
    found: set[str] = set()
    for pattern in patterns:
        new = matches(pattern, names)
        if not new:
            raise SnapshotError(
                f"load: {what}: {pattern!r} matches no parameter; there are {quoted(names)}"
            )
        found.update(new)
    return found
