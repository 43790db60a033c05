"""`layerkit galaxy COMMAND`: models of galaxies."""

from __future__ import annotations

from typing import Any

from layerkit.cli import galaxy_encode


def add(commands: Any) -> None:
    """Describe the group of commands."""
    parser = commands.add_parser(
        "galaxy",
        help="models of galaxies",
        description="Work with models of galaxies and the pictures that they are of.",
    )
    group = parser.add_subparsers(dest="galaxy_command", metavar="COMMAND", required=True)
    for each in (galaxy_encode,):
        each.add(group)
