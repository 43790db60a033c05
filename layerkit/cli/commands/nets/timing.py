"""`layerkit time NET`: where the time of a training step goes, layer by layer."""

from __future__ import annotations

import argparse
from typing import Any

from layerkit.cli import arguments
from layerkit.inspection.profile import profile
from layerkit.layers import Input
from layerkit.net import Net
from layerkit.solvers import Adam


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "time",
        help="forward and backward time of each layer of a net",
        description="Train a net on inputs of ones for a moment and print, for each layer and "
        "for whatever else a step does, the time and its share of the whole step, and for matrix "
        "products how much they compute.",
    )
    arguments.add_net(parser)
    arguments.add_batch(parser)
    parser.add_argument(
        "--iterations",
        type=arguments.COUNT,
        default=50,
        metavar="N",
        help="steps to measure (default: %(default)s)",
    )
    arguments.add_where(parser, backend="numpy")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    net = Net(
        arguments.layers_of(args), batch_size=args.batch, backend=args.backend, kernels=args.kernels
    )
    # Ones, because they are pictures, labels and probabilities alike.
    inputs: dict[str, Any] = {
        layer.tops[0]: net.xp.ones((args.batch, *layer.shape), net.dtype)
        for layer in net.layers.values()
        if isinstance(layer, Input)
    }
    print(profile(Adam(net), args.iterations, inputs, progress=True))
