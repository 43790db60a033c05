"""`layerkit galaxy export`: the model of a run as a small file, to be given away."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit import galaxy
from layerkit.cli import arguments
from layerkit.cli.config import settings_place, write_settings
from layerkit.errors import DataError


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "export",
        help="the model of a run as a small file",
        description="Write the model of a finished run, with its temperatures, prior and noise, as "
        "a small file, without history and without paths of this computer.",
    )
    parser.add_argument("run_folder", metavar="DIR", type=arguments.path, help="folder of the run")
    parser.add_argument(
        "--dtype",
        choices=["float16", "float32"],
        default="float16",
        help="of the parameters in the file (default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.path, required=True, help="file to write, .h5"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the file."""
    out = Path(args.out)
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise DataError(f"--out {out.name}: expected a name that ends in .h5 or .hdf5")
    settings_place(args, out)
    print(galaxy.export_model(args.run_folder, out, dtype=args.dtype))
    write_settings(args, out)
    print(f"{out.stat().st_size / 1e6:.1f} MB to {out}")
