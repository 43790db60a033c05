"""`layerkit galaxy COMMAND ...`: the galaxy model, from pictures to a report."""

from __future__ import annotations

from typing import Any

from layerkit.cli.commands.galaxy import encode, evaluate, prepare, report, sample, scene, train


def add(commands: Any) -> None:
    """Describe the command and those under it."""
    parser = commands.add_parser(
        "galaxy",
        help="a model of galaxies, learned from their pictures",
        description="A model of galaxies, learned from their pictures, after Regier, McAuliffe "
        "and Prabhat (2015).",
    )
    inner = parser.add_subparsers(dest="galaxy_command", metavar="COMMAND", required=True)
    for each in (prepare, train, evaluate, encode, sample, report, scene):
        each.add(inner)
