"""Locks: one process at a time works in a folder.

The lock is the operating system's, on a hidden file in the folder, so it ends with the process that
holds it, however that ends: what a killed process leaves behind never stands in anybody's way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from layerkit.errors import BusyError, DataError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lock"
FAR = 2**30  # Windows keeps others from reading the byte that is locked; nothing stands there
TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}  # somebody else has it
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # the file system has none
MOST = 4096  # bytes read of what a lock file says


@contextlib.contextmanager
def lock(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold a folder for this process while the block runs; nobody else who asks can have it.

    A second lock on one folder is refused in another thread of this process too.  On a file system
    without locks a warning says so, and the block runs without.

    Args:
        folder: made if it is not there.
        what: who holds it, for the message that others get, such as "a training run".

    Raises:
        BusyError: somebody holds the folder; the message says who.
        DataError: the folder cannot be made or written in.
    """
    folder = Path(folder)
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(path, folder)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot write to {folder}: {reason}; choose another folder") from error
    try:
        about = {"what": what, "process": os.getpid(), "host": socket.gethostname()}
        about["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a full disk is no reason not to hold the lock
            file.truncate(0)
            file.write(json.dumps(about).encode())
        yield
    finally:
        with file, contextlib.suppress(OSError):
            path.unlink()  # while it is held: see `_take`


def _take(path: Path, folder: Path) -> FileIO:
    """Open and lock the lock file at `path`; closing the file ends the lock.

    An interrupt that loses the file closes it, as nobody else knows it.
    """

    def opener(name: str, _: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.open(name, flags, 0o666)

    while True:
        file = FileIO(os.fspath(path), "r+", opener=opener)
        try:
            _lock_now(file.fileno())
        except OSError as error:
            holder = _holder(file)
            if error.errno in TAKEN:
                file.close()
                raise BusyError(
                    f"{folder} is in use by {holder}; wait until that ends, or choose another "
                    "folder"
                ) from error
            if error.errno not in NO_LOCKS:
                file.close()
                raise
            warnings.warn(
                f"{folder}: its file system has no locks ({error.strerror}); let nobody else work "
                "in this folder",
                stacklevel=4,
            )
            return file
        # Its last holder may have removed the file in the meantime, and a third made another.
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _lock_now(handle: int) -> None:
    if sys.platform == "win32":
        os.lseek(handle, FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: FileIO) -> str:
    """Tell in words who wrote that they hold the lock."""
    try:
        about = json.loads(file.read(MOST) or b"")
        return (
            f"{about['what']} (process {about['process']} on {about['host']}, since"
            f" {about['since']})"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has only just been taken, or is foreign
        return "another process"
