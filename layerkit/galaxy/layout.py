"""Names of the files and folders that a training run writes into its folder."""

import re

GALAXIES = "galaxies.h5"  # the prepared galaxies
SHEETS = "contact_sheets"  # a folder
HELD_OUT = "held_out"  # a folder with its own galaxies and sheets
MODEL, BEST, METRICS, REPORT = "model.h5", "best.h5", "metrics.json", "report.html"
SETTINGS = "run.toml"  # repeats the run
POPULATION = "population.json"
FIGURES = (
    "reconstructions",
    "embedding",
    "traversal",
    "samples",
    "learning_curves",
    "squared_error",
    "likelihood",
    "sersic_squared_error",
    "calibration",
    "morphology",
    "latent_coverage",
    "outliers",
)
RESULTS = (
    *(MODEL, BEST, SETTINGS, METRICS, REPORT, POPULATION),
    *(f"{name}.png" for name in FIGURES),
)
BEFORE = re.compile(r"before-[1-9]\d*")  # folders of earlier results


def is_result(name: str) -> bool:
    """Tell whether a run writes a file or folder of this name into its folder."""
    return name in (*RESULTS, GALAXIES, SHEETS, HELD_OUT) or bool(BEFORE.fullmatch(name))
