"""The latent space as a map of galaxies."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from layerkit.errors import DataError
from layerkit.galaxy.report.figures.style import (
    INTENSITY,
    Figure,
    axes_at,
    check_ids,
    draw,
    mark,
    mosaic,
    shared_scale,
    stack,
)

LARGEST_CELL = 1.2  # inches on a side of a galaxy's cell, however few galaxies there are


def embedding(
    z_mean: np.ndarray,
    images: np.ndarray,
    seed: int = 0,
    most: int = 600,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw figure 4 of the paper: t-SNE of g_mu(x), with the galaxies themselves as points.

    Every galaxy gets a cell of a square grid to itself, near its place on the map: among all such
    assignments the one with the least sum of squared distances.  So pictures never overlap and
    none is left out.  Each is drawn above its own sky and fades into the common background.

    Args:
        z_mean: (N, latent), the encoded means.
        images: (N, H, W).
        seed: random seed of t-SNE and of the choice of galaxies.
        most: largest number of galaxies drawn; of more, so many are chosen at random.
        ids: names of the galaxies, (N,), which mark their places for the report.

    Raises:
        DataError: arrays of other shapes, encoded means that are not finite, or another number of
            ids than of images.
    """
    images, z_mean = stack("images", images), np.asarray(z_mean, dtype=np.float64)
    if z_mean.ndim != 2 or len(z_mean) != len(images) or not np.isfinite(z_mean).all():
        raise DataError(
            f"embedding: expected finite encoded means ({len(images)}, latent), one row for each"
            f" image, got an array of {z_mean.shape}"
        )
    check_ids("embedding", ids, images)
    chosen = np.arange(len(images))
    if len(images) > most:
        chosen = np.random.default_rng(seed).choice(len(images), most, replace=False)
        images, z_mean = images[chosen], z_mean[chosen]
    places = _tsne(z_mean, seed)
    # A third of the cells or more stay empty, so that clusters and the gaps between them show.
    side = math.ceil(1.25 * math.sqrt(len(images)))
    places = (places - places.min(axis=0)) / max(float(np.ptp(places, axis=0).max()), 1e-12)
    cells = np.stack(np.divmod(np.arange(side**2), side), axis=1)
    _, taken = linear_sum_assignment(cdist(places * (side - 1), cells, "sqeuclidean"))
    rows, columns = (cells[taken] - cells[taken].min(axis=0)).T

    shape = (rows.max() + 1, columns.max() + 1)
    faded = _faded(images)
    picture = np.zeros((*shape, *images.shape[1:]))
    picture[rows, columns] = faded
    cell = min(8 / max(shape), LARGEST_CELL)
    height, width = (cell * cells_across for cells_across in shape)
    figure = Figure((width, height))
    axes = axes_at(figure, 0, 0, width, height)
    draw(axes, mosaic(picture, 0), INTENSITY, _scale(faded, images))
    if ids is not None:
        size = images.shape[2], images.shape[1]
        for k in np.lexsort((columns, rows)):
            corner = (columns[k] * size[0] - 0.5, rows[k] * size[1] - 0.5)
            mark(axes, corner, size, ids[chosen[k]])
    return figure


def _scale(faded: np.ndarray, images: np.ndarray) -> Normalize:
    """Return the scale of faded images, which is black up to twice the noise of their skies.

    Noise that fades at the edges of every picture would show as a grid.
    """
    border = images[:, _border(images)]
    noise = 1.4826 * np.median(np.abs(border - np.median(border, axis=1, keepdims=True)))
    norm, black = shared_scale(faded), float(2 * noise)
    return Normalize(black, norm.vmax) if norm(2 * black) < 1 else norm


def _border(images: np.ndarray) -> np.ndarray:
    """Return the mask of the outermost pixels of images."""
    border = np.ones(images.shape[1:], bool)
    border[1:-1, 1:-1] = False
    return border


def _faded(images: np.ndarray) -> np.ndarray:
    """Return images above their sky, which falls to zero along the outer eighth of every side.

    Pictures side by side then show no seams: the sky of each, the median of its border, is the
    background that all share.
    """
    sky = np.median(images[:, _border(images)], axis=1)
    rows, columns = (
        np.clip((0.5 + np.minimum(np.arange(n), np.arange(n)[::-1])) / (n / 8), 0, 1)
        for n in images.shape[1:]
    )
    window = np.sin(0.5 * np.pi * np.minimum.outer(rows, columns)) ** 2
    return window * (images - sky[:, None, None])


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    """Return places on a map, (N, 2), for points (N, D).

    Fewer than five points are put on a line, as t-SNE has too few neighbours to compare.
    """
    if len(points) < 5:
        return np.stack([np.arange(len(points)), np.zeros(len(points))], axis=1)
    perplexity = min(30.0, (len(points) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="random", random_state=seed)
    # Its threads wait for each other by spinning, thousands of times: on a busy machine two threads
    # took 32 s and one took 4.
    with threadpool_limits(1):
        return method.fit_transform(points)
