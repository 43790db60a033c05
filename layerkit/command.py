"""What command-line programs do with errors and with being interrupted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from layerkit.errors import LayerkitError

BAD_INPUT, INTERRUPTED = 2, 130


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a program and exits: an error the user can put right is one line and status 2.

    Ctrl-C is status 130, and a reader that closes the pipe (`| head`) ends the program quietly.
    Anything else is a bug, and keeps its traceback.
    """
    try:
        sys.exit(main() or 0)
    except (LayerkitError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(0)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class Interrupt:
    """Turns Ctrl-C and SIGTERM, inside a `with` block, into a flag to be looked at between steps.

    A step is never cut in two, so what is saved afterwards is a state that training has been in.
    A second Ctrl-C interrupts at once.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        """Starts to listen."""
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
