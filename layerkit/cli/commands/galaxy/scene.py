"""`layerkit galaxy scene IMAGE`: a raw image to a catalogue, a model image and a residual."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerkit.cli import arguments, writing
from layerkit.errors import DataError
from layerkit.galaxy.layout import METRICS
from layerkit.system import locks

if TYPE_CHECKING:
    from layerkit.galaxy.scene import Field

TILES = "tiles.part"  # a folder in that of the results, until these are there


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "scene",
        help="stars and galaxies of a raw image, fitted together",
        description="Find the stars and galaxies of a raw image, fit all of them together, and "
        "write a catalogue with uncertainties, the model image, the residual and a report.",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        type=arguments.path,
        help="FITS or NPY of shape (height, width) or (bands, height, width), or NPZ with images "
        "and, if known, psfs, variance, mask and filters (default: the Hubble Deep Field)",
    )
    for name, what in (
        ("psf", "the PSF, (p, p) or (bands, p, p) with p odd (default: from the image's stars)"),
        ("variance", "the variance of each pixel (default: estimated)"),
        ("mask", "the mask, not zero where a pixel is not to be used"),
    ):
        parser.add_argument(
            f"--{name}", metavar="FILE", type=arguments.path, help=f"file of {what}"
        )
    parser.add_argument(
        "--hdu",
        metavar="N|NAME",
        type=arguments.hdu,
        help="extension of the FITS file that holds the image, and perhaps the band in it, as in "
        "SCI[1], counted from 0 (default: the one of science, and every band)",
    )
    parser.add_argument(
        "--mask-bits",
        metavar="N",
        type=arguments.bits,
        help="bits that count in a mask with several planes, such as 0x19f, the default",
    )
    parser.add_argument(
        "--gain",
        metavar="G",
        type=arguments.POSITIVE,
        help="electrons per unit of brightness, for the noise of the sources themselves (default: "
        "in the variance, or estimated)",
    )
    parser.add_argument(
        "--threshold",
        metavar="S",
        type=arguments.POSITIVE,
        default=5.0,
        help="least signal to noise of a detection (default: %(default)s)",
    )
    parser.add_argument(
        "--tile",
        metavar="N",
        type=arguments.number(int, 64, 4096, "from 64 to 4096"),
        default=256,
        help="side of the tiles that large fields are cut into, in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=arguments.COUNT,
        default=1,
        help="processes that fit tiles at once (default: %(default)s)",
    )
    arguments.add_flag(
        parser,
        "resume",
        "go on with a run into the same folder that was cut off: tiles fitted in it are kept",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=arguments.COUNT_OR_NONE,
        default=0,
        help="draws from the posterior of each source to write (default: none)",
    )
    parser.add_argument(
        "--stars",
        metavar="P",
        type=arguments.number(float, 1e-6, 1 - 1e-6, "a probability between 0 and 1"),
        default=0.3,
        help="prior probability that a source is a star (default: %(default)s)",
    )
    parser.add_argument(
        "--light",
        choices=("learned", "spergel"),
        default="spergel",
        help="what galaxies look like before the PSF: as a net has learned it, or a Spergel "
        "profile (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=arguments.path,
        required=True,
        help="folder to write into: catalogue.fits, .ecsv and, with pyarrow, .parquet, model.fits, "
        "residual.fits and report.html",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, measure and write."""
    # Slow to import, and other commands do without.
    from layerkit.galaxy.scene import hubble_field, read_field
    from layerkit.galaxy.scene.results.files import FILES

    out = Path(args.out)
    given = [("IMAGE", args.image)]
    given += [(f"--{name}", getattr(args, name)) for name in ("psf", "variance", "mask")]
    for name in FILES:
        writing.check_apart(out / name, given)
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: a file; give a folder, which is made if it is not there")
    if (out / METRICS).exists():
        raise DataError(f"--out {out}: the folder of a training run; write to another")
    there = [name for name in FILES if (out / name).exists()]
    if there and FILES[-1] not in there and not (out / TILES).exists():
        raise DataError(
            f"--out {out}: {there[0]} is there, and no {FILES[-1]} of a field; write to another"
        )
    if args.image is None:
        field = hubble_field()
    else:
        field = read_field(args.image, args.psf, args.variance, args.mask, args.mask_bits, args.hdu)
    with locks.lock(out, "a measurement of a field"):
        _measure(args, out, field)


def _measure(args: argparse.Namespace, out: Path, field: Field) -> None:
    """Measure a field and write what was found into a folder that nobody else works in."""
    from layerkit.galaxy.scene import measure, write_scene
    from layerkit.galaxy.scene.tile_runs import discard

    tiles = out / TILES
    if not args.resume:
        discard(tiles)
    scene = measure(
        field,
        threshold=args.threshold,
        gain=args.gain,
        star=args.stars,
        light=args.light,
        samples=args.samples,
        tile=args.tile,
        workers=args.workers,
        keep=tiles,
        tell=lambda line: print(line, flush=True),
    )
    for note in scene.notes:
        print(f"note: {note}")
    written = write_scene(scene, args.out)
    discard(tiles)
    stars = int((scene.table["p_star"] > 0.5).sum())
    print(f"{len(scene.table)} sources, {stars} of them more likely stars")
    print(f"{', '.join(written)} in {args.out}")
