"""`layerkit galaxy sample`: galaxies drawn from the prior of a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit import galaxy
from layerkit.cli import arguments, writing
from layerkit.cli.config import settings_place, write_settings
from layerkit.errors import DataError

KINDS = (".h5", ".npy", ".fits")


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "sample",
        help="draw galaxies from a trained model",
        description="Draw galaxies from the prior of a trained model, and write them as an array "
        "(N, side, side) and their z to an HDF5 file (data sets images and z) or a FITS cube "
        "(with an extension z), or the galaxies alone to an NPY file.",
    )
    parser.add_argument(
        "run_folder",
        metavar="DIR",
        nargs="?",
        type=arguments.model,
        default="galaxy_zoo",
        help="folder of the run, or the name of a model that comes with layerkit (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=arguments.COUNT,
        default=64,
        help="galaxies to draw (default: %(default)s)",
    )
    arguments.add_flag(parser, "noise", "add the noise that the model expects of pixels")
    arguments.add_flag(
        parser,
        "stamps",
        "write each galaxy as an extension, or a data set, of its own: galaxy_1 and so on",
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
    settings_place(args, out)
    write_to = writing.writer(out, KINDS)
    if args.stamps and out.suffix.lower() == ".npy":
        raise DataError(f"--out {out.name}: an NPY file holds one array; for --stamps take .fits")
    model = galaxy.load_model(args.run_folder)
    side = round(model.pixels**0.5)
    images = model.sample(args.count, args.seed, args.noise).reshape(-1, side, side)
    arrays: dict[str, Any] = {"images": images, "z": model.sample_z(args.count, args.seed)}
    if args.stamps:
        arrays = {f"galaxy_{k + 1}": image for k, image in enumerate(images)}
    writing.write(out, write_to, arrays)
    write_settings(args, out)
    print(f"images: {' x '.join(map(str, images.shape))} to {args.out}")
