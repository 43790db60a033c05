"""Numbers and settings of a run's metrics as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

DASH = "\N{EM DASH}"  # stands for what is missing or None


def setting(values: Mapping[str, Any], key: str) -> str:
    """Write a setting as it was given, numbers without separators."""
    return _plain(values.get(key))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format(float(value), ".6g")
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or DASH
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return DASH if value is None else str(value)


def number(values: Mapping[str, Any], key: str, form: str = ",d") -> str:
    """Write a measured number in the given format; words, as the paper has some, stay words."""
    value = values.get(key)
    if isinstance(value, Real):
        if not math.isfinite(value):
            return "not finite"
        return format(int(float(value)) if form == ",d" else float(value), form)
    return DASH if value is None else str(value)


def decimals(count: int) -> Callable[[Mapping[str, Any], str], str]:
    """Return a function that writes a number with so many decimals."""
    return lambda values, key: number(values, key, f",.{count}f")


def significant(values: Mapping[str, Any], key: str) -> str:
    """Write a number with three significant digits."""
    return number(values, key, ".3g")


def percentage(values: Mapping[str, Any], key: str) -> str:
    """Write a number that is a percentage already."""
    text = number(values, key, ".2f")
    return f"{text}%" if text[-1].isdigit() else text


def fraction(values: Mapping[str, Any], key: str) -> str:
    """Write a fraction as a percentage."""
    return number(values, key, ".1%")


def percent(part: Any, whole: Any) -> str:
    """Write part / whole as a percentage."""
    return f"{part / whole:.1%}" if part is not None and whole else DASH


def share(values: Mapping[str, Any], key: str) -> str:
    """Write a count of held-out images as a percentage of them."""
    return percent(values.get(key), values.get("held_out"))


def kept(values: Mapping[str, Any], key: str) -> str:
    """Write how many images were kept, and their percentage of those read."""
    of_read = percent(values.get(key), values.get("images_read"))
    return number(values, key) + ("" if of_read == DASH else f" ({of_read})")


def wins(values: Mapping[str, Any], key: str) -> str:
    """Write a count of held-out images, and the percentage of them."""
    return DASH if values.get(key) is None else f"{number(values, key)} ({share(values, key)})"


def duration(values: Mapping[str, Any], key: str) -> str:
    """Write the seconds of training in hours, minutes and seconds."""
    seconds = values.get(key)
    if seconds is None:
        return DASH
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
