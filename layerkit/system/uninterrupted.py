"""Uninterrupted: what has begun is made to its end, or undone, whenever a signal may come.

A handler of a signal, such as the one that turns Ctrl-C into KeyboardInterrupt, can raise between
any two steps of Python's interpreter, also at the beginning of a `finally` block.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

# Signals that programs have handlers for that raise: they ask it to end, tell that its time is
# over, or mean what the program says they mean.  Asking for a handler takes a microsecond, so the
# others, which tell of windows and child processes, are left out.
HELD = [
    int(getattr(signal, name))
    for name in (
        *("SIGINT", "SIGBREAK", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM"),
        *("SIGPROF", "SIGXCPU", "SIGUSR1", "SIGUSR2"),
    )
    if hasattr(signal, name)
]

Result = TypeVar("Result")


def undoing(call: Callable[[], Result], undo: Callable[[], object]) -> Result:
    """Make a call, and undo what it has changed, also where an exception comes at any place.

    Args:
        call: changes something for a while.
        undo: puts all of it back, and is called again where it was interrupted itself.

    Returns:
        The result of the call.
    """
    try:
        try:
            return call()
        finally:
            undo()
    except BaseException:
        undo()  # a second time does no harm, and the first may have been cut short
        raise


class Uninterrupted:
    """A `with` block that no handler of a signal cuts in two: they are called when it has ended.

    These are Python's handlers of the signals in HELD.  A second Ctrl-C interrupts at once.  Only
    the main thread calls handlers, so blocks of other threads are left alone.

    Attributes:
        requested: whether Ctrl-C has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._came: dict[int, FrameType | None] = {}

    def __enter__(self) -> Uninterrupted:
        """Start to hold signals back."""
        if threading.current_thread() is threading.main_thread():
            try:
                for number in HELD:
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._former[number] = handler
                        signal.signal(number, self._note)
            except BaseException:  # from a handler whose turn had not yet come
                self._end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the former handlers back, and tell them what has come."""
        self._end()

    def _end(self) -> None:
        try:
            self._put_back()
        finally:
            self._tell()

    def _put_back(self) -> None:
        try:
            for number, handler in self._former.items():
                signal.signal(number, handler)
        except BaseException:  # from a handler that is back already
            self._put_back()
            raise

    def _tell(self) -> None:
        while self._came:
            number, frame = self._came.popitem()
            try:
                self._former[number](number, frame)
            except BaseException:
                self._tell()
                raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._came:
            del self._came[number]  # it is told now
            self._former[number](number, frame)
        self.requested = self.requested or number == signal.SIGINT
        self._came[number] = frame
