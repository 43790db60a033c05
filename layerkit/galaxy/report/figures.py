"""The paper's figures, and those that show how good a model is: arrays in, a figure out.

Every function returns a `matplotlib.figure.Figure`; `save` writes it as PNG.  Nothing here touches
pyplot or matplotlib's global settings, so the figures come out the same on a machine without a
display, in a notebook and beside somebody else's plots.

Images are (N, H, W) intensities.  The paper is Regier, McAuliffe and Prabhat (2015).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import norm as normal_distribution
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from layerkit.errors import DataError
from layerkit.files import write_atomically
from layerkit.galaxy.evaluation.calibration import EDGES, NOMINAL, Calibration
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage
from layerkit.galaxy.evaluation.morphology import STATISTICS

INTENSITY, VARIANCE, RESIDUAL = "gray", "viridis", "RdBu_r"
MODEL, BASELINE, NEUTRAL = "#1f6f8b", "#d1793a", "#8a8f98"
SMALL = 8
LARGEST_CELL = 1.2  # inches that a galaxy of the embedding has on a side, where there are few
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten

# What each figure is called in the report, and what to look for in it.
CAPTIONS = {
    "reconstructions": (
        "Reconstructions",
        "Each row is a galaxy that training never saw: the image x, its reconstruction f_mu(z) from"
        " a few numbers z, and the pixel variance f_Sigma(z) the model expects (logarithmic"
        " colours). A good reconstruction keeps the galaxy's size, tilt, shape and profile and"
        " leaves out noise and neighbours; the variance should be high where the galaxy is bright"
        " or steep, and low on the sky. Residuals are the image minus the model: structure left in"
        " them is what the model could not explain. The two numbers of a row are the darkest and"
        " the brightest intensity of x, which are black and white in all pictures of that row."
        " (Figure 3 of the paper.)",
    ),
    "embedding": (
        "The latent space",
        "Held-out galaxies laid out by t-SNE of their encoded means g_mu(x), each in a cell of its"
        " own near its place on the map. Neighbours should look alike, and size, tilt and"
        " concentration should change gradually across the map. All pictures share one scale of"
        " intensity. (Figure 4 of the paper.)",
    ),
    "traversal": (
        "One latent dimension at a time",
        "Each row decodes z = 0 with one coordinate moved from -3 to +3 standard deviations of the"
        " prior. A dimension in use changes the galaxy smoothly in one way, such as its tilt, size"
        " or brightness; a row that does not change is a dimension the model has switched off."
        " (Figure 5 of the paper.)",
    ),
    "samples": (
        "Galaxies from the prior",
        "Means f_mu(z) of latents drawn from the standard normal prior, beside real"
        " galaxies. They should be as varied as the real ones, and none should be unlike any"
        " galaxy. The mean carries no pixel noise, so it is smoother than an image.",
    ),
    "learning_curves": (
        "Learning curves",
        "The variational bound during training, on the images trained on and on images kept apart,"
        " and the part of it the latents cost (KL). The two bounds should rise together; training"
        " images pulling away is overfitting.",
    ),
    "squared_error": (
        "Against the bivariate Gaussian, by squared error",
        "Each point is one held-out galaxy: the squared error left by the best scaled bivariate"
        " Gaussian, fitted to that image, against the model's. The Gaussian has no sky term, as in"
        " the paper: a sky that is not zero counts against it. Below the diagonal the model is"
        " closer. The histogram shows by what factor; galaxies beyond its ends are in the hatched"
        " bars, with their number.",
    ),
    "likelihood": (
        "Against the bivariate Gaussian, by likelihood",
        "The same comparison by log likelihood per image: the model with its own variance for"
        " every pixel, the Gaussian, again without a sky term, with the one variance that suits"
        " that image best. Above the diagonal the model explains the image better.",
    ),
    "sersic_squared_error": (
        "Against the Sersic profile, by squared error",
        "The profile that astronomers fit to galaxies today, with a free index, and a constant sky:"
        " eight parameters, fitted to that image. Below the diagonal the model is closer.",
    ),
    "calibration": (
        "Are the predicted variances right?",
        "Left: the share of held-out pixels within one, two and three predicted standard deviations"
        " of the predicted mean, for each fifth of the pixels by predicted mean, beside what a"
        " normal distribution has (dashed). Above the dashes the model expects more noise than"
        " there is. Where the model's noise is not Gaussian, its intervals are those that should"
        " hold as many pixels. Right: how the pixels are distributed, in predicted standard"
        " deviations (stretched as those intervals are, where the noise is not Gaussian), beside"
        " the standard normal, on a logarithmic scale. Pixels beyond the scale are not drawn;"
        " their share is written at either end.",
    ),
    "morphology": (
        "Shapes of real and of drawn galaxies",
        "Concentration, asymmetry, Gini coefficient and ellipticity, measured in the same way on"
        " held-out galaxies and on pictures drawn from the prior with the pixel noise the model"
        " predicts. That noise is independent from pixel to pixel, which that of real pictures is"
        " not. Where the histograms agree the model's population is the real one. Hatched bars hold"
        " what lies beyond the scale.",
    ),
    "latent_coverage": (
        "Does z scatter as much as its posterior says?",
        "Pictures of galaxies that training never saw got noise of the sky's size several times"
        " over, and each time they were cut out, scaled and refined anew. Left: how far the mean of"
        " the posterior scatters, over its standard deviation, in the median of the galaxies, with"
        " the range of the middle 80%; at 1 the standard deviations are right, below they are too"
        " cautious. Right: the share of the draws within one and two standard deviations, beside"
        " what a normal distribution has (dashed). Open marks are without the temperature of each"
        " axis, which is chosen on other galaxies.",
    ),
}


def save(figure: Figure, path: str | os.PathLike, dpi: int = 160) -> Path:
    """Write a figure as PNG; a file already there is replaced only once the new one is complete."""
    write_atomically(
        path, lambda part: figure.savefig(part, format="png", dpi=dpi, facecolor="white")
    )
    return Path(path)


def reconstructions(
    images: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    baseline: np.ndarray | None = None,
    baseline_name: str = "Gaussian fit",
    residuals: bool = True,
    most: int = 8,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw figure 3 of the paper: x, f_mu(z) and f_Sigma(z), a row per galaxy.

    The intensities of a row share one scale, from the darkest to the brightest pixel of x; these
    two are written at its left.  Variances share one logarithmic scale over all rows, and residuals
    one linear scale.

    Args:
        images, mean, variance: (N, H, W); the variance in the square of the images' unit.
        baseline: (N, H, W), another model of the images, drawn beside if given.
        baseline_name: its title.
        residuals: whether to draw image minus model beside each model.
        most: no more than this many rows; the first ones.
        ids: a name for each image, (N,), written beside its row.

    Raises:
        DataError: arrays of other shapes, or another number of ids than of images.
    """
    if ids is not None and len(ids) != len(images):
        raise DataError(f"reconstructions: got {len(ids)} ids for {len(images)} images")
    images = _stack("images", images)[:most]
    mean = _stack("mean", mean)[:most]
    variance = _stack("variance", variance)[:most]
    low = images.min(axis=(1, 2), keepdims=True)
    span = np.maximum(images.max(axis=(1, 2), keepdims=True) - low, 1e-12)
    range_of_x = Normalize(0, 1)
    differences = [images - mean]
    top = max(float(np.percentile(variance, 99.9)), 1e-12)
    bottom = max(float(np.percentile(variance, 0.5)), top * 1e-6)
    bottom = min(bottom, top / 10)
    logarithmic = LogNorm(bottom, top)
    if baseline is not None:
        baseline = _stack("baseline", baseline)[:most]
        differences.append(images - baseline)
    widest = max(float(np.percentile(np.abs(differences), 99.8)), 1e-12)
    signed = Normalize(-widest, widest)

    columns: list[tuple[str, np.ndarray, str, Normalize, str]] = [
        ("$x$", (images - low) / span, INTENSITY, range_of_x, "range of x"),
        (r"$f_\mu(z)$", (mean - low) / span, INTENSITY, range_of_x, "range of x"),
        (r"$f_\Sigma(z)$", variance, VARIANCE, logarithmic, "variance"),
    ]
    if residuals:
        columns.append((r"$x - f_\mu(z)$", differences[0], RESIDUAL, signed, "residual"))
    if baseline is not None:
        scaled = (baseline - low) / span
        columns.append((baseline_name, scaled, INTENSITY, range_of_x, "range of x"))
        if residuals:
            columns.append(
                (
                    f"$x$ \N{MINUS SIGN} {baseline_name}",
                    differences[1],
                    RESIDUAL,
                    signed,
                    "residual",
                )
            )

    rows, cell, gap, head, foot, margin = len(images), 1.15, 0.08, 0.32, 0.62, 1.25
    size = (margin + len(columns) * (cell + gap), rows * cell + head + foot)
    figure = Figure(size)
    for i, (title, pictures, colours, norm, unit_name) in enumerate(columns):
        left = margin + i * (cell + gap)
        picture = _mosaic(pictures[:, None])
        # Lines between rows are a good part of small pictures: without them a cell is square.
        width = cell * rows * pictures.shape[1] / len(picture)
        axes = _axes(figure, left, foot, width, rows * cell)
        drawn = _draw(axes, picture, colours, norm)
        axes.set_title(title, fontsize=10, pad=5)
        bar_axes = _axes(figure, left + 0.1, foot - 0.2, cell - 0.2, 0.1)
        bar = figure.colorbar(drawn, cax=bar_axes, orientation="horizontal")
        if norm is range_of_x:
            bar.set_ticks([0, 1], labels=["min", "max"])
        elif norm is logarithmic:
            ticks = _round_numbers(bottom, top, 3)
            bar.set_ticks(ticks, labels=[_power(tick) for tick in ticks])
        else:
            bar.locator = MaxNLocator(3, symmetric=True)
        bar.ax.tick_params(labelsize=6, length=2, pad=1.5)
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        bar.ax.set_xlabel(unit_name, fontsize=7, labelpad=1)
        if i == 0:
            axes.set_yticks(_centres(rows * images.shape[1], rows) + 2 * np.arange(rows))
            ranges = [_range(float(x.min()), float(x.max())) for x in images]
            names = [_shortened(name) for name in ids[:most]] if ids is not None else [""] * rows
            axes.set_yticklabels(
                [f"{name}\n{text}".strip() for name, text in zip(names, ranges, strict=True)]
            )
            axes.tick_params(length=0, labelsize=7.5, pad=3)
    return figure


def _range(low: float, high: float) -> str:
    """Both ends of a range, to a thousandth of its width."""
    digits = 3 - math.floor(math.log10(high - low or 1.0)) - 1
    low, high = (round(value, digits) + 0.0 for value in (low, high))
    return f"{low:.6g} to {high:.6g}".replace("-", "\N{MINUS SIGN}")


def _shortened(name: str, most: int = 18) -> str:
    """A name of at most `most` characters, without its middle if need be; $ is no formula."""
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{name[most // 2 - most :]}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name).replace(
        "$", r"\$"
    )


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers from `low` to `high`, both above 0, for a logarithmic scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**k for k in decades for m in mantissas]
        found = [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def _power(value: float) -> str:
    """0.0003 as 3 times a power of ten."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    power = f"10^{{{exponent}}}"
    return f"${power}$" if round(mantissa, 3) == 1 else rf"${mantissa:.3g}\!\cdot\!{power}$"


def embedding(z_mean: np.ndarray, images: np.ndarray, seed: int = 0, most: int = 600) -> Figure:
    """Figure 4 of the paper: t-SNE of g_mu(x), drawn with the galaxies themselves.

    Every galaxy gets a cell of a square grid to itself, near its place on the map: of all such
    assignments the one with the least sum of squared distances.  So pictures never overlap and
    none is left out.

    Args:
        z_mean: (N, latent), the encoded means.
        images: (N, H, W).
        seed: of t-SNE and of the choice of galaxies.
        most: no more than this many galaxies, chosen at random.
    """
    images, z_mean = _stack("images", images), np.asarray(z_mean, dtype=np.float64)
    if z_mean.ndim != 2 or len(z_mean) != len(images) or not np.isfinite(z_mean).all():
        raise DataError(
            f"embedding: expected finite encoded means ({len(images)}, latent), one row for each"
            f" image, got an array of {z_mean.shape}"
        )
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
    picture = np.full((*shape, *images.shape[1:]), np.percentile(images, 1))
    picture[rows, columns] = images
    cell = min(8 / max(shape), LARGEST_CELL)
    height, width = (cell * cells_across for cells_across in shape)
    figure = Figure((width, height))
    _draw(_axes(figure, 0, 0, width, height), _mosaic(picture, 0), INTENSITY, _bright(images))
    return figure


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) to (N, 2); fewer than five points stay on a line, for t-SNE has no say about them."""
    if len(points) < 5:
        return np.stack([np.arange(len(points)), np.zeros(len(points))], axis=1)
    perplexity = min(30.0, (len(points) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="random", random_state=seed)
    # Its threads wait for each other by spinning, thousands of times: on a machine with other work
    # two threads took 32 s where one takes 4.
    with threadpool_limits(1):
        return method.fit_transform(points)


def traversal(decoded: np.ndarray, values: Sequence[float] | np.ndarray) -> Figure:
    """Figure 5 of the paper: one latent dimension at a time, a row for each.

    Args:
        decoded: (dimensions, steps, H, W), the decoded means f_mu(z).
        values: (steps,), where on its axis each was decoded, in standard deviations of the prior.
    """
    decoded = np.asarray(decoded, dtype=np.float64)
    if decoded.ndim != 4 or decoded.shape[1] != len(values):
        raise DataError(
            f"traversal: expected decoded images (dimensions, {len(values)} steps, H, W),"
            f" got an array of {decoded.shape}"
        )
    rows, steps = decoded.shape[:2]
    cell, left, head, edge, foot = 0.8, 0.45, 0.45, 0.06, 0.25
    figure = Figure((left + steps * cell + edge, head + rows * cell + foot))
    axes = _axes(figure, left, foot, steps * cell, rows * cell)
    picture, norm = _mosaic(decoded), _bright(decoded)
    _draw(axes, picture, INTENSITY, norm)
    _say_scale(figure, norm)
    axes.xaxis.tick_top()
    axes.set_xticks(
        _centres(picture.shape[1], steps),
        [f"{value:+.3g}".replace("-", "\N{MINUS SIGN}") if value else "0" for value in values],
    )
    axes.set_yticks(_centres(picture.shape[0], rows), [f"$z_{{{i + 1}}}$" for i in range(rows)])
    axes.tick_params(length=0, labelsize=9)
    axes.set_title("standard deviations from the mean of the prior", fontsize=SMALL, pad=4)
    return figure


def samples(
    drawn: np.ndarray, real: np.ndarray | None = None, columns: int = 8, most: int = 64
) -> Figure:
    """Galaxies drawn from the model, beside as many real ones.

    Args:
        drawn: (N, H, W), decoded means of latents from the prior.
        real: (M, H, W), real galaxies; both panels share one intensity scale.
        columns: pictures in a row of each panel.
        most: no more than this many in each panel.
    """
    panels = [("drawn from the prior", _stack("drawn", drawn)[:most])]
    if real is not None:
        count = len(panels[0][1])
        panels.append(("real galaxies", _stack("real", real)[:count]))
    columns = min(columns, len(panels[0][1]))
    rows = math.ceil(len(panels[0][1]) / columns)
    norm = _bright(panels[-1][1])
    cell, gap, head, edge, foot = 0.62, 0.25, 0.3, 0.06, 0.25
    width = columns * cell
    figure = Figure((2 * edge + len(panels) * (width + gap) - gap, head + rows * cell + foot))
    _say_scale(figure, norm)
    for i, (title, images) in enumerate(panels):
        cells = np.full((rows * columns, *images.shape[1:]), np.nan)
        cells[: len(images)] = images
        axes = _axes(figure, edge + i * (width + gap), foot, width, rows * cell)
        _draw(axes, _mosaic(cells.reshape(rows, columns, *images.shape[1:])), INTENSITY, norm)
        axes.set_title(title, fontsize=10, pad=5)
    return figure


def learning_curves(history: Mapping[str, Sequence[float] | np.ndarray]) -> Figure:
    """Bounds and KL during training.

    The first iterations are far below all others; the scale is that of what comes after them, and
    they leave the frame below.

    Args:
        history: one array per name, all of one length: ``iteration``, and any of ``train_elbo``,
            ``validation_elbo``, ``held_out_elbo`` and ``kl``, in nats per image; NaN where it was
            not measured.
    """
    if "iteration" not in history or len(history["iteration"]) == 0:
        raise DataError("learning_curves: the history has no 'iteration', so nothing to draw")
    iteration = np.asarray(history["iteration"], dtype=np.float64)
    series = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in history.items()
        if name != "iteration"
    }
    bounds = {
        "train_elbo": ("training", NEUTRAL),
        "validation_elbo": ("validation", MODEL),
        "held_out_elbo": ("held out", BASELINE),
    }
    figure = Figure((7, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    figure.subplots_adjust(left=0.12, right=0.98, top=0.97, bottom=0.11, hspace=0.08)
    shown = [name for name in bounds if name in series]
    for name in shown:
        _curve(upper, iteration, series[name], *bounds[name])
    if "kl" in series:
        _curve(lower, iteration, series["kl"], "KL", MODEL)
    upper.set_ylabel("bound, nats per image", fontsize=SMALL)
    lower.set_ylabel("KL, nats per image", fontsize=SMALL)
    lower.set_xlabel("iteration", fontsize=SMALL)
    if shown:
        upper.legend(frameon=False, fontsize=SMALL, loc="lower right")
    for axes in (upper, lower):
        _later_limits(axes, iteration)
        _plain(axes)
    return figure


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, colour: str) -> None:
    measured = np.isfinite(y)
    x, y = x[measured], y[measured]
    if len(y) > 200:
        # Minibatch noise, with the running mean it hides.
        axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.35)
        window = len(y) // 50
        y = np.convolve(y, np.ones(window) / window, mode="valid")
        x = x[window // 2 : window // 2 + len(y)]
    marker = "o" if len(y) < 40 else None
    axes.plot(x, y, color=colour, linewidth=1.5, marker=marker, markersize=3, label=label)


def _later_limits(axes: Axes, iteration: np.ndarray) -> None:
    """Scale the axes to what the labelled curves do after the first tenth of the iterations."""
    start, end = iteration[0], iteration[-1]
    axes.set_xlim(start, end if end > start else start + 1)
    later = [np.empty(0)]
    for line in axes.get_lines():
        if not str(line.get_label()).startswith("_"):
            x, y = np.asarray(line.get_xydata()).T
            later.append(y[x >= start + 0.1 * (end - start)])
    values = np.concatenate(later)
    if len(values):
        low, high = values.min(), values.max()
        margin = 0.2 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)


def comparison(
    model: np.ndarray,
    baseline: np.ndarray,
    name: str = "bivariate Gaussian",
    quantity: str = "squared error",
    higher_is_better: bool = False,
) -> Figure:
    """One point per image, the model against a baseline, with the count of wins.

    Args:
        model, baseline: (N,), the quantity of each image.
        name: of the baseline.
        quantity: what is compared.
        higher_is_better: False for an error, which is positive and drawn on logarithmic axes; True
            for a log likelihood, which is drawn on linear ones.
    """
    model, baseline = (np.asarray(values, dtype=np.float64) for values in (model, baseline))
    if model.ndim != 1 or model.shape != baseline.shape or len(model) == 0:
        raise DataError(
            "comparison: expected one number an image from both sides, got arrays of"
            f" {model.shape} and {baseline.shape}"
        )
    wins = model > baseline if higher_is_better else model < baseline
    figure = Figure((8, 4))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1])
    figure.subplots_adjust(left=0.09, right=0.98, top=0.9, bottom=0.12, wspace=0.24)
    unit = ", nats" if higher_is_better else ""

    if higher_is_better:
        ends = np.percentile([model, baseline], [1, 100])
        margin = 0.05 * (ends[1] - ends[0]) or 1.0
        limits = (ends[0] - margin, ends[1] + margin)
        advantage = model - baseline
        advantage_name = f"{quantity}, model minus {name}{unit}"
    else:
        tiny = max(float(np.max([model, baseline])), 1e-12) * 1e-9
        model, baseline = np.maximum(model, tiny), np.maximum(baseline, tiny)
        limits = (np.min([model, baseline]) / 1.3, np.max([model, baseline]) * 1.3)
        left.set_xscale("log")
        left.set_yscale("log")
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_locator(FixedLocator(_round_numbers(*limits, 5)))
            axis.set_major_formatter(
                lambda value, _: f"{value:g}" if 1e-3 < value < 1e4 else _power(value)
            )
            axis.set_minor_locator(NullLocator())
        advantage = np.log2(baseline / model)
        advantage_name = f"{quantity}, {name} over model"
    for chosen, colour in ((wins, MODEL), (~wins, BASELINE)):
        left.scatter(
            baseline[chosen], model[chosen], s=7, color=colour, alpha=0.6, linewidths=0, zorder=3
        )
    left.plot(limits, limits, color="black", linewidth=0.8)
    left.set_xlim(limits)
    left.set_ylim(limits)
    left.set_aspect("equal")
    left.set_xlabel(f"{quantity}, {name}{unit}", fontsize=SMALL)
    left.set_ylabel(f"{quantity}, model{unit}", fontsize=SMALL)

    # Zero, where neither is better, is an edge between two bins.
    low, high = np.percentile(advantage, [0.5, 99.5])
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 40 or 1.0
    bins = step * np.arange(math.floor(low / step), max(math.ceil(high / step), 1) + 1)
    for chosen, colour in ((wins, MODEL), (~wins, BASELINE)):
        right.hist(advantage[chosen], bins=bins, color=colour)
    below, above = np.sum(advantage < bins[0]), np.sum(advantage > bins[-1])
    _beyond(
        right, bins, [(below, above)], [BASELINE, MODEL], f"{below:,} below", f"{above:,} above"
    )
    if higher_is_better:
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_major_formatter(lambda value, _: _readable(value))
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=STEPS))
        unseen = np.sum(np.minimum(model, baseline) < limits[0])
        if unseen:
            left.text(
                0.98,
                0.02,
                f"{unseen:,} below these axes",
                transform=left.transAxes,
                fontsize=7,
                ha="right",
                color="#404448",
            )
    else:
        ticks = _round_numbers(float(2 ** bins[0]), float(2 ** bins[-1]), 6)
        right.xaxis.set_major_locator(FixedLocator([math.log2(tick) for tick in ticks]))
        right.xaxis.set_major_formatter(lambda power, _: f"{2**power:.3g}")
    right.axvline(0.0, color="black", linewidth=0.8)
    right.set_xlabel(advantage_name, fontsize=SMALL)
    right.set_ylabel("images", fontsize=SMALL)
    right.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (left, right):
        _plain(axes)
    figure.suptitle(
        f"{quantity}: the model is better on {wins.sum():,} of {len(wins):,} images",
        fontsize=10,
        y=0.97,
    )
    return figure


def calibration(result: Calibration) -> Figure:
    """Draw coverage by predicted brightness, and the distribution of the scores."""
    figure = Figure((8, 3.6))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.91, bottom=0.14, wspace=0.22)
    fifths = np.arange(1, len(result.by_quintile) + 1)
    for i, colour in enumerate((MODEL, BASELINE, NEUTRAL)):
        left.axhline(NOMINAL[i], color=colour, linewidth=0.9, linestyle="--")
        left.plot(
            fifths,
            result.by_quintile[:, i],
            color=colour,
            marker="o",
            markersize=4,
            label=f"{i + 1} sd ({NOMINAL[i]:.1%})",
        )
    left.set_xticks(fifths)
    left.set_ylim(min(0.5, result.by_quintile.min() - 0.05), 1.02)
    left.set_xlabel("fifth of the pixels by predicted mean, darkest first", fontsize=SMALL)
    left.set_ylabel("share of pixels within", fontsize=SMALL)
    left.legend(
        frameon=False,
        fontsize=SMALL,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        columnspacing=1,
        handlelength=1.5,
    )

    centres = (EDGES[1:] + EDGES[:-1]) / 2
    right.stairs(result.density, EDGES, color=MODEL, linewidth=1.2, label="pixels held out")
    right.plot(
        centres,
        normal_distribution.pdf(centres),
        color="black",
        linewidth=0.8,
        label="standard normal",
    )
    right.set_yscale("log")
    seen = result.density[result.density > 0]
    least = seen.min() / 2 if len(seen) else 1e-4
    right.set_ylim(max(min(least, 1e-4), 1e-7), 1)
    for place, side, share, words in (
        (0.02, "left", result.beyond[0], f"below {EDGES[0]:.0f} sd"),
        (0.98, "right", result.beyond[1], f"above {EDGES[-1]:.0f} sd"),
    ):
        text = f"{words}:\n{100 * share:.2g}%".replace("-", "\N{MINUS SIGN}")
        right.text(
            place, 0.6, text, transform=right.transAxes, fontsize=SMALL, ha=side, va="center"
        )
    right.set_xlabel("pixel, in predicted sd", fontsize=SMALL)
    right.set_ylabel("density", fontsize=SMALL)
    right.legend(frameon=False, fontsize=SMALL, loc="upper right")
    for axes in (left, right):
        _plain(axes)
    return figure


def morphology(real: np.ndarray, drawn: np.ndarray) -> Figure:
    """Four histograms, real galaxies against drawn ones.

    Args:
        real, drawn: (N, 4) and (M, 4), from `layerkit.galaxy.evaluation.morphology`; rows of NaN,
            which could not be measured, are left out and counted.
    """
    figure = Figure((8, 5.2))
    panels = figure.subplots(2, 2).reshape(-1)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.93, bottom=0.1, hspace=0.34, wspace=0.2)
    for i, (axes, name) in enumerate(zip(panels, STATISTICS, strict=True)):
        values = [v[np.isfinite(v[:, i]), i] for v in (real, drawn)]
        both = np.concatenate(values)
        low, high = np.percentile(both, [0.5, 99.5]) if len(both) else (0.0, 1.0)
        bins = np.linspace(low, high if high > low else low + 1, 36)
        sides = (("real", NEUTRAL, "stepfilled", 0.55), ("drawn from the prior", MODEL, "step", 1))
        outside = []
        for v, (label, colour, kind, alpha) in zip(values, sides, strict=True):
            share = 1 / max(len(v), 1)
            axes.hist(
                v,
                bins,
                histtype=kind,
                color=colour,
                alpha=alpha,
                linewidth=1.5,
                weights=np.full(len(v), share),
                label=f"{label} ({len(v):,})",
            )
            outside.append((share * np.sum(v < bins[0]), share * np.sum(v > bins[-1])))
        _beyond(axes, bins, outside, [NEUTRAL, MODEL], "below", "above")
        axes.set_xlabel(name, fontsize=SMALL)
        if i % 2 == 0:
            axes.set_ylabel("share of galaxies", fontsize=SMALL)
        _plain(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=SMALL, loc="upper center", ncols=2)
    return figure


def latent_coverage(result: LatentCoverage, temperature: np.ndarray | None = None) -> Figure:
    """Scatter over standard deviation and coverage of each axis of z.

    Args:
        result: measured with the model's temperature.
        temperature: (latent,); draws beside it what there would be without.
    """
    figure = Figure((8, 3.6))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.14, wspace=0.22)
    axis = np.arange(1, result.sd.shape[-1] + 1)
    results = [(result, MODEL, "as reported")]
    if temperature is not None and (temperature > 1).any():
        results.append((result.untempered(temperature), BASELINE, "without temperature"))
    for k, (found, colour, label) in enumerate(results):
        low, middle, high = np.percentile(found.ratios, [10, 50, 90], axis=0)
        face = colour if k == 0 else "white"
        left.errorbar(
            axis + 0.2 * k,
            middle,
            [middle - low, high - middle],
            fmt="o",
            markersize=4,
            color=colour,
            markerfacecolor=face,
            linewidth=1,
            label=label,
        )
        for within, marker in zip(found.within, "os", strict=True):
            right.plot(
                axis + 0.2 * k, within, marker, markersize=4, color=colour, markerfacecolor=face
            )
    left.axhline(1, color=NEUTRAL, linewidth=0.9, linestyle="--")
    left.set_ylim(0, None)
    left.set_ylabel("scatter over standard deviation", fontsize=SMALL)
    left.legend(frameon=False, fontsize=SMALL, ncol=2, loc="lower left", bbox_to_anchor=(0, 1))
    for nominal in NOMINAL[:2]:
        right.axhline(nominal, color=NEUTRAL, linewidth=0.9, linestyle="--")
    right.set_ylim(0, 1.02)
    right.set_ylabel("share of draws within 1 (dots) and 2 sd (squares)", fontsize=SMALL)
    for axes in (left, right):
        axes.set_xlabel("axis of z", fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return figure


def _beyond(
    axes: Axes,
    bins: np.ndarray,
    heights: Sequence[tuple[float, float]],
    colours: Sequence[str],
    below: str,
    above: str,
) -> None:
    """Draw what lies outside of a histogram's bins as hatched bars of their own, with words.

    Ticks stay within the bins.

    Args:
        axes: they have the histogram.
        bins: its edges.
        heights: below and above the bins, for each of the sets drawn.
        colours: of the sets; with one set, of the bar below and of the bar above.
        below, above: the words.
    """
    step = bins[1] - bins[0]
    width, gap = 1.5 * step, step
    ends = [bins[0] - gap, bins[-1] + gap]
    for side, (x, text) in enumerate(((ends[0] - width, below), (ends[1], above))):
        found = [pair[side] for pair in heights]
        if not any(found):
            continue
        for i, height in enumerate(found):
            colour = colours[side if len(found) == 1 else i]
            part = width / len(found)
            axes.bar(
                x + i * part,
                height,
                part,
                align="edge",
                facecolor="white",
                edgecolor=colour,
                hatch="//////",
                linewidth=1,
                zorder=2,
            )
        axes.annotate(
            text,
            (x + width / 2, max(found)),
            (0, 3),
            textcoords="offset points",
            rotation=90,
            fontsize=6.5,
            ha="center",
            va="bottom",
            color="#404448",
        )
        # The words take a quarter of the height, and shall not leave the frame.
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.3 * max(found)))
    ticks = MaxNLocator(5, steps=STEPS).tick_values(bins[0], bins[-1])
    axes.xaxis.set_major_locator(FixedLocator(ticks[(ticks >= bins[0]) & (ticks <= bins[-1])]))
    low, high = axes.get_xlim()
    axes.set_xlim(
        min(low, ends[0] - width - gap) if any(h[0] for h in heights) else low,
        max(high, ends[1] + width + gap) if any(h[1] for h in heights) else high,
    )


def _readable(value: float) -> str:
    """A number for a tick: thousands apart, few digits."""
    text = f"{value:,.0f}" if 1 <= abs(value) < 1e6 or not value else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _say_scale(figure: Figure, norm: Normalize) -> None:
    """Write below the pictures which intensities are black and white."""
    figure.text(
        0.99,
        0.06 / figure.get_size_inches()[1],
        f"intensity: black {norm.vmin:.3g}, white {norm.vmax:.3g}",
        fontsize=7,
        ha="right",
        va="bottom",
        color="#404448",
    )


def _stack(name: str, images: np.ndarray) -> np.ndarray:
    """Images as float64; an untrained net may overflow, and that must not stop a figure."""
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"figures: expected {name} (N, H, W), got an array of {images.shape}")
    return np.nan_to_num(images, posinf=1e30, neginf=-1e30)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches, so that pictures sit exactly side by side."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _mosaic(pictures: np.ndarray, gap: int = 2) -> np.ndarray:
    """(rows, columns, H, W) to one picture, with NaN between them."""
    rows, columns, height, width = pictures.shape
    padded = np.full((rows, columns, height + gap, width + gap), np.nan)
    padded[:, :, :height, :width] = pictures
    joined = padded.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    return joined[: joined.shape[0] - gap, : joined.shape[1] - gap]


def _centres(pixels: int, cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) * pixels / cells - 0.5


def _bright(images: np.ndarray) -> Normalize:
    """One scale for many galaxies: from the sky to what only the brightest cores exceed."""
    low, high = np.percentile(images, [1, 99.7])
    return Normalize(float(low), float(high) if high > low else float(low) + 1)


def _draw(axes: Axes, picture: np.ndarray, colours: str | Colormap, norm: Normalize) -> AxesImage:
    drawn = axes.imshow(picture, cmap=colours, norm=norm, interpolation="antialiased")
    axes.set_aspect("auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return drawn


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(True, color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
