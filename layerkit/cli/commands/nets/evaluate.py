"""`layerkit test NET`: the mean of each loss and metric of a trained net over a data set."""

from __future__ import annotations

import argparse
from typing import Any

from layerkit.cli import arguments, data
from layerkit.net import Net
from layerkit.saving.loading import load


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "test",
        help="losses and metrics of a trained net",
        description="Print the mean of each loss and metric of a trained net over a data set, each "
        "example seen once, in test phase.",
    )
    arguments.add_net(parser)
    parser.add_argument("--model", metavar="FILE", required=True, help="snapshot of the net")
    data.add_data(parser, "data", "what to test it on")
    arguments.add_batch(parser, 256)
    arguments.add_where(parser)
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print a line for each loss and metric."""
    net = Net(
        arguments.layers_of(args),
        args.batch,
        args.backend,
        seed=args.seed,
        kernels=args.kernels,
        phase="test",
    )
    load(args.model, net)
    inputs = net.input_names()
    given = data.layer(args.data, inputs) or data.arrays(args.data, inputs)
    found = net.evaluate(given, progress=True)
    width = max(map(len, found), default=0)
    for name, value in found.items():
        print(f"{name:{width}}  {value:.6g}")
