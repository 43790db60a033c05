"""Net definition files: Python files with a function that returns a list of layers."""

from __future__ import annotations

import copy
import inspect
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from layerkit.errors import LayerkitError, NetError, NetFileError
from layerkit.layer import Layer
from layerkit.layers.data import Data
from layerkit.layers.input import Input


def load_net(path: str | os.PathLike[str], **settings: Any) -> list[Layer]:
    """The list of layers that a net definition file describes.

    The file defines a function named like itself, `galaxy_gdae` in `galaxy_gdae.py`, which takes
    settings as keyword arguments and returns a list of layers.

    Args:
        path: the file.
        settings: arguments for the function; those left out take the file's own defaults.

    Raises:
        NetFileError: a file that is missing, does not run, or lacks the function; a setting that
            the function does not have; a result that is not a list of layers.
    """
    path = Path(path)
    function = _function(path)
    signature = inspect.signature(function)
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise NetFileError(f"{path}: {path.stem}{signature}: {error}") from error
    layers = _run(path, lambda: function(**settings))
    if not isinstance(layers, list) or not all(isinstance(x, Layer) for x in layers):
        raise NetFileError(f"{path}: {path.stem}() must return a list of layers, got {layers!r}")
    return layers


def net_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a net definition file and their defaults, in the order of its function."""
    parameters = inspect.signature(_function(Path(path))).parameters.values()
    return {p.name: p.default for p in parameters}


def _function(path: Path) -> Callable[..., list[Layer]]:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NetFileError(f"cannot read net file {path}: {error}") from error
    scope: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    _run(path, lambda: exec(compile(source, str(path), "exec", dont_inherit=True), scope))
    function = scope.get(path.stem)
    if not callable(function):
        raise NetFileError(
            f"{path} defines no function {path.stem}(); a net file has one named like itself"
        )
    return function


def _run(path: Path, action: Callable[[], Any]) -> Any:
    """Runs code from a net file; its errors come back as one line with the file and line."""
    try:
        return action()
    except LayerkitError as error:
        raise NetFileError(f"{path}: {error}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        numbers = [f.lineno for f in frames if f.filename == str(path)]
        reason = str(error)
        if isinstance(error, SyntaxError) and error.filename == str(path):
            numbers, reason = [error.lineno], error.msg
        where = f"{path}, line {numbers[-1]}" if numbers else str(path)
        reason = " ".join(reason.split())
        raise NetFileError(f"{where}: {type(error).__name__}: {reason}") from error


def with_data(layers: Sequence[Layer], source: Data) -> list[Layer]:
    """The same list with Input layers replaced by a data layer.

    Every top of `source` takes the place, and the shape, of the Input layer with that top:
    `with_data(layers, L.MemoryData("x", data=images))`.

    Raises:
        NetError: a top of the data layer that no Input layer has.
    """
    inputs = {x.tops[0]: x for x in layers if isinstance(x, Input)}
    for top in source.tops:
        if top not in inputs:
            raise NetError(
                f"layer {source.name!r} ({type(source).__name__}): its top {top!r} replaces no "
                f"Input layer; the net has {', '.join(map(repr, inputs)) or 'none'}"
            )
    source = copy.copy(source)
    source.shapes = [inputs[top].shape for top in source.tops]
    replaced = [inputs[top] for top in source.tops]
    return [source, *(x for x in layers if x not in replaced)]
