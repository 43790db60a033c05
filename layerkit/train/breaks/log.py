"""Log: what training says, in a file that other programs read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from layerkit.errors import DataError, SnapshotError, brief
from layerkit.settings import Count, FilePath, Whole
from layerkit.settings.names import quoted
from layerkit.solvers import rates
from layerkit.train.breaks.base import Break, finite

if TYPE_CHECKING:
    from layerkit.train.trainer import Trainer

OWN = ("iteration", "rate", "objective")
Row = dict[str, float | None]


class Log(Break):
    """A row every few iterations: means over the steps since the last row, and published values.

        lk.breaks.Log("run/log.csv", every=10)

    A row has `iteration`, the `rate` of the last step, the `objective`, a column `train/NAME` for
    each loss and metric layer, and what breaks have published since the last row, such as
    `validation/loss`.  Numbers have all their digits.  A row that cannot be written, on a full disk
    say, is a warning, and written with the next.

    Args:
        path: "*.jsonl" for a JSON object a line, "*.csv" for a table, or a folder, a path without
            a suffix, for TensorBoard, which needs the package tensorboardX.
        every: iterations from one row to the next, default 10.

    Raises:
        DataError: a path of another kind, or no tensorboardX; when training begins: a file that is
            there already, as of another run.
        SnapshotError: when training is resumed: the file is not the one that the snapshot knew.

    Source: Mocha's TrainingSummary.
    """

    place = 60
    everywhere = False
    memory = ("sums", "steps", "last", "columns", "size", "checksum", "pending")
    steps: Annotated[int, Whole(0, 2**62)]
    last: Annotated[int, Whole(0, 2**62)]
    size: Annotated[int, Whole(0, 2**62)]
    checksum: Annotated[int, Whole(0, 2**32 - 1)]

    def __init__(self, path: Annotated[str | os.PathLike[str], FilePath()], every: Count = 10):
        super().__init__(every)
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        kinds: dict[str, Callable[[Log], _Writer]] = {
            ".jsonl": _Lines,
            ".csv": _Table,
            "": _TensorBoard,
        }
        if suffix not in kinds:
            raise DataError(
                f"Log: {self.path}: the suffix must be .jsonl or .csv, or none for a folder of "
                f"TensorBoard, got {suffix!r}"
            )
        self.sums: list[float] = []  # of the objective, and of each loss and metric
        self.steps, self.last = 0, 0  # so many steps in the sums; iteration of the last row
        self.columns: list[str] = []
        self.size, self.checksum = 0, 0  # of the file
        self.pending = ""  # rows that could not be written
        self._rate = 0.0
        self._began = False
        self._writer = kinds[suffix](self)

    def set_state(self, trainer: Trainer, state: Any, arrays: dict[str, np.ndarray]) -> None:
        """Put back what `state` returned."""
        super().set_state(trainer, state, arrays)
        sums, columns = self.sums, self.columns
        good = isinstance(sums, list) and all(isinstance(x, float) for x in sums)
        good = good and isinstance(columns, list) and all(isinstance(x, str) for x in columns)
        if not (good and isinstance(self.pending, str) and len(sums) <= max(len(columns) - 2, 0)):
            raise SnapshotError(f"Log: the snapshot holds no state of a log, but {brief(state)}")

    def writes(self) -> Path:
        """Return the path."""
        return self.path

    def begin(self, trainer: Trainer) -> None:
        """Open the file, and continue at the row that the snapshot was made after."""
        super().begin(trainer)
        names = [layer.name for layer in trainer.net.reported]
        published = [name for one in trainer.breaks for name in one.publishes(trainer)]
        columns = [*OWN, *(f"train/{name}" for name in names), *dict.fromkeys(published)]
        if self.columns and self.columns != columns:
            raise SnapshotError(
                f"Log: {self.path} was begun with columns {quoted(self.columns)}, and there are "
                f"{quoted(columns)} now; resume with the breaks it was begun with, or give "
                "another path"
            )
        if not self.columns:
            self.columns, self.last = columns, trainer.iteration
            self.sums = [0.0] * (1 + len(names))
        self._writer.begin(trainer, self._began)
        self._began = True

    def after(self, trainer: Trainer, losses: np.ndarray) -> None:
        """Add the steps up."""
        curves = [losses.tolist(), *(c.tolist() for c in trainer.solver.curves.values())]
        for values in zip(*curves, strict=True):  # in order, however many are made at once
            self.sums = [x + value for x, value in zip(self.sums, values, strict=True)]
        self.steps += len(losses)
        updated = not trainer.solver.accumulated
        if updated and trainer.iteration % (self.every or 1) == 0:  # before others change the rate
            self._rate = rates.at(trainer.solver.rate, trainer.iteration - 1, math.inf)

    def take(self, trainer: Trainer) -> None:
        """Write a row."""
        means = [value / self.steps for value in self.sums]
        row: Row = {"iteration": trainer.iteration, "rate": self._rate}
        row.update(zip(self.columns[2:], map(finite, means), strict=False))
        new = (name for name, at in trainer.published.items() if at > self.last)
        row.update({name: finite(trainer.values[name]) for name in new})
        self._writer.write(row)
        self.sums = [0.0] * len(self.sums)
        self.steps, self.last = 0, trainer.iteration

    def end(self, trainer: Trainer) -> None:
        """Write rows that could not be written."""
        self._writer.end()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class _Writer:
    """Rows written in some form."""

    def __init__(self, log: Log):
        self.log = log

    def begin(self, trainer: Trainer, again: bool) -> None:
        """Open what is written to; `again` where this log has been at it before."""

    def write(self, row: Row) -> None:
        """Write a row."""
        raise NotImplementedError

    def end(self) -> None:
        """Write what is left."""

    def close(self) -> None:
        """Close what was opened."""


class _File(_Writer):
    """Rows as lines of a text file, which is as long as `log.size` says."""

    header = False

    def text(self, row: Row) -> str:
        """Return a row as a line."""
        raise NotImplementedError

    def begin(self, trainer: Trainer, again: bool) -> None:
        log = self.log
        self.warned = False
        try:
            log.path.parent.mkdir(parents=True, exist_ok=True)
            found = log.path.stat().st_size if log.path.exists() else 0
            if found and not log.size and not again:
                raise DataError(
                    f"Log: {log.path} is there already, of another run; continue it by "
                    "trainer.resume, move it away, or give another path"
                )
            if log.size:
                self._go_on(found)
        except OSError as error:
            raise DataError(f"Log: cannot write {log.path}: {error.strerror or error}") from error
        if self.header and not log.size and not log.pending:
            log.pending = _line(log.columns)
        self._flush()

    def _go_on(self, found: int) -> None:
        """Cut off rows that were written after the snapshot."""
        log = self.log
        if not found:  # the snapshot was moved here without it
            log.size = log.checksum = 0
            return
        with open(log.path, "rb") as file:
            kept = file.read(log.size)
        if len(kept) < log.size or zlib.crc32(kept) != log.checksum:
            raise SnapshotError(
                f"Log: {log.path} is not the file that was written when the snapshot was made; "
                "move it away, or give another path"
            )
        os.truncate(log.path, log.size)

    def write(self, row: Row) -> None:
        self.log.pending += self.text(row)
        self._flush()

    def _flush(self) -> None:
        """Write what is pending, or warn."""
        log = self.log
        content = log.pending.encode()
        if not content:
            return
        try:
            with open(log.path, "r+b" if log.size else "wb") as file:
                file.seek(log.size)
                file.truncate()  # what an attempt that failed has left
                file.write(content)
        except OSError as error:
            if not self.warned:
                warnings.warn(
                    f"Log: cannot write {log.path}: {error.strerror or error}; training continues, "
                    "and it is tried again with the next row",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self.warned = True
            return
        log.size += len(content)
        log.checksum = zlib.crc32(content, log.checksum)
        log.pending, self.warned = "", False

    def end(self) -> None:
        self._flush()


class _Lines(_File):
    """JSON lines."""

    def text(self, row: Row) -> str:
        return json.dumps(row) + "\n"


class _Table(_File):
    """Comma-separated values; one that is not there, or not finite, is empty."""

    header = True

    def text(self, row: Row) -> str:
        unknown = [name for name in row if name not in self.log.columns]
        if unknown:
            raise DataError(
                f"Log: {self.log.path} has no column for {unknown[0]!r}: the break that publishes "
                "it must name it in publishes(), or log to a .jsonl file"
            )
        found = (row.get(name) for name in self.log.columns)
        return _line("" if value is None else repr(value) for value in found)


def _line(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


class _TensorBoard(_Writer):
    """Scalars of TensorBoard."""

    def __init__(self, log: Log):
        super().__init__(log)
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise DataError(
                f"Log: {log.path}, a path without a suffix, is for TensorBoard, which needs the "
                "package tensorboardX (pip install tensorboardX); or log to a .jsonl or .csv file"
            ) from None
        self.make: Any = SummaryWriter
        self.writer: Any = None

    def begin(self, trainer: Trainer, again: bool) -> None:
        try:
            # Points of later iterations, as of a run that this one replaces, are hidden.
            self.writer = self.make(str(self.log.path), purge_step=trainer.iteration + 1)
        except OSError as error:
            raise DataError(
                f"Log: cannot write {self.log.path}: {error.strerror or error}"
            ) from error

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "iteration" and value is not None:
                self.writer.add_scalar(name, value, row["iteration"])
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
