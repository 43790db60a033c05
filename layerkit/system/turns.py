"""Turns: one thread at a time uses a net, also where a process forks meanwhile."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from layerkit.errors import LayerkitError, NetError


class Turns:
    """A reentrant lock, whose threads take turns, for a net and all that share its parameters.

    The child of a fork has only the thread that forked.  Had another thread the lock then, its
    child would wait for ever, and what that thread was writing stays as it was: an error says so.

    Attributes:
        held: flat parameter arrays that the thread inside has in its hands, each with the reason
            why nothing else may use them meanwhile; see Solver.averaged and Solver.hooks.

    Raises:
        NetError: on entry, in a child whose parent had another thread inside when it forked.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cut_short = False
        self.held: list[tuple[Any, str]] = []
        _living.add(self)

    # A `with` statement gets the lock's own methods, which no signal interrupts as one in Python:
    # a lock that is left held stops all other threads.

    @property
    def __enter__(self) -> Callable[[], bool]:
        """The method that waits for the threads before this one."""
        if self._cut_short:
            raise NetError(
                "this process was forked while another thread used the net, which may be half "
                "changed: build the net in the child, or fork when no thread uses it"
            )
        return self._lock.__enter__

    @property
    def __exit__(self) -> Callable[..., None]:
        """The method that lets the next thread in."""
        return self._lock.__exit__

    def check_own(self, parameters: Any, error: Callable[[str], LayerkitError], what: str) -> None:
        """Fail if a flat parameter array is in somebody's hands; call it inside only.

        Args:
            parameters: the array.
            error: makes the error to be raised of its message.
            what: what cannot be done, for the message.
        """
        for array, reason in self.held:
            if array is parameters:
                raise error(f"{what}: {reason}")

    def _check_after_fork(self) -> None:
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._cut_short = True


_living: weakref.WeakSet[Turns] = weakref.WeakSet()


def _check_all() -> None:
    for turns in list(_living):
        turns._check_after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_check_all)
