"""The CUDA sources in `kernels`, compiled by CuPy when one of their kernels is first launched.

A source names its headers by `#include`, as for any compiler.  Their text is put in its place here,
since CuPy keeps compiled code under a hash of the text that it is given, and would not see that a
header has changed.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent / "kernels"
SOURCES = {path.stem: path for path in FOLDER.rglob("*.cu")}
INCLUDE = re.compile(r'^#include "(.+)"\n', re.MULTILINE)
NUMBERS = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "uint16": "unsigned short",
    "int16": "short",
    "uint32": "unsigned int",
    "int32": "int",
    "uint64": "unsigned long long",
    "int64": "long long",
    "float32": "float",
    "float64": "double",
}  # what arrays hold -> what C++ calls it


@functools.cache
def text(name: str) -> str:
    """Return a source with its headers, each once.

    Args:
        name: of a file in `kernels` or one of its rooms, without ".cu".
    """
    seen: set[Path] = set()

    def expand(path: Path) -> str:
        seen.add(path)

        def included(match: re.Match[str]) -> str:
            inner = (path.parent / match[1]).resolve()
            return "" if inner in seen else expand(inner)

        code = path.read_text(encoding="utf-8").replace("#pragma once\n", "")
        return INCLUDE.sub(included, code)

    return expand(SOURCES[name])


def options(dtype: np.dtype, defines: dict[str, Any]) -> tuple[str, ...]:
    """Return the compiler's options for nets of this dtype."""
    values = {"REAL": NUMBERS[dtype.name], **defines}
    return "-std=c++17", *(f"-D{name}={value}" for name, value in values.items())


@functools.cache
def module(xp: Any, name: str, dtype: np.dtype, defines: tuple[tuple[str, Any], ...]) -> Any:
    """Return CuPy's module of a source.

    Args:
        xp: cupy.
        name: of the source.
        dtype: of the net.
        defines: macros, as (name, value).
    """
    return xp.RawModule(code=text(name), options=options(dtype, dict(defines)))


@functools.cache
def kernel(
    xp: Any, name: str, function: str, dtype: np.dtype, defines: tuple[tuple[str, Any], ...]
) -> Any:
    """Return one of its kernels; see `module`."""
    return module(xp, name, dtype, defines).get_function(function)
