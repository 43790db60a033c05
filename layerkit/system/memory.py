"""Memory: how much is free on this computer, and amounts of it in words."""

from __future__ import annotations

import os
import sys


def in_words(count: int) -> str:
    """Return an amount of memory as people write it."""
    size, units = float(count), iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    for larger in units:
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"


def memory() -> int:
    """Return the bytes of memory that are free on this computer, or more than any if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(1024 * int(x.split()[1]) for x in file if x.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize
