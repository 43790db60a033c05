"""`layerkit galaxy prepare`: the galaxies in pictures, cut out and written to a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit import galaxy
from layerkit.cli import arguments
from layerkit.cli.commands.galaxy.model import train
from layerkit.cli.config import settings_place, write_settings
from layerkit.errors import DataError
from layerkit.galaxy.images.crop.units import UNITS
from layerkit.galaxy.layout import METRICS, is_result


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "prepare",
        help="cut galaxies out of pictures",
        description="Find the galaxy in each picture, cut it out, and write all to an HDF5 file, "
        "or with --shard-rows to a folder of them, which --data of other commands takes.",
    )
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        type=arguments.source,
        help="with --shard-rows: folders, zips and files of pictures, patterns such as "
        "'nights/*.zip', and addresses that fsspec knows",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=arguments.path,
        help="folder, zip or file of pictures (default: galaxies of the Hubble Deep Field)",
    )
    arguments.add_hdu(parser)
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=arguments.path,
        default="galaxies.h5",
        help="file to write, or folder with --shard-rows (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        metavar="N",
        type=arguments.COUNT,
        default=69,
        help="pixels on a side of a galaxy (default: %(default)s)",
    )
    parser.add_argument("--units", choices=UNITS, default=UNITS[0], help=train.UNITS_HELP)
    parser.add_argument(
        "--limit", metavar="N", type=arguments.COUNT, help="use the first pictures only"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=arguments.COUNT_OR_NONE,
        help="processes of this machine (default: one for each core)",
    )
    parser.add_argument(
        "--shard-rows",
        metavar="N",
        type=arguments.COUNT,
        help="write a folder of shards, each of the galaxies in N pictures of a source",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler whose workers prepare the shards; or local, which makes the --workers "
        "a Dask cluster (default: they are plain processes)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="prepare only the shards that are missing in --out"
    )
    parser.rivals(("sources",), ("data",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prepare, and print the counts."""
    out = Path(args.out)
    settings_place(args, out)
    if is_result(out.name) and (out.parent / METRICS).exists():
        raise DataError(f"--out {out}: a result of the training run in that folder; write another")
    if args.shard_rows is not None:
        print(_in_shards(args))
    elif args.sources or args.scheduler or args.resume:
        raise DataError("SOURCE, --scheduler and --resume need --shard-rows N; else give --data")
    else:
        source = galaxy.open_source(args.data, arguments.hdu_of(args))
        options = {name: getattr(args, name) for name in ("size", "units", "limit", "workers")}
        print(galaxy.prepare(source, args.out, **options))
    write_settings(args, Path(args.out))
    print(f"written to {args.out}")


def _in_shards(args: argparse.Namespace) -> Any:
    """Prepare into a folder of shards."""
    if args.limit is not None:
        raise DataError("--limit does not go with --shard-rows")
    if args.sources and args.data:
        raise DataError("give SOURCE or --data, not both")
    sources = args.sources or [args.data]
    if sources == [None]:
        raise DataError("--shard-rows: name the SOURCE of the pictures, or several")
    names = ("size", "units", "workers", "scheduler", "resume")
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    hdu = arguments.hdu_of(args)
    return galaxy.prepare_shards(sources, args.out, each=args.shard_rows, hdu=hdu, **options)
