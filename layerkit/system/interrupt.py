"""Interrupt: signals that ask a program to end are noted, and answered between two steps."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ENDING = [  # signals that ask a program to end; SIGHUP comes when its terminal is closed
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals in ENDING while the block runs, but for a SIGHUP that nohup ignores."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python lets no other set handlers
        for number in ENDING:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            # One that a handler has ignored stays so: its second must not kill the program while
            # it ends.
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL if former is None else former)


class Interrupt:
    """A flag to be looked at between steps, raised inside a `with` block by signals.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP raise it, and so does output that nobody reads any more, by
    then or before.  A step is never cut in two, so what is saved afterwards is a state that
    training has been in; save inside the block, where a signal waits.  A second Ctrl-C interrupts
    at once.
    """

    def __init__(self) -> None:
        self._signals: list[int] = []

    @property
    def requested(self) -> bool:
        """True once a signal has come, or nobody reads the output any more."""
        return bool(self._signals) or self.output_lost

    @property
    def output_lost(self) -> bool:
        """True once nobody reads the output any more, and no signal has come."""
        return not self._signals and any(
            getattr(stream, "closed_by_reader", False) for stream in (sys.stdout, sys.stderr)
        )

    def __enter__(self) -> Interrupt:
        """Start to listen."""
        self._block = handling(self._note)
        self._block.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Put the former handlers back."""
        self._block.__exit__(None, None, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in self._signals:
            raise KeyboardInterrupt
        self._signals.append(number)
