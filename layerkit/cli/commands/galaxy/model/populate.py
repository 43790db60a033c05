"""`layerkit galaxy populate`: a prior and noise for the galaxies that a run's model draws."""

from __future__ import annotations

import argparse
from typing import Any

from layerkit.cli import arguments


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "populate",
        help="fit the population that a model draws to its galaxies",
        description="Fit the prior of a finished run's model, and how the noise of pixels goes "
        "together, to the galaxies that it was trained on; keep both in model.h5; print, and write "
        "to population.json, how well drawn galaxies pass for held-out ones; and evaluate the run "
        "again, as its bounds are with this prior from then on.",
    )
    parser.add_argument("run_folder", metavar="DIR", type=arguments.path, help="folder of the run")
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fit, measure and print."""
    from layerkit import galaxy

    print(galaxy.populate(args.run_folder, seed=args.seed))
