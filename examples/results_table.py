#!/usr/bin/env python3
"""Print the results of several runs as rows of a Markdown table, as in docs/results.md.

    python examples/results_table.py out/*/metrics.json

Every number comes from a metrics.json that examples/galaxy_gdae.py wrote; "Gaussian", "Sersic" and
"PCA" are on how many of the held-out galaxies the model was better.
"""

import argparse

from layerkit import galaxy
from layerkit.cli.command import run


def main() -> int:
    """Read the files and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="PATH", help="metrics.json, or its folder")
    args = parser.parse_args()
    print(galaxy.results_table(map(galaxy.read_metrics, args.runs)), end="")
    return 0


if __name__ == "__main__":
    run(main)
