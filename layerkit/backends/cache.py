"""Compiled kernels on disk: files that are either whole and up to date or as good as not there.

Numba finds the folder and says what belongs into a file.  Numba's own files are found through an
index, and a program that is killed while it writes, or a full disk, can leave an index that points
to nothing, or to code made from another source.  Here a file is named after all that its code
depends on, written beside its place and renamed, and begins with the SHA-256 of the rest.
"""
# mypy: ignore-errors

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

from numba.core.serialize import dumps

DIGEST = hashlib.sha256().digest_size


class CacheFile:
    """The code of one function, for each type of its arguments: what Numba's class of files does.

    Args:
        folder: where files are.
        base: with which their names begin.
        stamp: of the sources from which the code is made.
    """

    def __init__(self, folder: str, base: str, stamp: object):
        self.folder, self.base = Path(folder), base
        self.stamp = hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]

    def _path(self, key: object) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        return self.folder / f"{self.base}.{self.stamp}.{name}.nbc"

    def load(self, key: object) -> Any:
        """What was saved for these types, or None where there is nothing, or not all of it."""
        try:
            content = self._path(key).read_bytes()
            digest, rest = content[:DIGEST], content[DIGEST:]
            return pickle.loads(rest) if hashlib.sha256(rest).digest() == digest else None
        except Exception:  # a folder in its place, say: whatever it is, compiling is the cure
            return None

    def save(self, key: object, data: Any) -> None:
        """Writes the code, and removes what was made from other sources."""
        rest, path = dumps(data), self._path(key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        try:
            temporary.write_bytes(hashlib.sha256(rest).digest() + rest)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in self.folder.glob(f"{self.base}.*.nbc"):
            if not old.name.startswith(f"{self.base}.{self.stamp}."):
                with contextlib.suppress(OSError):
                    old.unlink()

    def flush(self) -> None:
        """Removes everything of this function."""
        for path in self.folder.glob(f"{self.base}.*.nbc"):
            path.unlink(missing_ok=True)


def keep_on_disk(compiled: Any, source: str, stamp: object) -> None:
    """Has Numba keep a function's code on disk, where there is a place; where not, says so once.

    Args:
        compiled: Numba's function.
        source: the file it is from.
        stamp: of all files from which its code is made.
    """
    try:
        compiled.enable_caching()
    except RuntimeError:  # what Numba raises where no folder can be written
        not_kept("neither the package's folder nor the user's cache folder can be written")
        return
    cache = compiled._cache
    if not _is_trusted(cache.cache_path, source):
        cache.disable()
        not_kept(f"{cache.cache_path} belongs to another user")
        return
    cache._cache_file = CacheFile(cache.cache_path, cache._impl.filename_base, stamp)
    save = cache.save_overload

    def carefully(signature: Any, data: Any) -> None:
        try:
            save(signature, data)
        except OSError as error:
            not_kept(f"{cache.cache_path}: {error.strerror or error}")

    cache.save_overload = carefully


def _is_trusted(folder: str, source: str) -> bool:
    """Whether who can write there could run code of their own here anyway."""
    if not hasattr(os, "getuid"):
        return True
    return os.stat(folder).st_uid in (0, os.getuid(), os.stat(source).st_uid)


_said: list[str] = []  # why code could not be kept, once that has been said


def not_kept(reason: str) -> None:
    """Warns, once in a process, that kernels are compiled at every start."""
    if not _said:
        _said.append(reason)
        warnings.warn(
            f"compiled kernels are not kept on disk ({reason}), so that every start compiles them "
            "anew, for up to half a minute; set NUMBA_CACHE_DIR to a folder of yours",
            RuntimeWarning, stacklevel=2,
        )
