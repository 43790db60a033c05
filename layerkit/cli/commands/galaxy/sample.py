"""`layerkit galaxy sample`: galaxies drawn from the prior of a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit import galaxy
from layerkit.cli import arguments, writing
from layerkit.cli.config import write_settings

KINDS = (".h5", ".npy", ".fits")


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "sample",
        help="draw galaxies from a trained model",
        description="Draw galaxies from the prior of a trained model, and write them as an array "
        "(N, side, side) to an HDF5 file (data set images), an NPY file or a FITS cube.",
    )
    parser.add_argument("run_folder", metavar="DIR", type=arguments.path, help="folder of the run")
    parser.add_argument(
        "--count",
        metavar="N",
        type=arguments.COUNT,
        default=64,
        help="galaxies to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--noise", action="store_true", help="add the noise that the model expects of pixels"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=arguments.path,
        required=True,
        help="file to write, of the kind that its suffix says: .h5, .npy or .fits",
    )
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draw and write."""
    out = Path(args.out)
    write_to = writing.writer(out, KINDS)
    model = galaxy.load_model(args.run_folder)
    side = round(model.pixels**0.5)
    images = model.sample(args.count, args.seed, args.noise).reshape(-1, side, side)
    writing.write(out, write_to, {"images": images})
    write_settings(args, out)
    print(f"images: {' x '.join(map(str, images.shape))} to {args.out}")
