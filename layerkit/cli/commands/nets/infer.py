"""`layerkit infer NET`: the values of blobs, computed by a trained net and written to a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from layerkit.cli import arguments, data, writing
from layerkit.errors import DataError
from layerkit.net import Net
from layerkit.saving.loading import load
from layerkit.system.bars import watched


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "infer",
        help="values of blobs, computed by a trained net",
        description="Compute blobs of a trained net in test phase, and write them to an HDF5, NPZ, "
        "NPY or CSV file with a row for each example.",
    )
    arguments.add_net(parser)
    parser.add_argument("--model", metavar="FILE", required=True, help="snapshot of the net")
    parser.add_argument(
        "--blob", metavar="NAME", nargs="+", required=True, help="blobs to compute, such as z_mean"
    )
    data.add_data(parser, "data", "what to compute them from")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=arguments.path,
        required=True,
        help="file to write, of the kind that its suffix says: .h5, .npz, .npy or .csv",
    )
    arguments.add_batch(parser, 256)
    arguments.add_where(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compute and write."""
    out = Path(args.out)
    write_to = writing.writer(out, (".h5", ".npz", ".npy", ".csv"))
    if out.suffix.lower() == ".npy" and len(args.blob) > 1:
        raise DataError(
            f"--out {out.name}: an NPY file holds one blob, not {len(args.blob)}; use .npz"
        )
    if repeated := {name for name in args.blob if args.blob.count(name) > 1}:
        raise DataError(f"--blob names {sorted(repeated)[0]!r} twice")
    net = Net(
        arguments.layers_of(args), args.batch, args.backend, kernels=args.kernels, phase="test"
    )
    named = [("--model", args.model), ("NET", args.net)]
    named += [("--data", path) for path in data.files(args.data, net.input_names())]
    writing.check_apart(out, named)
    load(args.model, net)
    given = data.arrays(args.data, net.input_names(), complete=False)
    parts = []
    total = max(map(len, given.values()), default=1)
    for start in watched(range(0, total, args.batch), "inferring", "batches"):
        rows = {name: array[start : start + args.batch] for name, array in given.items()}
        parts.append(net.infer(args.blob, sample=False, **rows))
    arrays = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    values = dict(zip(args.blob, arrays, strict=True))
    writing.write(out, write_to, values)
    for name, array in values.items():
        print(f"{name}: {' x '.join(map(str, array.shape))} to {args.out}")
