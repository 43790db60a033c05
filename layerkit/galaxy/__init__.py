"""Galaxy images to training set, model, baselines, evaluation and report: Regier et al. (2015).

Each name is imported from its module on first use: matplotlib and scikit-learn take seconds to
import, and the processes that prepare images need neither.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from layerkit.errors import LayerkitError

if TYPE_CHECKING:
    from layerkit.galaxy.baselines.gaussian import fit_gaussian, fit_gaussians
    from layerkit.galaxy.baselines.pca import PCABaseline
    from layerkit.galaxy.baselines.sersic import fit_sersic, fit_sersics
    from layerkit.galaxy.catalogue.encode import encode
    from layerkit.galaxy.catalogue.listing import open_paths, open_positions
    from layerkit.galaxy.catalogue.parts import encode_parts
    from layerkit.galaxy.catalogue.tables.joining import join
    from layerkit.galaxy.catalogue.tables.tables import read_catalogue, write_catalogue
    from layerkit.galaxy.catalogue.trained import export_model, load_model
    from layerkit.galaxy.evaluation.bounds import evaluate_bounds
    from layerkit.galaxy.evaluation.calibration import evaluate_calibration
    from layerkit.galaxy.evaluation.comparison import fit_baselines
    from layerkit.galaxy.evaluation.coverage.latent_coverage import (
        LatentCoverage,
        latent_coverage,
        redrawn_coverage,
    )
    from layerkit.galaxy.evaluation.coverage.source_pictures import SourcePictures
    from layerkit.galaxy.evaluation.evaluate import Evaluation, evaluate
    from layerkit.galaxy.evaluation.morphology import evaluate_morphology
    from layerkit.galaxy.evaluation.population import Population, evaluate_population
    from layerkit.galaxy.images.crop.scaling import unstretch
    from layerkit.galaxy.images.parts.sharded import prepare_shards
    from layerkit.galaxy.images.prepare.contact import contact_sheets
    from layerkit.galaxy.images.prepare.gather import gather
    from layerkit.galaxy.images.prepare.prepare import prepare
    from layerkit.galaxy.images.prepared import GalaxySet, load, split
    from layerkit.galaxy.images.sources.sources import open_source
    from layerkit.galaxy.model.model import GalaxyModel
    from layerkit.galaxy.model.population.fitting import fit_population
    from layerkit.galaxy.model.population.noise import PixelNoise
    from layerkit.galaxy.model.population.prior import MixturePrior
    from layerkit.galaxy.model.posterior.posterior import Posterior
    from layerkit.galaxy.model.posterior.refinement import closest, refine
    from layerkit.galaxy.report import figures
    from layerkit.galaxy.report.folder import (
        finish_setting_aside,
        results_folder,
        save_somewhere,
        set_aside,
    )
    from layerkit.galaxy.report.gallery import draw_figures
    from layerkit.galaxy.report.metrics import read_metrics, results_table, summary, write_json
    from layerkit.galaxy.report.page.page import write_report
    from layerkit.galaxy.simulation.interpolated import to_galsim
    from layerkit.galaxy.training.populating import populate
    from layerkit.galaxy.training.train import Training, train

# Package as it is imported -> as it is installed; the extra `galaxy` of pyproject.toml.
NEEDED = {
    "PIL": "pillow",
    "astropy": "astropy",
    "joblib": "joblib",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
    "tifffile": "tifffile",
}
_missing = [installed for name, installed in NEEDED.items() if find_spec(name) is None]
if _missing:
    raise LayerkitError(
        f"layerkit.galaxy needs {', '.join(_missing)}: pip install 'layerkit[galaxy]'; in a clone, "
        "pip install '.[galaxy]'"
    )

HOMES = {
    "PCABaseline": "baselines.pca",
    "fit_gaussian": "baselines.gaussian",
    "fit_gaussians": "baselines.gaussian",
    "contact_sheets": "images.prepare.contact",
    "GalaxySet": "images.prepared",
    "load": "images.prepared",
    "split": "images.prepared",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "draw_figures": "report.gallery",
    "gather": "images.prepare.gather",
    "closest": "model.posterior.refinement",
    "encode": "catalogue.encode",
    "encode_parts": "catalogue.parts",
    "join": "catalogue.tables.joining",
    "export_model": "catalogue.trained",
    "load_model": "catalogue.trained",
    "open_paths": "catalogue.listing",
    "open_positions": "catalogue.listing",
    "read_catalogue": "catalogue.tables.tables",
    "write_catalogue": "catalogue.tables.tables",
    "refine": "model.posterior.refinement",
    "evaluate_bounds": "evaluation.bounds",
    "evaluate_calibration": "evaluation.calibration",
    "evaluate_morphology": "evaluation.morphology",
    "fit_baselines": "evaluation.comparison",
    "LatentCoverage": "evaluation.coverage.latent_coverage",
    "latent_coverage": "evaluation.coverage.latent_coverage",
    "SourcePictures": "evaluation.coverage.source_pictures",
    "redrawn_coverage": "evaluation.coverage.latent_coverage",
    "GalaxyModel": "model.model",
    "MixturePrior": "model.population.prior",
    "PixelNoise": "model.population.noise",
    "Population": "evaluation.population",
    "evaluate_population": "evaluation.population",
    "fit_population": "model.population.fitting",
    "Posterior": "model.posterior.posterior",
    "prepare": "images.prepare.prepare",
    "prepare_shards": "images.parts.sharded",
    "write_report": "report.page.page",
    "read_metrics": "report.metrics",
    "results_folder": "report.folder",
    "results_table": "report.metrics",
    "set_aside": "report.folder",
    "finish_setting_aside": "report.folder",
    "save_somewhere": "report.folder",
    "summary": "report.metrics",
    "write_json": "report.metrics",
    "fit_sersic": "baselines.sersic",
    "fit_sersics": "baselines.sersic",
    "open_source": "images.sources.sources",
    "unstretch": "images.crop.scaling",
    "Training": "training.train",
    "populate": "training.populating",
    "to_galsim": "simulation.interpolated",
    "train": "training.train",
}

__all__ = [
    "Evaluation",
    "GalaxyModel",
    "GalaxySet",
    "LatentCoverage",
    "MixturePrior",
    "PCABaseline",
    "PixelNoise",
    "Population",
    "Posterior",
    "SourcePictures",
    "Training",
    "closest",
    "contact_sheets",
    "draw_figures",
    "encode",
    "encode_parts",
    "evaluate",
    "evaluate_bounds",
    "evaluate_calibration",
    "evaluate_morphology",
    "evaluate_population",
    "export_model",
    "figures",
    "finish_setting_aside",
    "fit_baselines",
    "fit_gaussian",
    "fit_gaussians",
    "fit_population",
    "fit_sersic",
    "fit_sersics",
    "gather",
    "join",
    "latent_coverage",
    "load",
    "load_model",
    "open_paths",
    "open_positions",
    "open_source",
    "populate",
    "prepare",
    "prepare_shards",
    "read_catalogue",
    "read_metrics",
    "redrawn_coverage",
    "refine",
    "results_folder",
    "results_table",
    "save_somewhere",
    "set_aside",
    "split",
    "summary",
    "to_galsim",
    "train",
    "unstretch",
    "write_catalogue",
    "write_json",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "figures":  # a module, whose functions return figures of matplotlib
        return importlib.import_module(f"{__name__}.report.figures")
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
