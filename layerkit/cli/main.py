"""The command line: `layerkit COMMAND ...`."""

from __future__ import annotations

from typing import NoReturn

import layerkit
from layerkit import command
from layerkit.cli import galaxy
from layerkit.cli.commands import check, devices, evaluate, infer, timing

DESCRIPTION = """Train, test and look at nets that a net definition file describes."""


def main() -> int | None:
    """Read the command line and do what it says."""
    parser = command.Parser(prog="layerkit", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=layerkit.__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for each in (evaluate, infer, timing, check, devices, galaxy):
        each.add(commands)
    args = parser.parse_args()
    return args.run(args)


def program() -> NoReturn:
    """Run the command line as a program, which ends with its status."""
    command.run(main)
