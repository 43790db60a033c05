"""Bars on standard error, which show how far a long call has come."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

Step = TypeVar("Step")

DELAY = 1.0  # seconds that a call takes before its bar is shown; a short one needs none


def bar(total: int, description: str, unit: str, done: int = 0, delay: float = 0.0) -> Any:
    """Return a bar of tqdm, to be moved by `update` and ended by `close`, or by `with`.

    A terminal shows it anew twice a second; a file or a pipe gets a line every ten.

    Args:
        total: what it moves to.
        description: what it begins with.
        unit: what is counted.
        done: where it begins.
        delay: seconds before it is shown.
    """
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}",
        unit_scale=True,
        delay=delay,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )


def watched(
    steps: Sequence[Step], description: str, unit: str, shown: bool = True
) -> Iterator[Step]:
    """Yield the steps of a call that may be long, and unless `shown` is False a bar."""
    if not shown:
        yield from steps
        return
    with bar(len(steps), description, unit, delay=DELAY) as moving:
        for step in steps:
            yield step
            moving.update()
