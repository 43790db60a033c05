"""The command line: `layerkit COMMAND ...`."""

from __future__ import annotations

from typing import NoReturn

import layerkit
from layerkit.cli import command
from layerkit.cli.commands import devices, galaxy
from layerkit.cli.commands.nets import check, draw, evaluate, infer, timing, train

DESCRIPTION = """Train, test and look at nets that a net definition file describes."""


def main() -> int | None:
    """Read the command line and do what it says."""
    parser = command.Parser(prog="layerkit", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=layerkit.__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for each in (train, evaluate, infer, timing, check, draw, galaxy, devices):
        each.add(commands)
    args = parser.parse_args()
    return args.run(args)


def program() -> NoReturn:
    """Run the command line as a program, which ends with its status."""
    command.run(main)
