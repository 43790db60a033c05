"""Galaxy images to training set, baselines, evaluation and figures, after Regier et al. (2015).

The names below come from the modules of this package when they are first used: matplotlib and
scikit-learn take seconds to import, and the processes that prepare images need neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerkit.galaxy.baselines import PCABaseline, fit_gaussian, fit_gaussians
    from layerkit.galaxy.contact import contact_sheets
    from layerkit.galaxy.dataset import GalaxySet, load, split
    from layerkit.galaxy.evaluation import Evaluation, evaluate
    from layerkit.galaxy.gallery import draw_figures
    from layerkit.galaxy.gathering import gather
    from layerkit.galaxy.inference import closest, refine
    from layerkit.galaxy.model import GalaxyModel, Posterior
    from layerkit.galaxy.preparation import prepare
    from layerkit.galaxy.redraws import (
        LatentCoverage,
        SourcePictures,
        latent_coverage,
        redrawn_coverage,
    )
    from layerkit.galaxy.report import write_report
    from layerkit.galaxy.results import (
        finish_setting_aside,
        read_metrics,
        results_folder,
        results_table,
        save_somewhere,
        set_aside,
        summary,
        write_json,
    )
    from layerkit.galaxy.scaling import unstretch
    from layerkit.galaxy.sersic import fit_sersic, fit_sersics
    from layerkit.galaxy.sources import open_source

HOMES = {
    "PCABaseline": "baselines",
    "fit_gaussian": "baselines",
    "fit_gaussians": "baselines",
    "contact_sheets": "contact",
    "GalaxySet": "dataset",
    "load": "dataset",
    "split": "dataset",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "draw_figures": "gallery",
    "gather": "gathering",
    "closest": "inference",
    "refine": "inference",
    "LatentCoverage": "redraws",
    "latent_coverage": "redraws",
    "SourcePictures": "redraws",
    "redrawn_coverage": "redraws",
    "GalaxyModel": "model",
    "Posterior": "model",
    "prepare": "preparation",
    "write_report": "report",
    "read_metrics": "results",
    "results_folder": "results",
    "results_table": "results",
    "set_aside": "results",
    "finish_setting_aside": "results",
    "save_somewhere": "results",
    "summary": "results",
    "write_json": "results",
    "fit_sersic": "sersic",
    "fit_sersics": "sersic",
    "open_source": "sources",
    "unstretch": "scaling",
}

__all__ = [
    "Evaluation",
    "GalaxyModel",
    "GalaxySet",
    "LatentCoverage",
    "PCABaseline",
    "Posterior",
    "SourcePictures",
    "closest",
    "contact_sheets",
    "draw_figures",
    "evaluate",
    "finish_setting_aside",
    "fit_gaussian",
    "fit_gaussians",
    "fit_sersic",
    "fit_sersics",
    "gather",
    "latent_coverage",
    "load",
    "open_source",
    "prepare",
    "read_metrics",
    "redrawn_coverage",
    "refine",
    "results_folder",
    "results_table",
    "save_somewhere",
    "set_aside",
    "split",
    "summary",
    "unstretch",
    "write_json",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
