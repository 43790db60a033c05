"""Command lines whose settings may also stand in a TOML file, `--config run.toml`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from layerkit.cli import command
from layerkit.errors import DataError
from layerkit.saving.runfile import is_own, read_toml, write_toml
from layerkit.settings.names import closest

HELP = (
    "TOML file with settings of this command by their long names, such as held_out = 500; those "
    "on the command line count before them"
)


class Configured(command.Parser):
    """A parser that takes what the command line does not say from the file of `--config`.

    Keys of the file are the names of options, with "-" or "_", and of arguments in lower case.
    After parsing, the namespace's `settings` has the values of all of them by name.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.known: dict[str, argparse.Action] = {}
        self.rival: list[tuple[str, ...]] = []
        super().__init__(*args, **kwargs)
        super().add_argument("--config", metavar="FILE", help=HELP)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an argument that a file may set, too."""
        action = super().add_argument(*args, **kwargs)
        self.note(action)
        return action

    def note(self, action: argparse.Action) -> None:
        """Let a file set an argument of a group."""
        if action.dest != "help":
            self.known[action.dest] = action

    def rivals(self, *groups: tuple[str, ...]) -> None:
        """Name settings that exclude each other: one on the command line ends those in a file.

        Args:
            groups: each a setting, followed by those that go with it.
        """
        self.rival += groups

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words, with the settings of a file for defaults.

        Raises:
            DataError: a file that cannot be read, a key that is no setting, or a value that the
                setting does not take.
        """
        words = sys.argv[1:] if args is None else list(args)
        finder = command.Parser(prog=self.prog, usage=self.usage, add_help=False)
        finder.add_argument("--config")
        path = finder.parse_known_args(words)[0].config
        given = {} if path is None else self._read(path)
        for name, value in given.items():
            action = self.known[name]
            action.required = False
            if not action.option_strings:
                action.nargs = "*" if action.nargs in ("*", "+") else "?"
            self.set_defaults(**{name: value})
        found, rest = super().parse_known_args(words, namespace)
        for name, action in self.known.items():
            if action.nargs == "*" and getattr(found, name) == []:
                setattr(found, name, None)
        self._settle(found, given)
        found.settings = {name: getattr(found, name) for name in self.known}
        return found, rest

    def _settle(self, found: argparse.Namespace, given: dict[str, Any]) -> None:
        """Drop settings of a file for whose rivals the command line decides."""
        here = [group for group in self.rival if getattr(found, group[0]) is not None]
        said = [group for group in here if getattr(found, group[0]) != given.get(group[0])]
        for group in here if said else ():
            for name in group if group not in said else ():
                setattr(found, name, None)

    def _read(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in read_toml(path).items():
            name = key.replace("-", "_")
            if name not in self.known:
                raise DataError(f"{path}: unknown key {key!r}; {closest(name, self.known)}")
            if name in found:
                raise DataError(f"{path}: {key!r} is set twice")
            try:
                found[name] = _value(self.known[name], value)
            except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
                raise DataError(f"{path}: {key}: {error}") from error
        return found


def _value(action: argparse.Action, value: Any) -> Any:
    """Return a value of a file as the command line would make it.

    Raises:
        ArgumentTypeError, ValueError, TypeError: the argument does not take it.
    """
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, got {value!r}")
        return value
    if action.nargs == "*" and isinstance(value, str):
        value = [value]
    if action.nargs in ("*", "+"):
        if isinstance(value, dict):
            value = [f"{name}={one}" for name, one in value.items()]
        if not isinstance(value, list) or not value:
            raise ValueError(f"must be a list, or a table where values have names, got {value!r}")
        return [_one(action, item) for item in value]
    return _one(action, value)


def _one(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a number or a text, got {value!r}")
    convert: Any = action.type or str
    try:
        found = convert(str(value))
    except ValueError:
        kind = getattr(convert, "__name__", "")
        raise ValueError(f"invalid {kind} value: {value!r}") from None
    if action.choices is not None and found not in action.choices:
        raise ValueError(f"must be one of {', '.join(map(str, action.choices))}, got {value!r}")
    return found


def settings_place(args: argparse.Namespace, out: Path) -> Path | None:
    """Return the path of the file that repeats a command, `OUT.toml` beside its output.

    Commands ask before their work, too, which may take hours.

    Returns:
        None if the command was given this file by --config: it stays as somebody wrote it.

    Raises:
        DataError: another file of this name is there, which layerkit has not written.
    """
    path = out.with_name(f"{out.name}.toml")
    given = getattr(args, "config", None)
    if given is not None and path.exists() and path.samefile(given):
        return None
    if os.path.lexists(path) and not is_own(path):
        raise DataError(
            f"{path}: there already, and not written by layerkit, which would put the settings of "
            "this command there; move it, or give another --out"
        )
    return path


def write_settings(args: argparse.Namespace, out: Path) -> None:
    """Write the file that repeats a command; see `settings_place`.

    Raises:
        DataError: it cannot be written.
    """
    settings: dict[str, Any] = getattr(args, "settings", {})
    if (path := settings_place(args, out)) is None:
        return
    try:
        write_toml(path, settings)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
