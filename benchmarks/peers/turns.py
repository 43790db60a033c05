"""How a program of the benchmarks times itself: warm up, then stretches of many steps."""

import argparse
import statistics
import sys
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all programs have."""
    add = parser.add_argument
    add("--warm-up", type=int, default=2000, help="steps before measuring")
    add("--seconds", type=float, default=0.5, help="per measurement")
    add("--turns", action="store_true", help="measure once for each line of standard input")


def measure(repeat: Callable[[int], float], args: argparse.Namespace) -> float:
    """Warm up and time an iteration.

    With `--turns` several programs, all warm, can be timed in turn, so that a slow minute of the
    machine strikes all alike: an empty line says that the program is warm, and after each line of
    standard input one with the milliseconds of an iteration follows.

    Args:
        repeat: makes so many iterations and returns the seconds of one.
        args: the options above.

    Returns:
        Milliseconds of an iteration, the median of the measurements: five without `--turns`.
    """
    repeat(max(args.warm_up, 1))
    count = max(10, int(args.seconds / repeat(10)))
    if not args.turns:
        return 1e3 * statistics.median(repeat(count) for _ in range(5))
    print(flush=True)
    times = []
    for _ in sys.stdin:
        times.append(1e3 * repeat(count))
        print(times[-1], flush=True)
    return statistics.median(times)
