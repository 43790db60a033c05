"""`layerkit galaxy report`: the results of finished runs, in a few lines or as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit import galaxy
from layerkit.cli import arguments
from layerkit.errors import DataError
from layerkit.galaxy.layout import REPORT


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "report",
        help="results of finished runs",
        description="Print the main results of each run, or all as rows of a Markdown table.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="PATH", help="folder of a run, or its metrics.json"
    )
    arguments.add_flag(parser, "table", "a Markdown table, a row for each run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the results."""
    found = {path: galaxy.read_metrics(path) for path in args.runs}
    if args.table:
        print(galaxy.results_table(found.values()), end="")
        return
    for path, metrics in found.items():
        try:
            print(f"{path}\n{galaxy.summary(metrics)}")
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        page = Path(path) / REPORT
        if page.is_file():
            print(f"open {page}")
