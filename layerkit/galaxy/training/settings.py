"""The settings of a training run: their defaults, and the values they take."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from layerkit.errors import DataError, LayerkitError
from layerkit.galaxy.images.crop.units import UNITS
from layerkit.netfile import find_net, literal
from layerkit.settings import (
    LARGEST,
    Choice,
    Count,
    FilePath,
    Flag,
    NotNegative,
    Positive,
    Rule,
    Whole,
    accept,
    rules_of,
)

OWNER = "galaxy.train"  # in messages
FOLDER = "out/galaxy"  # for results
PAPERS_NET = "galaxy_gdae"
EPOCHS, LEAST_ITERATIONS = 100, 2500  # unless the epochs or iterations are set
HELD_OUT = 1000  # as in the paper; a fifth of the galaxies where there are few
TINY = 64  # pictures and iterations of a tiny run
AUGMENTS, KEEPS, BACKENDS = ("dihedral", "none"), ("best", "last"), ("auto", "numpy", "cupy")
MOST_PASSES = 1_000_000  # over the held-out galaxies: more would not end in anybody's lifetime


class Place(FilePath):
    """The path of a file or folder."""

    expected = "a path: text, bytes or a path object, not empty, without NUL"

    def accept(self, value: Any) -> Any:
        """Return an absolute path as text, so that a run can be resumed from any folder."""
        return os.path.abspath(super().accept(value))


class NetPlace(Place):
    """The path of a net definition file, or the name of one that comes with layerkit."""

    def accept(self, value: Any) -> Any:
        """Return an absolute path as text."""
        return os.path.abspath(find_net(FilePath().accept(value)))


class CountOrPlace(Rule):
    """A number of galaxies, at least 1, or a path."""

    expected = "a whole number, at least 1, or a path"

    def accept(self, value: Any) -> int | str:
        """Return an int, or an absolute path as text."""
        if isinstance(value, str | bytes | os.PathLike):
            return Place().accept(value)
        return Whole(least=1).accept(value)


class Extension(Rule):
    """The number or the name of a FITS extension."""

    expected = "a number from 0 on, or a name"

    def accept(self, value: Any) -> int | str:
        """Return an int or text."""
        if isinstance(value, str):
            if not value.strip():
                raise ValueError
            return value
        return Whole().accept(value)


class NetSettings(Rule):
    """Settings of a net file by name: numbers, text, and what else Python has literals for."""

    expected = "a dict of names and values, such as {'latent': 16}"

    def accept(self, value: Any) -> dict[str, str]:
        """Return the values as text, from which `literal` makes them again."""
        if not isinstance(value, Mapping):
            raise ValueError
        if not all(isinstance(name, str) and name.isidentifier() for name in value):
            raise ValueError
        return {name: self._text(name, one) for name, one in value.items()}

    def _text(self, name: str, value: Any) -> str:
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str) and literal(value) == value:
            return value
        text = repr(value)
        try:
            if type(found := literal(text)) is not type(value) or found != value:
                raise ValueError
        except ValueError:  # also from an array that is compared
            raise ValueError(
                f"{self.expected}, with numbers, text and tuples or lists of them for values, "
                f"which {name!r} has not"
            ) from None
        return text


@dataclass
class Settings:
    """Settings of a training run, as `galaxy.train` documents them.

    Attributes:
        set: the settings of the net file as text, from which `net_values` makes values.
        command: the command or the call that began the run, and those that resumed it.
        resume: whether the run continues from a snapshot.
    """

    data: Annotated[str, Place()] | None = None
    held_out: Annotated[int | str, CountOrPlace()] | None = None
    hdu: Annotated[int | str, Extension()] | None = None
    net: Annotated[str, NetPlace()] = PAPERS_NET
    epochs: Count | None = None
    iterations: Count | None = None
    set: Annotated[dict[str, str], NetSettings()] = field(default_factory=dict)
    batch: Count = 64
    shards: Annotated[int, Whole(1, 2**20)] | None = None
    rate: Positive = 1e-3
    final_rate: NotNegative | None = None
    warm_up: Annotated[int, Whole()] = 0
    clip: Positive | None = None
    centre: Flag = False
    kl_warm_up: Annotated[int, Whole()] = 0
    samples: Count = 1
    augment: Annotated[str, Choice(*AUGMENTS)] = "dihedral"
    units: Annotated[str, Choice(*UNITS)] = "stretched"
    keep: Annotated[str, Choice(*KEEPS)] = "last"
    refine: Annotated[int, Whole(0, MOST_PASSES)] | None = None
    importance_samples: Annotated[int, Whole(1, MOST_PASSES)] | None = None
    backend: Annotated[str, Choice(*BACKENDS)] = "auto"
    seed: Annotated[int, Whole(0, 2**63 - 1)] = 0
    tiny: Flag = False
    command: str = ""
    resume: bool = False

    def net_values(self) -> dict[str, Any]:
        """Return the settings that the net file is given."""
        return {name: literal(text) for name, text in self.set.items()}

    def kept(self) -> dict[str, Any]:
        """Return the settings that a snapshot keeps."""
        return {name: vars(self)[name] for name in (*RULES, "command")}

    def trained_with(self) -> dict[str, Any]:
        """Return the settings that a step of training goes by."""
        return {name: vars(self)[name] for name in TRAINING}

    @property
    def end_rate(self) -> float:
        """The rate in the last step."""
        return 0.01 * self.rate if self.final_rate is None else self.final_rate

    @property
    def refine_steps(self) -> int:
        """The number of gradient steps that refine a posterior in the evaluation."""
        return (10 if self.tiny else 100) if self.refine is None else self.refine

    @property
    def importance(self) -> int:
        """The number of samples in the importance weighted bound."""
        return self.importance_samples or (100 if self.tiny else 1000)

    def steps(self, galaxies: int) -> int:
        """Return the number of steps of a run with so many galaxies to train on."""
        return self.iterations or max(
            math.ceil((self.epochs or EPOCHS) * galaxies / (self.batch * (self.shards or 1))),
            1 if self.epochs else TINY if self.tiny else LEAST_ITERATIONS,
        )


# Settings that training goes by; a run that is resumed may change them on the way.
TRAINING = (
    "net", "set", "batch", "shards", "samples", "augment", "rate", "final_rate", "warm_up", "clip",
    "centre", "kl_warm_up", "keep",
)  # fmt: skip
RULES = rules_of(Settings, globals())


def check_settings(
    given: Mapping[str, Any], error: type[LayerkitError] = DataError
) -> dict[str, Any]:
    """Return settings in plain form.

    Args:
        given: by name; those that are None are left out.
        error: the kind of error to raise.

    Raises:
        LayerkitError: a value that a setting does not take; the message names the setting.
    """
    return {
        name: accept(RULES[name], value, name, OWNER, error)
        for name, value in given.items()
        if value is not None
    }


def settings_of(
    given: Mapping[str, Any], saved: Mapping[str, Any], command: str, resume: bool
) -> Settings:
    """Return those given, or else those that the resumed run had, or else the defaults.

    Args:
        given: in plain form.
        saved: of the resumed run; empty for a new one.
        command: the command or call that gave them.
        resume: whether a run is resumed.

    Raises:
        DataError: more rows in a step than a net can have.
    """
    # A resumed run names the command that began it, and those that continued with other settings.
    if saved:
        command = f"{saved['command']} && {command}" if given else saved["command"]
    default = {"net": RULES["net"].accept(PAPERS_NET)} if "net" not in {**saved, **given} else {}
    settings = Settings(**{**default, **saved, **given, "command": command, "resume": resume})
    settings.set = {**saved.get("set", {}), **given.get("set", {})}
    for length, other in (("epochs", "iterations"), ("iterations", "epochs")):
        if length in given:
            setattr(settings, other, None)
    if (rows := settings.batch * settings.samples) > LARGEST:
        raise DataError(
            f"--batch {settings.batch} and --samples {settings.samples} make {rows} rows in a "
            f"step, and a net has at most {LARGEST}; lower one of them"
        )
    return settings
