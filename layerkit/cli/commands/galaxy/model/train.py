"""`layerkit galaxy train`: a model trained on pictures of galaxies, and its results in a folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from layerkit.cli import arguments
from layerkit.cli.arguments import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, SEED
from layerkit.cli.command import INTERRUPTED, OUTPUT_LOST, pasteable
from layerkit.cli.config import Configured
from layerkit.galaxy.images.crop.units import UNITS
from layerkit.galaxy.training.settings import (
    AUGMENTS,
    BACKENDS,
    EPOCHS,
    FOLDER,
    HELD_OUT,
    KEEPS,
    LEAST_ITERATIONS,
    MOST_PASSES,
    RULES,
)
from layerkit.netfile import literal

UNITS_HELP = (
    "of pictures in physical units: stretched (the default) compresses bright pixels; linear "
    "subtracts the sky, divides by one number for each picture, and keeps pictures with a few "
    "pixels missing"
)
PASSES = arguments.number(int, 0, MOST_PASSES, f"from 0 to {MOST_PASSES}")
SAMPLES = arguments.number(int, 1, MOST_PASSES, f"from 1 to {MOST_PASSES}")
STATUS = {"done": 0, "interrupted": INTERRUPTED, "output lost": OUTPUT_LOST}


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "train",
        help="train a model on pictures of galaxies, and evaluate it",
        description="Prepare pictures of galaxies, train a net on them, compare it on held-out "
        "galaxies with the methods in use today, and write metrics.json, model.h5, the paper's "
        "figures and report.html into one folder.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting of `galaxy.train`; what is not said is None."""

    def add(name: str, metavar: str, kind: Callable[[str], Any], text: str, to: Any = None) -> Any:
        return (to or parser).add_argument(f"--{name}", metavar=metavar, type=kind, help=text)

    def choose(name: str, choices: Sequence[str], text: str) -> None:
        parser.add_argument(f"--{name}", choices=choices, help=text)

    add(
        "data",
        "PATH",
        arguments.path,
        "folder, zip or file of pictures, or a prepared galaxies.h5 (default: "
        "galaxies of the Hubble Deep Field)",
    )
    add(
        "held-out",
        "PATH|N",
        arguments.path_or_count,
        "another source to evaluate on, or how many galaxies training never "
        f"sees (default: {HELD_OUT}, a fifth where there are few)",
    )
    arguments.add_hdu(parser)
    choose("units", UNITS, UNITS_HELP)
    add(
        "net",
        "FILE",
        arguments.net_file,
        "net definition file, or the name of one that comes with layerkit (default: galaxy_gdae, "
        "the paper's)",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        type=arguments.assignment,
        help="settings of the net file, such as hidden=256 latent=16",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=arguments.path,
        default=FOLDER,
        help="folder for results (default: %(default)s)",
    )
    length = parser.add_mutually_exclusive_group()
    passes = f"passes through the data (default: {EPOCHS}, and at least {LEAST_ITERATIONS} steps)"
    lengths = [
        add("epochs", "N", COUNT, passes, length),
        add("iterations", "N", COUNT, "steps, instead of --epochs", length),
    ]
    if isinstance(parser, Configured):
        for action in lengths:
            parser.note(action)
        parser.rivals(("epochs",), ("iterations",))
    add("batch", "N", COUNT, "galaxies in a step (default: 64)")
    add(
        "shards",
        "S",
        COUNT,
        "each step takes the mean gradient over S batches, which the processes that mpiexec has "
        "started share: mpiexec -n 2 ... --shards 4; a power of two (default: one a process)",
    )
    add("rate", "R", POSITIVE, "rate of Adam (default: 0.001)")
    add(
        "final-rate",
        "R",
        NOT_NEGATIVE,
        "rate at the end, to which it falls along half a cosine (default: 1%% of --rate)",
    )
    add("warm-up", "N", COUNT_OR_NONE, "steps over which the rate rises to --rate (default: 0)")
    add(
        "clip",
        "NORM",
        POSITIVE,
        "largest norm of a gradient, to which longer ones are scaled down (default: none)",
    )
    arguments.add_flag(
        parser, "centre", "start with biases for which every unit is active for some galaxies", None
    )
    add(
        "kl-warm-up",
        "N",
        COUNT_OR_NONE,
        "steps over which the weight of the KL terms rises to its full value (default: 0)",
    )
    add("samples", "K", COUNT, "samples of z for each galaxy in a step (default: 1, the paper's)")
    choose(
        "augment", AUGMENTS, "turn and mirror galaxies at random in training (default: dihedral)"
    )
    choose(
        "keep",
        KEEPS,
        "which parameters to keep: those with the best bound on the galaxies that "
        "training is watched with, or the last ones (default: last)",
    )
    add_evaluation(parser)
    choose(
        "backend", BACKENDS, "where to compute; auto takes a GPU if there is one (default: auto)"
    )
    add("seed", "N", SEED, "seed of all random numbers (default: 0)")
    arguments.add_flag(parser, "resume", "continue from the snapshot in --out", None)
    arguments.add_flag(parser, "tiny", "a quick look: few galaxies, few steps", None)


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the options of the evaluation."""
    parser.add_argument(
        "--refine",
        metavar="N",
        type=PASSES,
        help="gradient steps for each galaxy from what the net says of it, in the evaluation "
        "(default: 100)",
    )
    parser.add_argument(
        "--importance-samples",
        metavar="K",
        type=SAMPLES,
        help="samples of z for each held-out galaxy in the tighter bound (default: 1000)",
    )


def run(args: argparse.Namespace) -> int:
    """Train, and return the exit status."""
    return train(
        args,
        shlex.join(["layerkit", *sys.argv[1:]]),
        [sys.executable, "-m", "layerkit", "galaxy", "train"],
    )


def train(args: argparse.Namespace, command: str, again: Sequence[str]) -> int:
    """Train as a command line says, and return the exit status.

    Args:
        args: with the options.
        command: what the report says that the run was started with.
        again: the words of a command that takes --resume and --out.
    """
    from layerkit.galaxy.training.run.run import Caller  # slow to import, and --help needs neither
    from layerkit.galaxy.training.train import start

    known = (*RULES, "out", "resume")
    given = {name: value for name, value in vars(args).items() if name in known}
    if hasattr(args, "band"):
        given["hdu"] = arguments.hdu_of(args)
    given["set"] = {name: literal(text) for name, text in args.set or []} or None
    caller = Caller(command, lambda folder: pasteable([*again, "--resume", "--out", str(folder)]))
    sharing = {name: getattr(args, name, None) for name in ("workers", "scheduler")}
    return STATUS[start(given, caller, **sharing).ending]
