"""Prefetching: batches that a thread prepares while the net works on those before.

The thread is a daemon that holds nothing of a net while it waits, so a net that is dropped takes
its thread along, and at the end of the program nobody waits for it long, unless it is in a call of
a library that the end would cut off (`whole`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any

PATIENCE = 2.0  # seconds that the end of the program waits for a batch that is being prepared

Make = Callable[[Any], Any]


class Ahead:
    """Results of calls, of which a thread makes the next few before they are asked for.

    A result is a pure function of its key, so it does not matter who makes it, or when.  Only the
    thread makes calls, so what they use need not be safe for several threads.  If the system has no
    thread left, the caller makes what it needs.

    Args:
        depth: how many results are made ahead.
        follow: key -> the key that will probably be asked for next.
    """

    def __init__(self, depth: int, follow: Callable[[Any], Hashable]):
        self.depth, self.follow = depth, follow
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._desk: Desk | None = None
        with contextlib.suppress(RuntimeError):  # no memory for a thread, or too many of them
            self._desk = Desk()
            weakref.finalize(self, self._desk.close).atexit = False  # `_finish` does it

    def take(self, key: Hashable, make: Make) -> Any:
        """Return `make(key)`, made ahead if it was foreseen, and have the next ones made.

        Raises:
            BaseException: what the call raised, whenever it did.
        """
        if self._process != os.getpid():  # a fork has the desk, but not the thread
            self._start()
        if self._desk is None:
            return make(key)
        keys = [key]
        while len(keys) <= self.depth:
            keys.append(self.follow(keys[-1]))
        return self._desk.take(keys, make)


class Desk:
    """Jobs and results between a thread and the one that asks for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.wanted: list[Any] = []  # keys of jobs, in the order in which they are needed
        self.ready: dict[Any, tuple[Any, BaseException | None]] = {}
        self.make: Make | None = None
        self.closed = False
        self.inside = False  # whether the thread is in a call that must not be cut off
        self.thread = threading.Thread(
            target=_work, args=(self,), name="layerkit data", daemon=True
        )
        self.thread.start()
        _desks.add(self)

    def take(self, keys: list[Any], make: Make) -> Any:
        """Wait for the result of the first key, and leave the others to be made."""
        with self.changed:
            self.ready = {k: found for k, found in self.ready.items() if k in keys}
            self.wanted = [k for k in keys if k not in self.ready]
            self.make = make
            self.changed.notify_all()
            while keys[0] not in self.ready:
                self.changed.wait(1.0)  # not for ever, so that Ctrl-C is heard on every system
            result, error = self.ready.pop(keys[0])
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let the thread end when it has made what it is making."""
        with self.changed:
            self.closed = True
            self.make = None
            self.changed.notify_all()


class UnwantedError(BaseException):
    """Nobody waits for what a thread is making any more."""


_own = threading.local()  # the desk of a thread


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """Make a `with` block that the end of the program waits for, and that none begins after it.

    HDF5 hangs or crashes where a program ends while a thread is in a call of it.
    """
    desk: Desk | None = getattr(_own, "desk", None)
    if desk is None:  # no thread of a desk
        yield
        return
    desk.inside = True
    try:
        if desk.closed:
            raise UnwantedError
        yield
    finally:
        desk.inside = False


def _work(desk: Desk) -> None:
    """Make what is wanted until the desk is closed."""
    _own.desk = desk
    while True:
        with desk.changed:
            while not (desk.wanted or desk.closed):
                desk.make = None  # it keeps a layer alive
                desk.changed.wait()
            if desk.closed:
                return
            key, make = desk.wanted[0], desk.make
        outcome = _outcome(make, key)
        with desk.changed:
            if key in desk.wanted:  # else the net has gone elsewhere
                desk.wanted.remove(key)
                desk.ready[key] = outcome
            desk.changed.notify_all()
        del make, outcome


def _outcome(make: Any, key: Any) -> tuple[Any, BaseException | None]:
    try:
        return make(key), None
    except BaseException as error:
        return None, error


_desks: weakref.WeakSet[Desk] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    """End all threads, as one in the middle of a library's call can crash a program that ends."""
    for desk in list(_desks):
        desk.close()
    try:
        for desk in list(_desks):
            with contextlib.suppress(RuntimeError):  # of another process
                desk.thread.join(PATIENCE)
                while desk.inside and desk.thread.is_alive():
                    desk.thread.join(PATIENCE)
    except KeyboardInterrupt:  # of somebody who will not wait: what comes now could take for ever
        os._exit(130)
