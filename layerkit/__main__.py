"""`python -m layerkit time NET` shows where the time of a training step goes, layer by layer."""

from __future__ import annotations

import argparse
from typing import Any

from layerkit import command
from layerkit.errors import LayerkitError
from layerkit.layers import Input
from layerkit.net import Net
from layerkit.netfile import load_net
from layerkit.solvers import Adam


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m layerkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser(
        "time",
        help="forward and backward time of each layer of a net file",
        description="Train a net on inputs of ones for a moment and print, for each layer and "
        "for whatever else a step does, the time and its share of the whole step, and for matrix "
        "products how much they compute.",
    )
    timing.add_argument(
        "net", metavar="NET", help="net definition file, such as nets/galaxy_gdae.py"
    )
    timing.add_argument(
        "--batch",
        type=int,
        default=64,
        metavar="N",
        help="examples in a batch (default: %(default)s)",
    )
    timing.add_argument(
        "--iterations",
        type=int,
        default=50,
        metavar="N",
        help="steps to measure (default: %(default)s)",
    )
    timing.add_argument(
        "--backend",
        default="numpy",
        metavar="NAME",
        help="where to compute: numpy, cupy or auto (default: %(default)s)",
    )
    timing.add_argument(
        "--kernels",
        default="auto",
        metavar="KIND",
        help="auto, or array for array code instead of compiled kernels (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.iterations < 1:
        raise LayerkitError(f"--iterations must be at least 1, got {args.iterations}")
    net = Net(load_net(args.net), batch_size=args.batch, backend=args.backend, kernels=args.kernels)
    # Ones, because they are pictures, labels and probabilities alike.
    inputs: dict[str, Any] = {
        layer.tops[0]: net.xp.ones((args.batch, *layer.shape), net.dtype)
        for layer in net.layers.values()
        if isinstance(layer, Input)
    }
    print(Adam(net).profile(args.iterations, **inputs))


if __name__ == "__main__":
    command.run(main)
