"""Uninterrupted: a step that has begun to change parameters is made to its end."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Uninterrupted:
    """A `with` block that Ctrl-C does not cut in two: it interrupts when the block has ended.

    A second Ctrl-C interrupts at once.  Only the main thread is ever interrupted, so blocks of
    other threads are left alone.

    Attributes:
        requested: whether Ctrl-C has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handler: object = None
        self._frame: FrameType | None = None

    def __enter__(self) -> Uninterrupted:
        """Start to hold Ctrl-C back."""
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the former handler back, and tell it what has come."""
        if callable(self._handler):
            signal.signal(signal.SIGINT, self._handler)
            if self.requested:
                self._handler(signal.SIGINT, self._frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and callable(self._handler):
            self.requested = False  # it is told now
            self._handler(number, frame)
        self.requested, self._frame = True, frame
