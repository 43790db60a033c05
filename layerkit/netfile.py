"""Net definition files: Python files with a function that returns a list of layers."""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import inspect
import io
import os
import sys
import threading
import tokenize
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from layerkit.errors import LayerkitError, NetError, NetFileError, brief
from layerkit.layer import Layer
from layerkit.layers.sources.data import Data
from layerkit.layers.sources.input import Input
from layerkit.settings import fitting
from layerkit.settings.names import quoted
from layerkit.system.files import path_of
from layerkit.wiring.wires import Layers, flattened

# Net files that come with layerkit: in an installed package, or in a clone.
SHIPPED = [folder / "nets" for folder in Path(__file__).resolve().parents[:2]]
LONGEST = 400  # characters shown of an error that the file raised

_importing = threading.RLock()  # all threads share sys.path and sys.modules


@fitting(NetFileError)
def load_net(path: str | os.PathLike[str], /, **settings: Any) -> list[Layer]:
    """Return the list of layers that a net definition file describes, flattened.

    The file defines a function named like itself, `galaxy_gdae` in `galaxy_gdae.py`, or one public
    function of any name.  It takes settings as keyword arguments and returns a list of layers,
    in which lists of layers may stand for their layers.
    The file may import modules that lie beside it.

    Args:
        path: the file, or the name of a net that comes with layerkit, such as "galaxy_gdae".
        settings: arguments for the function; those left out take the file's own defaults.

    Raises:
        NetFileError: a file that is missing, does not run, or lacks the function; a setting that
            the function does not have; a result that is not a list of layers.
    """
    path = find_net(path)
    return layers_of(read_net_file(path), path, settings)


def find_net(name: str | os.PathLike[str]) -> Path:
    """Return the path of a net file, which may be called by its name where it comes with layerkit.

    Args:
        name: a path, or a name without suffix such as "galaxy_gdae".

    Raises:
        NetFileError: neither; it says which names there are.
    """
    path = path_of(name, NetFileError)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    for folder in SHIPPED:
        if (shipped := folder / f"{path}.py").is_file():
            return shipped
    names = sorted({file.stem for folder in SHIPPED for file in folder.glob("*.py")})
    raise NetFileError(
        f"{path}: no such file, and no net that comes with layerkit; those are {quoted(names)}"
    )


def read_net_file(path: str | os.PathLike[str]) -> str:
    """Return the text of a net definition file, in UTF-8 or the encoding that it declares.

    Raises:
        NetFileError: the file is missing, no regular file, or no text.
    """
    path = path_of(path, NetFileError)
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise NetFileError(f"cannot read net file {path}: {kind}")
        content = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        return io.TextIOWrapper(io.BytesIO(content), encoding).read()
    except (OSError, ValueError, SyntaxError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise NetFileError(f"cannot read net file {path}: {reason}") from error


def layers_of(text: str, path: Path, settings: dict[str, Any]) -> list[Layer]:
    """Return the list of layers that the text of a net definition file describes.

    Args:
        text: what `read_net_file` returned, now or earlier: the file need not exist any more.
        path: path of the file, now or then: for its name, its neighbours and messages.
        settings: as for `load_net`.

    Raises:
        NetFileError: see `load_net`.
    """
    with _module(path) as module:
        function = _function(text, path, module, settings)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            signature = inspect.Signature()
        try:
            signature.bind(**settings)
        except TypeError as error:
            name = getattr(function, "__name__", path.stem)
            raise NetFileError(f"{path}: {name}{signature}: {error}") from error
        layers = _run(path, lambda: function(**settings))
        if inspect.iscoroutine(layers):
            layers.close()  # or Python warns that nobody awaited it
    name = getattr(function, "__name__", path.stem)
    given = layers
    layers = _run(path, lambda: flattened(given)) if isinstance(given, list) else given
    good = isinstance(layers, list) and all(isinstance(x, Layer) for x in layers)
    if name != path.stem and not (good and layers):  # the function was a guess
        raise NetFileError(
            f"{path} defines no function {path.stem}(), and {name}() returns no layers; a net file "
            "has one function that does, or one named like itself"
        )
    if not good:
        raise NetFileError(f"{path}: {name}() must return a list of layers, got {brief(given)}")
    return layers


@fitting(NetFileError)
def net_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a net definition file and their defaults, in its function's order.

    Args:
        path: see `load_net`.

    Raises:
        NetFileError: a file that is missing, does not run, or lacks the function.
    """
    path = find_net(path)
    return settings_of(read_net_file(path), path)


def settings_of(text: str, path: Path, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings and defaults of the text of a net definition file.

    Args:
        text, path: see `layers_of`.
        given: settings to call its function with, which tell it from other functions.
    """
    with _module(path) as module:
        function = _function(text, path, module, given or {})
        parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters}


def literal(text: str) -> Any:
    """Read a setting as it is written in a command line: a Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


@contextlib.contextmanager
def _module(path: Path) -> Iterator[ModuleType]:
    """Provide an empty module named like the file, known to Python while the block runs.

    Data classes look their module up by its name.  Modules beside the file can be imported, and
    are forgotten afterwards, so that another file gets its own neighbours.
    """
    folder = os.path.abspath(path.parent)
    with _importing:
        modules, places = set(sys.modules), list(sys.path)
        taken = path.stem in modules or path.stem in sys.stdlib_module_names
        module = ModuleType(f"{path.stem} (net file)" if taken else path.stem)
        module.__file__ = str(path)
        compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.modules[module.__name__] = module
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield module
        finally:
            sys.path[:] = places
            sys.dont_write_bytecode = compiled
            for name in set(sys.modules) - modules:
                if name == module.__name__ or _lies_in(sys.modules[name], folder):
                    del sys.modules[name]


def _lies_in(module: ModuleType, folder: str) -> bool:
    """Tell whether a module, or the package it is in, lies beside a net file in `folder`."""
    package = sys.modules.get(module.__name__.partition(".")[0], module)
    file = getattr(package, "__file__", None)
    places = [os.path.dirname(file)] if file else list(getattr(package, "__path__", []))
    return any(p == folder or os.path.dirname(p) == folder for p in places)


def _function(
    text: str, path: Path, module: ModuleType, settings: dict[str, Any]
) -> Callable[..., list[Layer]]:
    """Return the function named like the file, or else the only one that could be meant."""
    scope = module.__dict__
    _run(path, lambda: exec(compile(text, str(path), "exec", dont_inherit=True), scope))
    function = scope.get(path.stem)
    if callable(function):
        return function
    own = {
        name: value
        for name, value in scope.items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }
    # Helpers that need an argument that no setting gives are not meant.
    able = {name: value for name, value in own.items() if _takes(value, settings)}
    for found in (own, able):
        if len(found) == 1:
            return next(iter(found.values()))
    several = f", but {', '.join(f'{name}()' for name in own)}" if own else ""
    raise NetFileError(
        f"{path} defines no function {path.stem}(){several}; a net file has one public function, "
        "or one named like itself"
    )


def _takes(function: Callable[..., Any], settings: dict[str, Any]) -> bool:
    try:
        inspect.signature(function).bind(**settings)
    except (TypeError, ValueError):
        return False
    return True


def _run(path: Path, action: Callable[[], Any]) -> Any:
    """Run code from a net file; its errors become one line with the file and line number."""
    try:
        return action()
    except KeyboardInterrupt:
        raise
    except LayerkitError as error:
        raise NetFileError(f"{path}: {error}") from error
    except BaseException as error:  # sys.exit() too: the file must only describe a net
        frames = traceback.extract_tb(error.__traceback__)
        numbers = [f.lineno for f in frames if f.filename == str(path)]
        try:
            reason = str(error)
        except Exception:  # from the error's own __str__
            reason = ""
        if isinstance(error, SyntaxError) and error.filename == str(path):
            numbers, reason = [error.lineno], error.msg
        where = f"{path}, line {numbers[-1]}" if numbers and numbers[-1] else str(path)
        kind = type(error).__name__
        if isinstance(error, SystemExit):
            kind = "it ended the program, SystemExit"
        reason = " ".join(reason.split())
        reason = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} ..."
        raise NetFileError(f"{where}: {kind}: {reason}".rstrip(": ")) from error


@fitting(NetError)
def with_data(layers: Layers, source: Data) -> list[Layer]:
    """Return the list with Input layers replaced by a data layer; lists inside it are flattened.

    Every top of `source` takes the place, the shape and the `integers` of the Input layer with that
    top:
    `with_data(layers, L.MemoryData("x", data=images))`.

    Raises:
        NetError: a top of the data layer that no Input layer has.
    """
    if isinstance(layers, Layer | str) or not isinstance(layers, Iterable):
        raise NetError(
            f"with_data: expected a list of layers, such as net.descriptions, got {brief(layers)}"
        )
    if not isinstance(source, Layer) or not source.is_source:
        raise NetError(
            "with_data: expected a data layer, such as MemoryData('x', data=images), got "
            f"{brief(source)}"
        )
    layers = flattened(layers)
    inputs = {x.tops[0]: x for x in layers if isinstance(x, Input)}
    for top in source.tops:
        if top not in inputs:
            raise NetError(
                f"layer {source.name!r} ({type(source).__name__}): its top {top!r} replaces no "
                f"Input layer; the net has {', '.join(map(repr, inputs)) or 'none'}"
            )
    source = copy.copy(source)
    source.shapes = [inputs[top].shape for top in source.tops]
    source.integers = [t for t in source.tops if inputs[t].integers or t in source.integers]
    replaced = [inputs[top] for top in source.tops]
    return [source, *(x for x in layers if x not in replaced)]
