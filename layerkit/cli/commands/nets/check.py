"""`layerkit check NET`: the gradients of a net against finite differences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.cli import arguments, data
from layerkit.inspection.gradcheck import check_with
from layerkit.layer import Layer
from layerkit.layers import Accuracy, Embed, Input, OneHot, SoftmaxLoss
from layerkit.net import Net


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "check",
        help="gradients of a net against finite differences",
        description="Compare the gradient of every parameter and input of a net with finite "
        "differences, in float64, on the examples of --data or on random ones: numbers from 0 to "
        "1, labels where SoftmaxLoss reads them, and ids where Embed or OneHot do.",
    )
    arguments.add_net(parser)
    data.add_data(parser, "data", "examples to check on", required=False)
    arguments.add_batch(parser, 3)
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check, and print the report; a gradient that is wrong is an error."""
    layers = arguments.layers_of(args)
    net = Net(layers, args.batch, seed=args.seed)
    if args.data:
        given = data.arrays(args.data, net.input_names())
        inputs: dict[str, Any] = {name: array[: args.batch] for name, array in given.items()}
    else:
        inputs = random_inputs(net, args.batch, args.seed)
    print(check_with(net, inputs, seed=args.seed % 2**32, progress=True))


def random_inputs(net: Net, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return numbers from 0 to 1, which suit pictures and probabilities, and labels."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    layers: Sequence[Layer] = list(net.layers.values())
    for layer in layers:
        if isinstance(layer, Input):
            name, shape = layer.tops[0], net.blobs[layer.tops[0]].shape
            classes = [
                reader.classes.count
                for reader in layers
                if isinstance(reader, SoftmaxLoss | Accuracy) and reader.bottoms[1:2] == [name]
            ]
            classes += [
                reader.count
                for reader in layers
                if isinstance(reader, Embed | OneHot) and reader.bottoms == [name]
            ]
            size = (rows, *shape)
            found[name] = (
                rng.integers(min(classes), size=size).astype(float) if classes else rng.random(size)
            )
    return found
