"""Galaxy images to training set, baselines, evaluation and figures, after Regier et al. (2015)."""

from layerkit.galaxy.baselines import PCABaseline, fit_gaussian, fit_gaussians
from layerkit.galaxy.dataset import GalaxySet, load, split
from layerkit.galaxy.evaluate import Evaluation, evaluate
from layerkit.galaxy.gallery import draw_figures
from layerkit.galaxy.gather import gather
from layerkit.galaxy.model import GalaxyModel
from layerkit.galaxy.prepare import prepare
from layerkit.galaxy.report import write_report
from layerkit.galaxy.results import results_folder, set_aside, summary, write_json
from layerkit.galaxy.sources import open_source

__all__ = [
    "Evaluation", "GalaxyModel", "GalaxySet", "PCABaseline", "draw_figures", "evaluate",
    "fit_gaussian", "fit_gaussians", "gather", "load", "open_source", "prepare", "results_folder",
    "set_aside", "split", "summary", "write_json", "write_report",
]
