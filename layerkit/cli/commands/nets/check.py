"""`layerkit check NET`: the gradients of a net against finite differences."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from layerkit.cli import arguments, data
from layerkit.inspection.gradcheck import check_with
from layerkit.layer import Layer
from layerkit.layers import Accuracy, ContrastiveLoss, Embed, HingeLoss, Input, OneHot, SoftmaxLoss
from layerkit.net import Net


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "check",
        help="gradients of a net against finite differences",
        description="Compare the gradient of every parameter and input of a net with finite "
        "differences, in float64, on the examples of --data or on random ones: numbers from 0 to "
        "1, and labels or ids where a layer reads them.",
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
    """Return numbers from 0 to 1, which suit pictures and probabilities, and labels and ids."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for layer in net.layers.values():
        if isinstance(layer, Input):
            name, shape = layer.tops[0], net.blobs[layer.tops[0]].shape
            readers = [
                (reader, number)
                for reader in net.layers.values()
                for number, bottom in enumerate(reader.bottoms)
                if bottom == name
            ]
            counts = [n for reader, number in readers if (n := _kinds(reader, number)) is not None]
            numbers = rng.random((rows, *shape))
            if counts:
                numbers = np.floor(numbers * min(counts))
            for reader, number in readers:
                if number == 1 and isinstance(reader, HingeLoss) and not reader.by_class:
                    numbers = np.where(numbers < 0.5, -1.0, 1.0)
                if number == 1 and isinstance(reader, SoftmaxLoss) and reader.soft:
                    shares = reader.classes.split(numbers)
                    shares /= shares.sum(axis=2, keepdims=True)
            found[name] = numbers.astype("int64") if layer.integers else numbers
    return found


def _kinds(reader: Layer, number: int) -> int | None:
    """Return how many classes or ids bottom `number` of a layer names, from 0 on, or None."""
    if number == 0 and isinstance(reader, Embed | OneHot):
        return reader.count
    if number == 2 and isinstance(reader, ContrastiveLoss):
        return 2
    if number == 1 and isinstance(reader, HingeLoss) and reader.by_class:
        return reader.size
    if number == 1 and (
        isinstance(reader, Accuracy) or (isinstance(reader, SoftmaxLoss) and not reader.soft)
    ):
        return reader.classes.count
    return None
