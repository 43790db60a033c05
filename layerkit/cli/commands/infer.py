"""`layerkit infer NET`: the values of blobs, computed by a trained net and written to a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerkit.cli import arguments, data
from layerkit.errors import DataError
from layerkit.files import write_atomically
from layerkit.loading import load
from layerkit.net import Net


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
    write = writer(out, args.blob)
    net = Net(
        arguments.layers_of(args), args.batch, args.backend, kernels=args.kernels, phase="test"
    )
    load(args.model, net)
    given = data.arrays(args.data, net.input_names(), complete=False)
    values = dict(zip(args.blob, net.infer(args.blob, sample=False, **given), strict=True))
    try:
        write_atomically(out, lambda path: write(path, values))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    for name, array in values.items():
        print(f"{name}: {' x '.join(map(str, array.shape))} to {args.out}")


def writer(out: Path, blobs: list[str]) -> Callable[[Path, dict[str, np.ndarray]], None]:
    """Return what writes blobs to a file of this name.

    Raises:
        DataError: no such kind of file, or one that cannot hold these blobs.
    """
    kinds = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".npy": _npy, ".csv": _csv}
    kind = kinds.get(out.suffix.lower())
    if kind is None:
        raise DataError(f"--out {out.name}: expected a name that ends in .h5, .npz, .npy or .csv")
    if kind is _npy and len(blobs) > 1:
        raise DataError(f"--out {out.name}: an NPY file holds one blob, not {len(blobs)}; use .npz")
    if repeated := {name for name in blobs if blobs.count(name) > 1}:
        raise DataError(f"--blob names {sorted(repeated)[0]!r} twice")
    return kind


def _hdf5(path: Path, values: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in values.items():
            file.create_dataset(name, data=array)


def _npz(path: Path, values: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **values)


def _npy(path: Path, values: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.save(file, *values.values())


def _csv(path: Path, values: dict[str, Any]) -> None:
    """Write a column for each number of an example: `z_mean` or `z_mean[0]`, `z_mean[1]`, ..."""
    columns, names = [], list[str]()
    for name, array in values.items():
        flat = array.reshape(len(array), -1)
        columns.append(flat)
        names += [f"{name}[{k}]" for k in range(flat.shape[1])] if array.ndim > 1 else [name]
    # 9 digits tell any two numbers of float32 apart.
    np.savetxt(
        path, np.hstack(columns), fmt="%.9g", delimiter=",", header=",".join(names), comments=""
    )
