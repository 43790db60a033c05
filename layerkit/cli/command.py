"""Command-line programs: what they do with errors, signals, and readers that went away."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO

from layerkit.errors import LayerkitError
from layerkit.system.interrupt import handling

BAD_INPUT, INTERRUPTED = 2, 130
OUTPUT_LOST = 141  # as shells report a program that ended by writing to a closed pipe
NO_READER = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ESHUTDOWN}


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a program and exit: an error the user can put right is one line and status 2.

    Ctrl-C, SIGTERM and SIGHUP are status 130.  Anything else is a bug, and keeps its traceback.

    Output that cannot be written ends nothing: whatever the program saves is worth more than
    what it says.  `Interrupt` notes a reader that went away (`| head`, a closed terminal), and the
    exit status, where it would have been 0, is 141.
    """
    _open_standard_streams()
    streams = sys.stdout, sys.stderr
    guards = [Guard(stream) for stream in streams]
    sys.stdout, sys.stderr = guards
    try:
        with handling(_interrupt):
            status = _status(main)
    except KeyboardInterrupt:  # another one, while the first was answered
        status = INTERRUPTED
    finally:
        sys.stdout, sys.stderr = streams
        for guard in guards:
            guard.release()
    if not status and any(guard.failed for guard in guards):
        status = OUTPUT_LOST
    sys.exit(status)


def _open_standard_streams() -> None:
    """Let no file that the program opens take the number of a standard stream that is closed."""
    for number in range(3):
        with contextlib.suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)


def _status(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except (LayerkitError, OSError) as error:
        reason = _without_a_folder(error) or str(error)
    except MemoryError as error:
        reason = f"not enough memory ({error or 'none left'}); take a smaller batch, net or data"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    print(f"error: {brief(reason)}", file=sys.stderr)
    return BAD_INPUT


def _without_a_folder(error: Exception) -> str | None:
    """Say that the current folder is gone, if that is why a file was not found."""
    if isinstance(error, FileNotFoundError) and error.filename is None:  # as os.getcwd says it
        try:
            os.getcwd()
        except FileNotFoundError:
            return "the current folder is gone, so that no file in it can be named; cd elsewhere"
    return None


def brief(text: str, most: int = 800) -> str:
    """Return a text in one line, without its middle if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose errors stay short, whatever the words it repeats."""

    def error(self, message: str) -> NoReturn:
        """Exit with the usage, a line and status 2."""
        super().error(brief(message))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt for every signal that asks to end, so that `finally` blocks run."""
    if number != signal.SIGINT:  # a terminal that closes may send SIGHUP twice
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def pasteable(words: Sequence[str]) -> str:
    """Return a command that a shell takes apart into these words, whatever is in them."""
    return " ".join(
        shlex.quote(word)
        if word.isprintable()
        else "$'"
        + "".join(
            chr(b) if 32 <= b < 127 and chr(b) not in "\\'" else f"\\x{b:02x}"
            for b in os.fsencode(word)
        )
        + "'"
        for word in words
    )


class Guard:
    """A text stream whose writes never raise: those that fail are dropped, and noted.

    Characters that the stream's encoding lacks, among them the bytes of file names that are not
    UTF-8, are written as backslash escapes.

    Attributes:
        closed_by_reader: whether nobody can read the stream any more.
        failed: whether any write failed.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream  # None where a program has no such stream, as under pythonw
        self.closed_by_reader = self.failed = False
        self._before = {k: getattr(stream, k, None) for k in ("errors", "line_buffering")}
        self._reconfigure(errors="backslashreplace", line_buffering=True)

    def _reconfigure(self, **settings: Any) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self.stream.reconfigure(**settings)  # type: ignore[union-attr]

    def release(self) -> None:
        """Give the stream back as it was; one that nobody reads is pointed to nowhere."""
        self.flush()
        if self.failed:  # or the interpreter would complain when it flushes at its end
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())  # type: ignore[union-attr]
                os.close(nowhere)
        self._reconfigure(**self._before)

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self.stream is None or self.closed_by_reader:
            return
        try:
            action()
        except OSError as error:
            self.failed = True
            self.closed_by_reader = error.errno in NO_READER
        except ValueError:  # somebody closed the stream itself
            self.failed = True

    def write(self, text: str) -> int:
        """Write text, or note that it cannot be written."""
        self._attempt(lambda: self.stream.write(text))  # type: ignore[union-attr]
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or note that it cannot be flushed."""
        self._attempt(lambda: self.stream.flush())  # type: ignore[union-attr]

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal; one that is closed is none."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return self.stream.isatty()  # type: ignore[union-attr]
        return False

    def __getattr__(self, name: str) -> Any:
        if name == "stream":
            raise AttributeError(name)
        return getattr(self.stream, name)
