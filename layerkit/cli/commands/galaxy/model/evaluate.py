"""`layerkit galaxy evaluate`: a finished run, evaluated and drawn again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit.cli import arguments
from layerkit.cli.commands.galaxy.model import train


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "evaluate",
        help="evaluate a finished run again",
        description="Evaluate the model of a finished run on its held-out galaxies, and write "
        "metrics.json, the figures and report.html into its folder.",
    )
    parser.add_argument("out", metavar="DIR", type=arguments.path, help="folder of the run")
    train.add_evaluation(parser)
    parser.add_argument(
        "--workers",
        metavar="N",
        type=arguments.COUNT,
        help="processes of this machine, which share the galaxies (default: one)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler whose workers share them; or local, which makes the --workers a Dask "
        "cluster (default: they are plain processes)",
    )
    parser.set_defaults(run=run, resume=True, set=None)


def run(args: argparse.Namespace) -> int:
    """Evaluate, and return the exit status."""
    from layerkit.galaxy.training.trained import read_finished  # slow to import

    read_finished(Path(args.out))
    return train.run(args)
