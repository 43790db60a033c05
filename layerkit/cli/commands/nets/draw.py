"""`layerkit draw NET`: the layers of a net and the blobs between them, as a drawing."""

from __future__ import annotations

import argparse
from typing import Any

from layerkit.cli import arguments
from layerkit.net import Net


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "draw",
        help="a drawing of a net",
        description="Print the drawing of a net in the language of Graphviz or Mermaid, or write "
        "it to a file: .dot, .mmd, or .svg where the program dot of Graphviz is installed.",
    )
    arguments.add_net(parser)
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.path, help="file to write (default: print DOT)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draw."""
    drawing = Net(arguments.layers_of(args), 1, phase="test").draw()
    if args.out is None:
        print(drawing.dot)
        return
    drawing.save(args.out)
