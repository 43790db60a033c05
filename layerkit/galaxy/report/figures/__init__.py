"""The paper's figures, and those that show how good a model is: arrays in, a figure out.

Every function returns a `matplotlib.figure.Figure` that notebooks show; `save` writes it as PNG.
Nothing here touches pyplot, and figures are made and saved with matplotlib's default settings, so
they come out alike on a machine without a display, in a notebook and under anybody's matplotlibrc.

Images are (N, H, W) intensities.  The paper is Regier, McAuliffe and Prabhat (2015).
"""

from layerkit.galaxy.report.figures.curves import learning_curves
from layerkit.galaxy.report.figures.latent_map import embedding
from layerkit.galaxy.report.figures.pictures import outliers, reconstructions, samples, traversal
from layerkit.galaxy.report.figures.quality.shapes import morphology
from layerkit.galaxy.report.figures.quality.uncertainty import calibration, latent_coverage
from layerkit.galaxy.report.figures.quality.wins import comparison
from layerkit.galaxy.report.figures.style import default_style, save

__all__ = [
    "calibration",
    "comparison",
    "embedding",
    "latent_coverage",
    "learning_curves",
    "morphology",
    "outliers",
    "reconstructions",
    "samples",
    "save",
    "traversal",
]

calibration = default_style(calibration)
comparison = default_style(comparison)
embedding = default_style(embedding)
latent_coverage = default_style(latent_coverage)
learning_curves = default_style(learning_curves)
morphology = default_style(morphology)
outliers = default_style(outliers)
reconstructions = default_style(reconstructions)
samples = default_style(samples)
traversal = default_style(traversal)
