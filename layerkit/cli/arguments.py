"""Arguments that several commands take, and how their texts are read."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from layerkit.layer import Layer
from layerkit.netfile import find_net, literal, load_net

MOST = 2**31 - 1
LARGEST = sys.float_info.max


def number(kind: Callable[[str], Any], least: float, most: float, what: str) -> Callable[..., Any]:
    """Make an argument type: a number from `least` to `most`, described by `what`."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return value

    convert.__name__ = kind.__name__  # argparse says "invalid int value"
    return convert


COUNT = number(int, 1, MOST, f"from 1 to {MOST}")
COUNT_OR_NONE = number(int, 0, MOST, f"from 0 to {MOST}")
POSITIVE = number(float, sys.float_info.min, LARGEST, "a number above zero")
NUMBER = number(float, -LARGEST, LARGEST, "a finite number")
NOT_NEGATIVE = number(float, 0, LARGEST, "a number, zero or above")
SEED = number(int, 0, 2**63 - 1, "from 0 to 2**63 - 1")


def bits(text: str) -> int:
    """Read a mask of bits, in one of the ways in which Python writes numbers."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to 2**63 - 1, such as 11 or 0xb, got {text!r}"
        )
    return value


def path(text: str) -> str:
    """Make an absolute path, so that a run can be resumed from any folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got nothing")
    return os.path.abspath(text)


def source(text: str) -> str:
    """Make an absolute path, but of an address such as s3://bucket/a.zip, which stays as it is."""
    return text if "://" in text else path(text)


def path_or_count(text: str) -> str | int:
    """Make an absolute path or a count of the text; refuse what could be either."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path or a number, got nothing")
    try:
        float(text)
    except ValueError:
        return os.path.abspath(text)
    try:
        count = COUNT(text)
    except ValueError:  # a fraction, say
        if os.path.exists(text):
            return os.path.abspath(text)
        raise argparse.ArgumentTypeError(f"must be a path or a whole number, got {text}") from None
    if os.path.exists(text):
        raise argparse.ArgumentTypeError(
            f"{text} is a number, and there is a file or folder of that name: give ./{text} for "
            f"the path, or +{text} for the number"
        )
    return count


def net_file(text: str) -> str:
    """Take the path of a net definition file, or the name of one that comes with layerkit."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path or a name, got nothing")
    return text


def model(text: str) -> str:
    """Make an absolute path of a model's; leave the name of one that comes with layerkit."""
    name = text and os.path.basename(text) == text and not os.path.splitext(text)[1]
    return text if name and not os.path.exists(text) else path(text)


def hdu(text: str) -> int | str:
    """Make the number or the name of a FITS extension."""
    if not text.strip() or text.startswith("-"):
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, or a name, got {text!r}")
    return int(text) if text.isdecimal() else text


def add_hdu(parser: argparse.ArgumentParser) -> None:
    """Add --hdu and --band."""
    parser.add_argument(
        "--hdu",
        metavar="N|NAME",
        type=hdu,
        help="extension of FITS files to read (default: all that hold science images)",
    )
    parser.add_argument(
        "--band",
        metavar="N",
        type=COUNT_OR_NONE,
        help="band of FITS cubes to read, first or last of their axes, counted from 0 (default: "
        "the mean of 3 or 4 bands; each of several others is a picture)",
    )


def hdu_of(args: argparse.Namespace) -> int | str | None:
    """Return what --hdu and --band choose, as `open_source` takes it."""
    if args.band is None:
        return args.hdu
    name = "" if args.hdu is None else str(args.hdu)
    return f"{name.partition('[')[0]}[{args.band}]"


def assignment(text: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text}")
    return name, value


def add_flag(parser: argparse.ArgumentParser, name: str, text: str, default: Any = False) -> None:
    """Add --NAME, and --no-NAME, which counts before a file of settings that turns it on."""
    parser.add_argument(
        f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text
    )


def add_net(parser: argparse.ArgumentParser) -> None:
    """Add NET and --set."""
    parser.add_argument(
        "net",
        metavar="NET",
        help="net definition file, or the name of one that comes with layerkit, as galaxy_gdae",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        type=assignment,
        default=[],
        help="settings of the net file, such as hidden=256 latent=16",
    )


def layers_of(args: argparse.Namespace) -> list[Layer]:
    """Return the layers of NET with the settings of --set."""
    return load_net(find_net(args.net), **{name: literal(value) for name, value in args.set})


def add_where(parser: argparse.ArgumentParser, backend: str = "auto") -> None:
    """Add --backend and --kernels."""
    parser.add_argument(
        "--backend",
        default=backend,
        choices=["auto", "numpy", "cupy"],
        help="where to compute; auto takes a GPU if there is one (default: %(default)s)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=["auto", "array"],
        help="array runs array code instead of compiled kernels (default: %(default)s)",
    )


def add_batch(parser: argparse.ArgumentParser, size: int = 64) -> None:
    """Add --batch."""
    parser.add_argument(
        "--batch",
        type=COUNT,
        default=size,
        metavar="N",
        help="examples in a batch (default: %(default)s)",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed",
        type=SEED,
        default=0,
        metavar="N",
        help="seed of all random numbers (default: %(default)s)",
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add --shards."""
    parser.add_argument(
        "--shards",
        type=COUNT,
        metavar="S",
        help="each step takes the mean gradient over S batches, which the processes that mpiexec "
        "has started share: mpiexec -n 2 ... --shards 4; a power of two (default: one a process)",
    )
