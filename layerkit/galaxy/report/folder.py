"""The folder of a run: made, cleared of earlier results, and what to do when it is full."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from layerkit.errors import DataError, LayerkitError
from layerkit.galaxy.layout import MODEL, RESULTS

WAITING = ".before"  # a folder of earlier results until it holds them all


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder, made if need be and known to be writable before any work is done.

    Raises:
        DataError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileExistsError):
            reason = "there is a file or a broken link of that name, and results need a folder"
        raise DataError(f"cannot write to {folder}: {reason}; choose another --out") from error
    return folder


def set_aside(
    folder: Path, *also: str, model: str = "move", into: Path | None = None
) -> Path | None:
    """Move the results of an earlier run into a folder before-1, before-2, ... beside them.

    Killed on the way, it is finished by the next call, so that what belongs together stays so.

    Args:
        folder: the run's folder.
        also: further files and folders in it to move; results are those in `layout.RESULTS`.
        model: "move" it, or for a run that goes on from it "copy" it, or "leave" it with the best
            parameters so far.
        into: a folder that this function returned, to add to it.

    Returns:
        The folder, or None where there was nothing to move.

    Raises:
        DataError: they cannot be moved.
    """
    waiting = folder / WAITING
    names = (*RESULTS, *also) if model != "leave" else (*RESULTS[2:], *also)
    found = [name for name in names if os.path.lexists(folder / name)]
    if not found and not waiting.exists():
        return None
    try:
        if into is None:
            waiting.mkdir(exist_ok=True)
        target = into or waiting
        for name in found:  # the model first, which the others describe
            _move(folder / name, target / name, copy=model == "copy" and name == MODEL)
        if into is None:
            numbers = (k for k in itertools.count(1) if not (folder / f"before-{k}").exists())
            target = folder / f"before-{next(numbers)}"
            waiting.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder}: its earlier results cannot be set aside ({reason}); choose another --out"
        ) from error
    print(f"earlier results of {folder} are kept in {target}")
    return target


def finish_setting_aside(folder: Path) -> None:
    """Go on with a `set_aside` that was killed, if one was."""
    if (folder / WAITING).exists():
        set_aside(folder, model="copy")  # a model that is still there was to stay


def _move(path: Path, target: Path, copy: bool) -> None:
    """Moves a file or folder, or gives the file a second name, or copies it."""
    if copy:
        if target.exists():  # by a call that was killed
            return
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(path, part)
        except OSError:  # a file system without
            shutil.copy2(path, part)
        os.replace(part, target)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(path, target)


def save_somewhere(write: Callable[[Path], None], error: Exception, folder: Path) -> NoReturn:
    """Write what could not be written into `folder` into another place, and say where it is.

    Args:
        write: writes into the folder it is given.
        error: why it could not.
        folder: where it belongs.

    Raises:
        DataError: always; it names `error`, the place and what to do.
    """
    reason = " ".join(str(error).split())
    for place in (tempfile.gettempdir(), Path.home(), Path.cwd()):
        saved = None
        try:
            saved = Path(tempfile.mkdtemp(prefix="layerkit-", dir=place))
            write(saved)
        except (OSError, LayerkitError):
            if saved is not None:
                shutil.rmtree(saved, ignore_errors=True)
            continue
        raise DataError(
            f"{reason}; all that training has done is saved in {saved} instead: make room, move "
            f"the files from there into {folder}, and go on with --resume"
        ) from error
    raise DataError(f"{reason}; nor could it be saved anywhere else") from error
