#!/usr/bin/env python3
"""Learn a model of galaxies from their pictures, after Regier, McAuliffe and Prabhat (2015).

    python examples/galaxy_gdae.py                          galaxies of the Hubble Deep Field
    python examples/galaxy_gdae.py --data images.zip        pictures of your own
    python examples/galaxy_gdae.py --set latent=16          the net, with another setting
    python examples/galaxy_gdae.py --resume --out DIR       continue a run that stopped

The script prepares the pictures, trains the net in nets/galaxy_gdae.py, compares it on held-out
galaxies with what is used today, and writes metrics.json, model.h5, the paper's figures and
report.html into one folder.
"""

import argparse
import os
import shlex
import sys

from layerkit.cli.command import Parser, run
from layerkit.cli.commands.galaxy.model.train import add_options, train


def main() -> int:
    """Read the command line, and train."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    again = [sys.executable, os.path.abspath(sys.argv[0])]
    return train(parser.parse_args(), shlex.join(["python", *sys.argv]), again)


if __name__ == "__main__":
    run(main)
