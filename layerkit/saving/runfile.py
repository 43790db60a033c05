"""Settings of a run in a TOML file, which people read and change."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerkit.errors import DataError
from layerkit.system.files import open_regular, write_atomically


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: the file is missing, unreadable or not TOML.
    """
    try:
        with open_regular(Path(path)) as file:
            return tomllib.loads(file.read().decode("utf-8-sig"))  # editors put a mark in front
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise DataError(f"{path}: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not TOML ({' '.join(str(error).split())})") from error


HEAD = "# settings of a run of layerkit, which --config repeats"


def is_own(path: Path) -> bool:
    """Tell whether a file begins as `write_toml` begins one."""
    try:
        with open_regular(path) as file:
            return file.readline(len(HEAD) + 2).strip() == HEAD.encode()
    except OSError:
        return False


def write_toml(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as a TOML file, whole or not at all.

    Args:
        path: the file.
        settings: texts, numbers, truth values, lists of these, and mappings of texts to texts,
            which become tables; those that are None or empty mappings are left out.

    Raises:
        OSError: the file cannot be written.
    """
    present = {k: v for k, v in settings.items() if v is not None and v != {}}
    tables = {k: v for k, v in present.items() if isinstance(v, Mapping)}
    lines = [HEAD, *(f"{k} = {_text(v)}" for k, v in present.items() if k not in tables)]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{_text(str(k))} = {_text(v)}" for k, v in table.items())]
    text = "\n".join(lines) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    # TOML's texts are JSON's, but that it has no halves of pairs, which stand for odd bytes.
    plain = str(value).encode("utf-8", "backslashreplace").decode()
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
