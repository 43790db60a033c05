"""Hooks: functions of the caller's that look at a gradient, or change it, before an update."""

from __future__ import annotations

from typing import Any

from layerkit.errors import NetError, brief
from layerkit.settings import Rule

WORKING = (
    "a solver is in the middle of a step of this net, and one of its hooks has called this; do it "
    "when the step has ended"
)


class Hooks(Rule):
    """Rule for a list of functions that take a solver."""

    expected = "a list of functions, each called with the solver"

    def accept(self, value: Any) -> Any:
        """Return the list."""
        if not isinstance(value, list) or not all(map(callable, value)):
            raise ValueError
        return value


def call_hooks(solver: Any) -> None:
    """Call the hooks of a solver; meanwhile no step of its net is made, and no state saved.

    Raises:
        NetError: something in the list is no function.
    """
    net = solver.net
    net.lock.held.append((net.arena.data, WORKING))
    try:
        for hook in list(solver.hooks):
            if not callable(hook):
                raise NetError(
                    f"{solver.label()}: hooks must be {Hooks.expected}, and hold {brief(hook)}"
                )
            hook(solver)
    finally:
        net.lock.held.pop()
