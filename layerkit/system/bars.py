"""Bars on standard error, which show how far a long call has come."""

from __future__ import annotations

import functools
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Step = TypeVar("Step")

DELAY = 1.0  # seconds that a call takes before its bar is shown; a short one needs none


@functools.cache
def _kind() -> Any:
    """Return tqdm's class for this place; a notebook without ipywidgets gets bars of text."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # which asks to install them
        from tqdm.auto import tqdm
    return tqdm


def bar(
    total: int | None,
    description: str,
    unit: str,
    done: int = 0,
    delay: float = 0.0,
    shown: bool = True,
) -> Any:
    """Return a bar of tqdm, to be moved by `update` and ended by `close`, or by `with`.

    A terminal shows it anew twice a second; a file or a pipe gets a line every ten.

    Args:
        total: what it moves to, None where nobody knows.
        description: what it begins with.
        unit: what is counted.
        done: where it begins.
        delay: seconds before it is shown.
        shown: whether it is shown at all.
    """
    return _kind()(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}",
        unit_scale=True,
        delay=delay,
        mininterval=0.5 if sys.stderr.isatty() else 10,
        disable=not shown,
    )


def watched(
    steps: Iterable[Step], description: str, unit: str, shown: bool = True, total: int | None = None
) -> Iterator[Step]:
    """Yield the steps of a call that may be long, and unless `shown` is False a bar.

    Args:
        steps: what is yielded.
        description, unit, shown: of the bar.
        total: the number of steps, where `steps` has no length.
    """
    total = operator.length_hint(steps) or None if total is None else total
    with bar(total, description, unit, delay=DELAY, shown=shown) as moving:
        for step in steps:
            yield step
            moving.update()
