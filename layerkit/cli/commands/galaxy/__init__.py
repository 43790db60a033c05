"""`layerkit galaxy COMMAND ...`: the galaxy model, from pictures to a report."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from layerkit.cli.config import Configured
from layerkit.errors import LayerkitError


def add(commands: Any) -> None:
    """Describe the command and those under it."""
    parser = commands.add_parser(
        "galaxy",
        help="a model of galaxies, learned from their pictures",
        description="A model of galaxies, learned from their pictures, after Regier, McAuliffe "
        "and Prabhat (2015).",
    )
    try:
        from layerkit.cli.commands.galaxy import encode, prepare, report, sample, scene
        from layerkit.cli.commands.galaxy.model import evaluate, export, populate, train
    except LayerkitError as error:  # packages are missing; the commands of the framework do without
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        parser.set_defaults(run=_raising(error))
        return
    inner = parser.add_subparsers(
        dest="galaxy_command", metavar="COMMAND", required=True, parser_class=Configured
    )
    for each in (prepare, train, evaluate, populate, encode, sample, export, report, scene):
        each.add(inner)


def _raising(error: LayerkitError) -> Any:
    """Return a command that raises this error."""

    def run(args: argparse.Namespace) -> NoReturn:
        raise error

    return run
