"""Files: paths as callers give them, and writing that leaves a whole file or none."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from layerkit.errors import LayerkitError, brief

CLIPPED = 100  # bytes of a name that a temporary file's repeats: names have at most 255


Errors = Callable[[str], LayerkitError]  # makes the error to be raised of its message


def path_of(path: Any, error: Errors) -> Path:
    """Return `path`, a str, bytes or path-like object, as a Path.

    Raises:
        error: it is something else, empty, or holds a null byte, which no file system allows.
    """
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise error(f"expected the path of a file, got {brief(path)}") from None
    if not name or "\0" in name:
        what = "a null byte in it" if name else "an empty one"
        raise error(f"expected the path of a file, got {what}: {brief(name)}")
    return Path(name)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a folder, FIFO or device is refused, never waited for.

    Raises:
        OSError: it is not there, not regular, or cannot be read.
    """
    # Opening a FIFO waits for a writer, unless told not to.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    # The file object alone has the handle, so an interrupt cannot have it closed twice.
    file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, flush that to disk, and rename it.

    The file is thus always the old one or the new one, also where several threads or processes
    write it.  If `path` is a symbolic link, the file that it points to is replaced.  Temporary
    files for `path` of this computer's processes that are no more, as after kill -9, are removed.

    Raises:
        OSError: the file cannot be written; nothing has changed, and nothing is left behind.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    temporary = temporary_beside(path)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the new name, too, is to survive a loss of power
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary_beside(path: Path) -> Path:
    """Return the path of a temporary file or folder beside `path` that nobody else has or gets.

    Those for `path` of this computer's processes that are no more, as after kill -9, are removed.
    """
    host = re.sub(r"\W", "_", socket.gethostname())
    start = f".{os.fsdecode(os.fsencode(path.name)[:CLIPPED])}.{host[:CLIPPED]}-"
    for left in path.parent.glob(f"{glob.escape(start)}*-*.part"):
        owner = left.name[len(start) :].split("-")[0]
        if owner.isdigit() and not _runs(int(owner)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}-{secrets.token_hex(8)}.part")


def _runs(process: int) -> bool:
    """Say whether there is a process of this number."""
    if os.name != "posix":  # elsewhere there is no harmless signal to ask with
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
