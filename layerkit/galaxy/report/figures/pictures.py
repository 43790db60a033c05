"""Rows and grids of pictures: reconstructions, the traversal of z, and samples."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from layerkit.errors import DataError
from layerkit.galaxy.report.figures.style import (
    GAP,
    INTENSITY,
    RESIDUAL,
    SMALL,
    VARIANCE,
    Figure,
    axes_at,
    centres,
    check_ids,
    draw,
    mark,
    mosaic,
    power_of_ten,
    round_numbers,
    shared_scale,
    stack,
    write_scale,
)

Panel = tuple[str, np.ndarray, Sequence[str] | None]  # title, pictures (N, H, W) and their ids


def reconstructions(
    images: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    baseline: np.ndarray | None = None,
    baseline_name: str = "Gaussian fit",
    residuals: bool = True,
    most: int = 8,
    ids: Sequence[str] | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Figure:
    """Draw figure 3 of the paper: x, f_mu(z) and f_Sigma(z), a row per galaxy.

    The intensities of a row share one scale, from the darkest to the brightest pixel of x within
    the limits, both of which are written at the left of the row.  All variances share one
    logarithmic scale, and all residuals one linear scale.

    Args:
        images, mean, variance: x, f_mu(z) and f_Sigma(z), (N, H, W); the variance has the square
            of the images' unit.
        baseline: another model of the images, (N, H, W), drawn in a column of its own; None for no
            such column.
        baseline_name: title of that column.
        residuals: True to draw image minus model beside each model.
        most: largest number of rows; of more images, the first are drawn.
        ids: names of the images, (N,), written beside their rows.
        limits: that no scale exceeds, as a lone hot pixel would turn the galaxy beside it black.

    Raises:
        DataError: arrays of other shapes, or another number of ids than of images.
    """
    check_ids("reconstructions", ids, images)
    images = stack("images", images)[:most]
    mean = stack("mean", mean)[:most]
    variance = stack("variance", variance)[:most]
    low, high = (end(axis=(1, 2), keepdims=True).clip(*limits) for end in (images.min, images.max))
    span = np.maximum(high - low, 1e-12)
    range_of_x = Normalize(0, 1)
    differences = [images - mean]
    top = max(float(np.percentile(variance, 99.9)), 1e-12)
    bottom = max(float(np.percentile(variance, 0.5)), top * 1e-6)
    bottom = min(bottom, top / 10)
    logarithmic = LogNorm(bottom, top)
    if baseline is not None:
        baseline = stack("baseline", baseline)[:most]
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
        picture = mosaic(pictures[:, None])
        # A cell is to be square without the lines between rows, which are much of small pictures.
        width = cell * rows * pictures.shape[1] / len(picture)
        axes = axes_at(figure, left, foot, width, rows * cell)
        drawn = draw(axes, picture, colours, norm)
        for row, galaxy in enumerate(ids[:most] if ids is not None else ()):
            corner = (-0.5, row * (images.shape[1] + GAP) - 0.5)
            mark(axes, corner, (images.shape[2], images.shape[1]), galaxy)
        axes.set_title(title, fontsize=10 if len(title) < 12 else 9, pad=5)
        bar_axes = axes_at(figure, left + 0.1, foot - 0.2, cell - 0.2, 0.1)
        bar = figure.colorbar(drawn, cax=bar_axes, orientation="horizontal")
        if norm is range_of_x:
            bar.set_ticks([0, 1], labels=["min", "max"])
        elif norm is logarithmic:
            ticks = round_numbers(bottom, top, 3)
            bar.set_ticks(ticks, labels=[power_of_ten(tick) for tick in ticks])
        else:
            bar.locator = MaxNLocator(3, symmetric=True)
        bar.ax.tick_params(labelsize=6, length=2, pad=1.5)
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        bar.ax.set_xlabel(unit_name, fontsize=7, labelpad=1)
        if i == 0:
            axes.set_yticks(centres(rows * images.shape[1], rows) + GAP * np.arange(rows))
            ranges = [
                _range(*ends)
                for ends in zip(low.ravel().tolist(), high.ravel().tolist(), strict=True)
            ]
            names = [_shortened(name) for name in ids[:most]] if ids is not None else [""] * rows
            axes.set_yticklabels(
                [f"{name}\n{text}".strip() for name, text in zip(names, ranges, strict=True)]
            )
            axes.tick_params(length=0, labelsize=7.5, pad=3)
    return figure


def _range(low: float, high: float) -> str:
    """Write both ends of a range, to a thousandth of its width."""
    digits = 3 - math.floor(math.log10(high - low or 1.0)) - 1
    low, high = (round(value, digits) + 0.0 for value in (low, high))
    return f"{low:.6g} to {high:.6g}".replace("-", "\N{MINUS SIGN}")


def _shortened(name: str, most: int = 18) -> str:
    """Shorten a name to `most` characters by its middle; escape $, which opens formulas."""
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{name[most // 2 - most :]}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name).replace(
        "$", r"\$"
    )


def traversal(decoded: np.ndarray, values: Sequence[float] | np.ndarray) -> Figure:
    """Draw figure 5 of the paper: one latent dimension at a time, a row for each.

    Args:
        decoded: the decoded means f_mu(z), (dimensions, steps, H, W).
        values: the coordinate that each column was decoded at, (steps,), in standard deviations
            of the prior.

    Raises:
        DataError: decoded means of another shape.
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
    axes = axes_at(figure, left, foot, steps * cell, rows * cell)
    picture, norm = mosaic(decoded), shared_scale(decoded)
    draw(axes, picture, INTENSITY, norm)
    write_scale(figure, norm)
    axes.xaxis.tick_top()
    axes.set_xticks(
        centres(picture.shape[1], steps),
        [f"{value:+.3g}".replace("-", "\N{MINUS SIGN}") if value else "0" for value in values],
    )
    axes.set_yticks(centres(picture.shape[0], rows), [f"$z_{{{i + 1}}}$" for i in range(rows)])
    axes.tick_params(length=0, labelsize=9)
    axes.set_title("standard deviations from the mean of the prior", fontsize=SMALL, pad=4)
    return figure


def samples(
    drawn: np.ndarray,
    real: np.ndarray | None = None,
    columns: int = 8,
    most: int = 64,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw galaxies from the model, and beside them as many real ones.

    Args:
        drawn: decoded means of latents from the prior, (N, H, W).
        real: real galaxies, (M, H, W); both panels share one scale of intensity.  None leaves
            their panel out.
        columns: number of pictures in a row of each panel.
        most: largest number of pictures in each panel; of more, the first are drawn.  Both panels
            have as many.
        ids: names of the real galaxies, (M,), which mark their places for the report.

    Raises:
        DataError: arrays of other shapes, or another number of ids than of real galaxies.
    """
    panels: list[Panel] = [("drawn from the prior", stack("drawn", drawn)[:most], None)]
    if real is not None:
        check_ids("samples", ids, real)
        panels.append(("real galaxies", stack("real", real)[:most], ids))
        count = min(len(images) for _, images, _ in panels)
        panels = [(title, images[:count], names) for title, images, names in panels]
    return _panels(panels, columns)


def outliers(
    images: np.ndarray,
    bounds: np.ndarray,
    columns: int = 8,
    most: int = 64,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw the galaxies that a model explains worst, and those that it explains as most do.

    Left are those of the lowest bounds, the lowest first; right those whose bounds are nearest to
    the median.  Both panels share one scale of intensity.

    Args:
        images: (N, H, W).
        bounds: of each image, (N,), in nats.
        columns: number of pictures in a row of each panel.
        most: largest number of pictures in each panel, and at most half of the images.
        ids: names of the images, (N,), which mark their places for the report.

    Raises:
        DataError: images of another shape, or another number of bounds or ids than of images.
    """
    images = stack("images", images)
    check_ids("outliers", ids, images)
    bounds = np.asarray(bounds, np.float64)
    if bounds.shape != (len(images),):
        raise DataError(
            f"outliers: expected a bound for each of {len(images)} images, got an array of "
            f"{bounds.shape}"
        )
    count = min(most, max(1, len(images) // 2))
    worst = np.argsort(bounds, kind="stable")
    usual = np.argsort(np.abs(bounds - np.median(bounds)), kind="stable")
    chosen = {"strangest": worst[:count], "most typical": usual[:count]}
    panels = [
        (title, images[rows], None if ids is None else [ids[row] for row in rows])
        for title, rows in chosen.items()
    ]
    return _panels(panels, columns)


def _panels(panels: Sequence[tuple[str, np.ndarray, Sequence[str] | None]], columns: int) -> Figure:
    """Draw panels of pictures side by side, on the scale of the last one.

    Args:
        panels: as many pictures in each.
        columns: number of pictures in a row.
    """
    columns = min(columns, len(panels[0][1]))
    rows = math.ceil(len(panels[0][1]) / columns)
    norm = shared_scale(panels[-1][1])
    cell, gap, head, edge, foot = 0.62, 0.25, 0.3, 0.06, 0.25
    width = columns * cell
    figure = Figure((2 * edge + len(panels) * (width + gap) - gap, head + rows * cell + foot))
    write_scale(figure, norm)
    for i, (title, images, ids) in enumerate(panels):
        cells = np.full((rows * columns, *images.shape[1:]), np.nan)
        cells[: len(images)] = images
        axes = axes_at(figure, edge + i * (width + gap), foot, width, rows * cell)
        draw(axes, mosaic(cells.reshape(rows, columns, *images.shape[1:])), INTENSITY, norm)
        axes.set_title(title, fontsize=10, pad=5)
        high, wide = (n + GAP for n in images.shape[1:])
        for k, galaxy in enumerate(ids[: len(images)] if ids is not None else ()):
            corner = (k % columns * wide - 0.5, k // columns * high - 0.5)
            mark(axes, corner, (wide - GAP, high - GAP), galaxy)
    return figure
