"""Breaks that save: all that training needs to continue, and the best parameters so far."""

from __future__ import annotations

import os
import re
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from layerkit.errors import LayerkitError, NetError, SnapshotError, brief
from layerkit.net import Net
from layerkit.saving import states
from layerkit.saving.snapshot import save
from layerkit.saving.states import learned
from layerkit.settings import Count, FilePath, Positive, Whole
from layerkit.settings.names import quoted
from layerkit.system.files import path_of
from layerkit.train.breaks.base import Break
from layerkit.train.breaks.watching import Margin, Mode, Watched, Watching

if TYPE_CHECKING:
    from layerkit.train.trainer import Trainer

RETRY = 20  # seconds until what could not be written is tried again
NAME = re.compile(r"snapshot-(\d{9,})\.h5")

PathLike = Annotated[str | os.PathLike[str], FilePath()]


def snapshots(folder: Path) -> list[tuple[int, Path]]:
    """List the snapshots of a folder with their iterations, the earliest first."""
    try:
        found = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SnapshotError(f"cannot read folder {folder}: {error.strerror or error}") from error
    return sorted((int(match[1]), path) for match, path in found if match)


def last_snapshot(path: Any) -> Path | None:
    """Return the file of a snapshot, or the last one in a folder; None where there is none."""
    path = path_of(path, SnapshotError)
    if path.is_dir():
        found = snapshots(path)
        return found[-1][1] if found else None
    return path if path.exists() else None


class Snapshot(Break):
    """All that training needs to continue, saved into a folder as `snapshot-000001000.h5`.

    `Trainer.resume(folder)` continues from the last.  One more is saved when training ends or is
    interrupted; it gives way to the next.  A snapshot that cannot be written, on a full disk say,
    is a warning, and tried again after 20 seconds; when training ends, it is written to a folder
    for temporary files instead, and an error says where.

    Args:
        folder: the folder, made if it is not there.
        every: iterations from one snapshot to the next, default 1000; None leaves it to `seconds`.
        seconds: time from one snapshot to the next, None by default; beside `every`, whichever
            comes first.
        keep: how many to keep, default 3; older ones are deleted.
        extra: a dict to be stored in each, which `Trainer.resume` returns; see layerkit.save.

    Raises:
        SnapshotError: when training begins: a folder that cannot be made, or that holds snapshots
            of later iterations, as another run left them.

    Source: Mocha's Snapshot.
    """

    place = 100
    everywhere = False

    def __init__(
        self,
        folder: PathLike,
        every: Count | None = 1000,
        seconds: Positive | None = None,
        keep: Count = 3,
        extra: Mapping[str, Any] | None = None,
    ):
        super().__init__(every, seconds)
        if every is None and seconds is None:
            raise NetError("Snapshot: say how often to save, with every= or seconds=")
        if extra is not None and not isinstance(extra, Mapping):
            raise NetError(f"Snapshot: extra must be a dict, got {brief(extra)}")
        self.folder, self.keep, self.extra = Path(folder), keep, extra
        self._saved: int | None = None  # iteration
        self._retry: float | None = None  # when, by time.perf_counter

    def writes(self) -> Path:
        """Return the folder, in which older snapshots are deleted."""
        return self.folder

    def begin(self, trainer: Trainer) -> None:
        """Make the folder; refuse one in which another run has got further."""
        super().begin(trainer)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(
                f"Snapshot: cannot make folder {self.folder}: {error.strerror or error}"
            ) from error
        later = [path.name for number, path in self._all() if number > trainer.iteration]
        if later:
            raise SnapshotError(
                f"Snapshot: {self.folder} holds snapshots later than iteration "
                f"{trainer.iteration}, at which training is to begin ({quoted(later[-3:])}); "
                "continue from the last with trainer.resume(folder), move them away, or give "
                "another folder"
            )

    def _all(self) -> list[tuple[int, Path]]:
        return snapshots(self.folder)

    def due(self, trainer: Trainer) -> bool:
        """Tell whether a snapshot is due, or one that could not be written is to be tried again."""
        again = self._retry is not None and time.perf_counter() > self._retry
        return again or super().due(trainer)

    def take(self, trainer: Trainer) -> None:
        """Save; where that fails, warn, and try again later."""
        try:
            self.save(trainer)
        except (LayerkitError, OSError) as error:
            self.failed(trainer, error)
            self._retry = time.perf_counter() + RETRY
        else:
            self._saved, self._retry = trainer.iteration, None

    def save(self, trainer: Trainer) -> None:
        """Write a snapshot into the folder, and delete those that are not kept."""
        self._write(trainer, self.folder)
        self._prune(trainer.iteration)

    def failed(self, trainer: Trainer, error: Exception) -> None:
        """Say that a snapshot could not be written, and that training continues."""
        warnings.warn(
            f"at iteration {trainer.iteration}: {error}; training continues, and tries again in "
            f"{RETRY} s",
            RuntimeWarning,
            stacklevel=2,
        )

    def end(self, trainer: Trainer) -> None:
        """Save the state in which training ends, in the folder or else anywhere."""
        if self._saved == trainer.iteration:
            return
        try:
            self.save(trainer)
            self._saved = trainer.iteration
        except (LayerkitError, OSError) as error:
            place = self._elsewhere(trainer)
            what = f"it is saved in {place} instead" if place else "nor could it be saved elsewhere"
            raise SnapshotError(f"{error}; {what}") from error

    def _write(self, trainer: Trainer, folder: Path) -> Path:
        extra = {**(self.extra or {}), **trainer.state()}
        path = folder / f"snapshot-{trainer.iteration:09d}.h5"
        save(path, trainer.net, trainer.solver, extra, arrays=trainer.arrays())
        return path

    def _elsewhere(self, trainer: Trainer) -> Path | None:
        try:
            return self._write(trainer, Path(tempfile.mkdtemp(prefix="layerkit-")))
        except (LayerkitError, OSError):
            return None

    def _prune(self, iteration: int) -> None:
        """Delete all but the last few, and those of an end that was none."""
        every = self.every or 1
        regular = [number for number, _ in self._all() if number % every == 0]
        kept = {iteration, *regular[-self.keep :]}
        for number, path in self._all():
            if number not in kept:
                path.unlink(missing_ok=True)


class KeepBest(Watching):
    """The parameters that gave the best value so far, in memory and in a file.

        best = lk.breaks.KeepBest("run/best.h5", "validation/loss")
        lk.Trainer(solver, every=[validate, best]).run(10_000)
        best.restore()  # net has the best parameters; or lk.load("run/best.h5", net)

    Snapshots of training hold them too.

    Args:
        path: the file, written at each improvement; None, the default, keeps them in memory alone.
        of, mode, margin: see EarlyStop.

    Attributes:
        best: the best value so far; None before the first.
        iteration: the iteration that it came from.

    Raises:
        SnapshotError: when training begins: a file that is there already.
        NetError: when training begins: the path is the name of a value, which `of` is for.

    Source: Prechelt, "Early stopping, but when?" (1998).
    """

    memory = (*Watching.memory, "iteration", "kept")
    iteration: Annotated[int, Whole(0, 2**62)]

    def __init__(
        self,
        path: PathLike | None = None,
        of: Watched = None,
        mode: Mode = "min",
        margin: Margin = 0.0,
    ):
        super().__init__(of, mode, margin)
        self.path = None if path is None else Path(path)
        self.iteration = 0
        self.kept: dict[str, int] = {}  # state of the net that the parameters come from
        self._net: Net | None = None  # one with these parameters
        self._trained: Net | None = None
        self._written = True
        self._began = False
        self._retry = 0.0
        self._writes = self.path is not None

    def writes(self) -> Path | None:
        """Return the file, if there is one."""
        return self.path

    def begin(self, trainer: Trainer) -> None:
        """Make a second net; refuse a file that another run has left."""
        super().begin(trainer)
        self._make(trainer.net)
        self._writes = self.path is not None and trainer.leads
        if self.path is None:
            return
        if self.path.as_posix() in (n for one in trainer.breaks for n in one.publishes(trainer)):
            raise NetError(
                f"KeepBest: {str(self.path)!r} is the name of a value, but the first argument is a "
                f"file; to watch the value, say of={self.path.as_posix()!r}"
            )
        if not self._began and self.best is None and self.path.exists():
            raise SnapshotError(
                f"KeepBest: {self.path} is there already, of another run; continue it by "
                "trainer.resume, move it away, or give another path"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(
                f"KeepBest: cannot make folder {self.path.parent}: {error.strerror or error}"
            ) from error
        self._began = True

    def _make(self, net: Net) -> Net:
        if self._net is None or self._trained is not net:
            self._net = net.rebuild(batch_size=1, phase="test", gradients="none")
            self._trained = net
        return self._net

    def due(self, trainer: Trainer) -> bool:
        """Tell whether there is a new value, or a file that could not be written."""
        again = not self._written and time.perf_counter() > self._retry
        return again or super().due(trainer)

    def take(self, trainer: Trainer) -> None:
        """Take the parameters if their value is better."""
        if super().due(trainer) and self.improves(trainer):
            with trainer.net.lock:
                states.copy_values(trainer.net, self._make(trainer.net))
            self.iteration, self.kept = trainer.iteration, trainer.net.state()
            self._written = not self._writes
        try:
            self._write()
        except LayerkitError as error:
            self._retry = time.perf_counter() + RETRY
            warnings.warn(f"{error}; it is tried again in {RETRY} s", RuntimeWarning, stacklevel=2)

    def end(self, trainer: Trainer) -> None:
        """Write the file if it is not written yet."""
        self._write()

    def _write(self) -> None:
        if self._writes and not self._written and self.path and self._net is not None:
            self._net.set_state({**self._net.state(), **self.kept})
            save(self.path, self._net, extra={"value": self.best, "iteration": self.iteration})
            self._written = True

    def restore(self) -> None:
        """Put the best parameters into the net that was trained.

        Raises:
            NetError: there are none yet.
        """
        if self._trained is None or self._net is None or self.best is None:
            raise NetError("KeepBest: there are no best parameters yet; train, with a Validate")
        trained = self._trained
        with trained.lock:
            trained.lock.check_own(trained.arena.data, NetError, "KeepBest.restore")
            best = learned(self._net)
            for name, own in learned(trained).items():
                own.data[...] = best[name].data
            trained.passed = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the best parameters."""
        if self.best is None or self._net is None:
            return {}
        to_host = self._net.backend.to_host
        return {name: to_host(own.data) for name, own in learned(self._net).items()}

    def set_state(self, trainer: Trainer, state: Any, arrays: dict[str, np.ndarray]) -> None:
        """Put back the best parameters, and have the file written again."""
        super().set_state(trainer, state, arrays)
        if not isinstance(self.kept, dict):
            raise SnapshotError(f"KeepBest: the snapshot holds no state of a net, but {self.kept}")
        if self.best is None:
            return
        net = self._make(trainer.net)
        own = learned(net)
        shapes = {name: p.shape for name, p in own.items()}
        if {name: a.shape for name, a in arrays.items()} != shapes:
            raise SnapshotError("KeepBest: the snapshot holds the best parameters of another net")
        for name, p in own.items():
            p.data[...] = net.backend.asarray(arrays[name], net.dtype)
        self._written = self.path is None
