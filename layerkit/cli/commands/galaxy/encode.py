"""`layerkit galaxy encode PICTURES`: a catalogue of what a trained model says of pictures."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from layerkit.cli import arguments, writing
from layerkit.cli.config import settings_place, write_settings
from layerkit.errors import DataError
from layerkit.galaxy.images.crop.units import UNITS
from layerkit.saving import hdf5


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "encode",
        help="a catalogue of pictures: latents, bound and shapes of each",
        description="Encode pictures by a trained model, and write a table with a row for each, "
        "unusable ones included with the reason.",
    )
    parser.add_argument(
        "pictures",
        metavar="PICTURES",
        nargs="*",
        type=arguments.source,
        help="a folder, zip or file of JPEG, PNG, TIFF, FITS or HDF5 pictures, or a prepared "
        "galaxies.h5; several with --parts; or give --positions or --paths",
    )
    parser.add_argument(
        "--image",
        metavar="FITS",
        type=arguments.path,
        help="FITS image of a field, in which --positions says where galaxies are",
    )
    parser.add_argument(
        "--positions",
        metavar="FILE",
        type=arguments.path,
        help="table with columns x and y (pixels, from 0), X_IMAGE and Y_IMAGE (from 1), or ra and "
        "dec (degrees)",
    )
    parser.add_argument(
        "--cutout",
        metavar="N",
        type=arguments.COUNT,
        help="pixels on a side of what is read around each position (default: 128)",
    )
    parser.add_argument(
        "--paths",
        metavar="FILE",
        type=arguments.path,
        help="table with a column of paths of pictures, relative to its folder",
    )
    parser.add_argument(
        "--path-column", metavar="NAME", help="column of --paths with the paths (default: path)"
    )
    parser.add_argument(
        "--pixel-scale",
        metavar="ARCSEC",
        type=arguments.POSITIVE,
        help="arcseconds per pixel of all pictures (default: what their WCS says, if anything)",
    )
    parser.add_argument(
        "--units",
        choices=UNITS,
        help="of pictures in physical units, see train (default: those that the model was trained "
        "on)",
    )
    parser.add_argument(
        "--zero-point",
        metavar="MAG",
        type=arguments.NUMBER,
        help="magnitude of a flux of 1 in the pictures' unit (default: what their headers say)",
    )
    parser.add_argument(
        "--gain",
        metavar="G",
        type=arguments.POSITIVE,
        help="electrons per unit of the pictures, which adds the noise of a galaxy's own light to "
        "errors of fluxes (default: what their headers say); a variance extension counts before it",
    )
    parser.add_argument(
        "--model",
        metavar="RUN",
        type=arguments.model,
        default="galaxy_zoo",
        help="folder of a training run, or the model.h5 in it, which holds Python code that is "
        "run; or the name of a model that comes with layerkit (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=arguments.path,
        required=True,
        help="table to write, whose suffix says the format: .fits, .ecsv, .csv, .h5 or .parquet; "
        "with --parts a folder",
    )
    parser.add_argument(
        "--parts",
        type=arguments.COUNT,
        metavar="N",
        help="write tables of N pictures each into the folder --out, which galaxy.read_catalogue "
        "reads as one",
    )
    parser.add_argument(
        "--format",
        metavar="SUFFIX",
        default=".fits",
        help="suffix of the tables of --parts (default: %(default)s)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler whose workers encode the --parts; or local, which makes the --workers "
        "a Dask cluster (default: they are plain processes)",
    )
    arguments.add_flag(parser, "resume", "encode only the parts that are missing in --out")
    parser.add_argument(
        "--refine",
        type=arguments.COUNT_OR_NONE,
        default=0,
        metavar="N",
        help="gradient steps for each picture from what the encoder says; 100 are plenty "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=arguments.COUNT_OR_NONE,
        default=8,
        metavar="N",
        help="draws from the posterior for the uncertainty of shapes (default: %(default)s)",
    )
    arguments.add_batch(parser, 256)
    parser.add_argument(
        "--limit", type=arguments.COUNT, metavar="N", help="use only the first N pictures"
    )
    arguments.add_hdu(parser)
    parser.add_argument(
        "--workers",
        type=arguments.COUNT_OR_NONE,
        metavar="N",
        help="processes of this machine, which read pictures, or encode the --parts (default: one "
        "for each core, where that is worth it; for --parts one)",
    )
    parser.add_argument(
        "--join",
        metavar="FILE",
        type=arguments.path,
        help="table whose columns are added to the rows with the same id",
    )
    parser.add_argument(
        "--id-column",
        metavar="NAME",
        help="column with the ids, in --join (where they are names of files without suffix), "
        "--positions and --paths (default: id)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "numpy", "cupy"],
        help="where to compute; auto takes a GPU if there is one (default: %(default)s)",
    )
    parser.rivals(("pictures",), ("paths", "path_column"), ("positions", "image", "cutout"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Encode, join and write."""
    _check_source(args)
    settings_place(args, Path(args.out))
    if args.parts is not None:
        _run_parts(args)
        return
    if args.scheduler or args.resume or len(args.pictures or ()) > 1:
        raise DataError("several PICTURES, --scheduler and --resume need --parts N")
    given = args.pictures[0] if args.pictures else None
    # Slow to import, and other commands do without.
    from layerkit import galaxy
    from layerkit.galaxy.catalogue.encode import unranked, unusable
    from layerkit.galaxy.catalogue.tables import joining, tables

    out = Path(args.out)
    tables.check_suffix(out)
    if not out.parent.is_dir():
        raise DataError(f"--out {out}: no such folder; make it first")
    writing.check_writable(out)
    named = [(f"--{x}", vars(args)[x]) for x in ("join", "image", "positions", "paths")]
    writing.check_apart(out, [("PICTURES", given), *named, *_model(args.model)])
    hdf5.refuse_other(out, DataError)
    inside = given and Path(os.path.realpath(given))
    if inside in Path(os.path.realpath(out)).parents and out.exists():
        raise DataError(f"--out {out}: there already, among the pictures; write it elsewhere")
    column = "id" if args.id_column is None else args.id_column
    other = args.join and galaxy.read_catalogue(args.join, texts=(column,))
    own = joining.rows_by_id(other, column, args.join) if args.join else {}
    if args.join:
        tables.check_holds(other, out, f"--join {args.join}")
    source: Any = given
    hdu = arguments.hdu_of(args)
    if args.positions:
        cutout = {} if args.cutout is None else {"cutout": args.cutout}
        source = galaxy.open_positions(
            args.image, args.positions, id_column=args.id_column, hdu=hdu, **cutout
        )
    elif args.paths:
        source = galaxy.open_paths(
            args.paths, column=args.path_column or "path", id_column=args.id_column, hdu=hdu
        )
    table = galaxy.encode(
        args.model,
        source,
        refine=args.refine,
        draws=args.draws,
        batch=args.batch,
        limit=args.limit,
        hdu=hdu if source is given else None,
        pixel_scale=args.pixel_scale,
        units=args.units,
        zero_point=args.zero_point,
        gain=args.gain,
        workers=args.workers,
        backend=args.backend,
        progress=True,
    )
    if args.join:
        try:
            galaxy.write_catalogue(galaxy.join(table, other, column, args.join), out)
        except DataError as error:
            galaxy.write_catalogue(table, out)  # which may have taken hours
            raise DataError(f"{error}; {out} is the catalogue without its columns") from error
    else:
        galaxy.write_catalogue(table, out)
    write_settings(args, out)
    reasons = unusable(table)
    print(f"{len(table)} pictures, {len(table) - sum(reasons.values())} encoded")
    for reason, count in reasons.items():
        print(f"{count:8d} unusable: {reason}")
    if args.join:
        found = sum(joining.composed(name) in own for name in table["id"])
        print(f"{found} of {len(table)} rows have one in {args.join}")
    if why := unranked(table):
        print(f"no bound_percentile: {why}")
    print(f"{len(table.colnames)} columns to {args.out}")


def _check_source(args: argparse.Namespace) -> None:
    """Refuse options of which one source has no use, and more sources than one."""
    given = {
        "PICTURES": args.pictures, "--positions": args.positions, "--paths": args.paths
    }  # fmt: skip
    chosen = [option for option, path in given.items() if path]
    if len(chosen) != 1:
        raise DataError(
            "encode: give PICTURES, --positions with --image, or --paths: one of them, got "
            f"{' and '.join(chosen) or 'none'}"
        )
    if bool(args.positions) != bool(args.image):
        raise DataError("encode: --image and --positions go together; give both")
    if args.cutout is not None and not args.positions:
        raise DataError(f"--cutout {args.cutout}: of --positions, which is not given")
    if args.path_column is not None and not args.paths:
        raise DataError(f"--path-column {args.path_column}: names a column of --paths FILE")
    if args.id_column is not None and not (args.join or args.positions or args.paths):
        raise DataError(
            f"--id-column {args.id_column}: names a column of --join FILE, or of --positions or "
            "--paths; give one of them"
        )


def _run_parts(args: argparse.Namespace) -> None:
    """Encode into a folder of tables."""
    from layerkit import galaxy

    for name in ("limit", "join", "id_column", "positions", "paths"):
        if getattr(args, name) is not None:
            raise DataError(f"--{name.replace('_', '-')} does not go with --parts")
    if args.backend == "cupy":
        raise DataError("--backend cupy does not go with --parts, which run on processors")
    found = galaxy.encode_parts(
        args.model,
        args.pictures,
        args.out,
        each=args.parts,
        suffix=args.format,
        refine=args.refine,
        draws=args.draws,
        batch=args.batch,
        hdu=arguments.hdu_of(args),
        pixel_scale=args.pixel_scale,
        units=args.units,
        zero_point=args.zero_point,
        gain=args.gain,
        workers=args.workers,
        scheduler=args.scheduler,
        resume=args.resume,
        progress=True,
    )
    write_settings(args, Path(args.out))
    print(f"{found['pictures']} pictures, {found['encoded']} encoded")
    for reason, count in found["unusable"].items():
        print(f"{count:8d} unusable: {reason}")
    print(f"tables in {args.out}")


def _model(path: str) -> list[tuple[str, str]]:
    return [("--model", path), ("--model", os.path.join(path, "model.h5"))]
