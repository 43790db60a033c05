#!/usr/bin/env python3
"""Rates at which pictures are cut out, encoded, and refined.

    python benchmarks/encode.py images_training_rev1.zip

The model is the one that comes with layerkit.  Rows are: pictures read and cut out, by two
processes; encoded from there on, without and with eight draws for the uncertainty of shapes;
refined by 100 steps; and all of it at once, as `layerkit galaxy encode` does it.  Beside the
pictures a second stands what a picture costs in milliseconds of processors, which other programs
change less; the start of the two processes is part of it, and weighs less the more pictures.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cpu import Parser, positive

from layerkit import galaxy
from layerkit.cli.command import run
from layerkit.galaxy.images.crop.crop import Settings
from layerkit.galaxy.images.prepare.prepare import cuts
from layerkit.galaxy.images.sources.sources import Source


def processors() -> float:
    """Return the seconds of processors that this process and those that it waited for used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def row(name: str, count: int, work: Callable[[], object]) -> None:
    """Do some work and print what a picture takes."""
    start, used = time.perf_counter(), processors()
    work()
    seconds, used = time.perf_counter() - start, processors() - used
    print(f"{name:44} {count / seconds:8.0f} {1e3 * used / count:8.2f}", flush=True)


def measure(args: argparse.Namespace) -> None:
    """Print all rows."""
    source: Source = galaxy.open_source(args.data)
    count, few = min(int(args.pictures), len(source)), int(args.refined)
    settings = Settings()
    print(f"{'':44} {'a second':>8} {'ms each':>8}")

    def cut(workers: int) -> Callable[[], object]:
        return lambda: sum(1 for _ in cuts(source, range(count), settings, workers))

    row("read and cut out, one process", count, cut(0))
    row("read and cut out, two processes, with start", count, cut(2))
    model = galaxy.load_model(backend="numpy")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "galaxies.h5"
        galaxy.prepare(source, path, limit=count, workers=2, progress=False)
        prepared = galaxy.load(path)
        galaxy.encode(model, prepared, limit=64)  # warm
        kept = len(prepared)
        for draws in (0, 8):
            name = f"encoded from the prepared set, {draws} draws"
            row(name, kept, lambda draws=draws: galaxy.encode(model, prepared, draws=draws))
        few = min(few, kept)
        row(
            "refined by 100 steps, 8 draws",
            few,
            lambda: galaxy.encode(model, prepared, refine=100, limit=few),
        )
    for draws in (0, 8):
        row(
            f"pictures to catalogue, {draws} draws, with start",
            count,
            lambda draws=draws: galaxy.encode(
                model, source, draws=draws, limit=count, workers=args.workers
            ),
        )


def main() -> None:
    """Read the command line, and measure."""
    parser = Parser(__doc__)
    parser.add_argument("data", help="zip or folder of pictures")
    parser.add_argument(
        "--pictures", type=positive, default=4000, metavar="N", help="how many (default: 4000)"
    )
    parser.add_argument(
        "--refined", type=positive, default=500, metavar="N", help="of them refined (default: 500)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="that read pictures (default: 2)"
    )
    measure(parser.parse_args())


if __name__ == "__main__":
    run(main)
