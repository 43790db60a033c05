"""The folder of a run: making it, setting earlier results aside, saving when it is full."""

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
from layerkit.system.files import path_of

WAITING = ".before"  # a folder of earlier results until it holds them all


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Make a run's folder if it is missing, and check that it can be written to.

    Raises:
        DataError: it cannot be made or written to.
    """
    folder = path_of(path, DataError)
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

    If the process is killed midway, the next call finishes the move, so that the results of one
    run stay together.

    Args:
        folder: the run's folder.
        also: names in it of further files and folders to move, beside those in `layout.RESULTS`.
        model: "move", the default; "copy", for a run that resumes the model; or "leave", to keep
            the model, the best parameters so far and the settings in place.
        into: a folder that this function returned earlier, to add to; None, the default, for a new
            one.

    Returns:
        The folder with the earlier results, or None if there were none.

    Raises:
        DataError: the results cannot be moved.
    """
    folder = path_of(folder, DataError)
    waiting = folder / WAITING
    names = (*RESULTS, *also) if model != "leave" else (*RESULTS[3:], *also)
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
    """Finish a `set_aside` that was killed midway, if there was one."""
    if (folder / WAITING).exists():
        set_aside(folder, model="copy")  # a model that is still there may have been meant to stay


def _move(path: Path, target: Path, copy: bool) -> None:
    """Move a file or folder; to copy a file, link it, or copy it if links are not supported."""
    if copy:
        if target.exists():  # made by a call that was killed
            return
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(path, part)
        except OSError:  # a file system without links
            shutil.copy2(path, part)
        os.replace(part, target)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(path, target)


def save_somewhere(write: Callable[[Path], None], error: Exception, folder: Path) -> NoReturn:
    """Save into another folder after writing to `folder` failed, and report its place.

    Args:
        write: function that writes into the folder it is given.
        error: the reason of the failure.
        folder: the folder that the files belong into.

    Raises:
        DataError: always; it states the reason, the place of the files and what to do.
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
            f"the files from there into {folder}, and continue with --resume"
        ) from error
    raise DataError(f"{reason}; nor could it be saved anywhere else") from error
