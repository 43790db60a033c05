"""Functions of the galaxy package given things of other kinds: one LayerkitError each."""

import numpy as np
import pytest

from layerkit import galaxy
from layerkit.errors import LayerkitError
from layerkit.galaxy.evaluation.bounds import evaluate_bounds
from layerkit.galaxy.evaluation.calibration import evaluate_calibration
from layerkit.galaxy.evaluation.comparison import closest_errors, fit_baselines, reconstruct
from layerkit.galaxy.evaluation.morphology import evaluate_morphology

IMAGES = np.ones((4, 5, 5))
CALLS = [
    (galaxy.split, (5, 1), "split: expected a list of ids"),
    (galaxy.split, (["a", 3], 1), "split: expected a list of ids"),
    (galaxy.summary, (5,), "summary: expected the metrics"),
    (galaxy.summary, ({},), "summary: expected the metrics"),
    (galaxy.results_table, (5,), "results_table: expected a list"),
    (galaxy.results_table, ([5],), "results_table: expected the metrics"),
    (galaxy.results_folder, (5,), "expected the path"),
    (galaxy.write_json, (5, {}), "expected the path"),
    (galaxy.read_metrics, (5,), "expected the path"),
    (galaxy.set_aside, (5,), "expected the path"),
    (galaxy.write_report, (5, {}), "expected the path"),
    (galaxy.write_report, ("page.html", 3), "write_report: expected the metrics"),
    (galaxy.SourcePictures, (5, None, None), ""),
    (galaxy.evaluate, (5, IMAGES, IMAGES), "evaluate: expected a GalaxyModel"),
    (evaluate_bounds, (5, IMAGES, IMAGES, 1), "evaluate_bounds: expected a GalaxyModel"),
    (evaluate_calibration, (5, IMAGES, None), "evaluate_calibration: expected a GalaxyModel"),
    (evaluate_morphology, (5, IMAGES), "evaluate_morphology: expected a GalaxyModel"),
    (reconstruct, (5, IMAGES), "reconstruct: expected a GalaxyModel"),
    (closest_errors, (5, IMAGES), "closest_errors: expected a GalaxyModel"),
    (fit_baselines, (5, IMAGES, 2), ""),
    (galaxy.fit_gaussian, ("x",), "fit_gaussian: the image"),
    (galaxy.fit_gaussians, (3,), "Gaussian fits"),
    (galaxy.fit_gaussians, (None,), "Gaussian fits"),
    (galaxy.fit_sersic, (None,), "fit_sersic: the image"),
    (galaxy.fit_sersics, (IMAGES, np.ones((2, 6))), "a row for each of the 4 images"),
    (galaxy.fit_sersics, (IMAGES, 3), "a row for each of the 4 images"),
    (galaxy.PCABaseline, (IMAGES, 3), "PCABaseline.fit"),
    (galaxy.PCABaseline.fit, ("x", 3), "PCA: the images"),
    (galaxy.PCABaseline.fit, (IMAGES, "3"), "components"),
    (galaxy.PCABaseline.fit, (3, 1), "at least 2 training images"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "says"), CALLS)
def test_other_kinds_are_refused_in_words(function, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LayerkitError) as caught:
        function(*arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
