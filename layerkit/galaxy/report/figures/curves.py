"""Learning curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from layerkit.errors import DataError
from layerkit.galaxy.report.figures.style import (
    BASELINE,
    MODEL,
    NEUTRAL,
    SMALL,
    Figure,
    plain,
    readable,
)


def learning_curves(history: Mapping[str, Sequence[float] | np.ndarray]) -> Figure:
    """Draw the bounds and the KL divergence during training.

    The bounds of the first iterations are far below all others.  They do not count for the scale,
    and the curves enter the frame from below.

    Args:
        history: one sequence per name, all of one length: ``iteration``, and any of
            ``train_elbo``, ``validation_elbo``, ``held_out_elbo`` and ``kl``, in nats per image;
            NaN at iterations that were not measured.

    Raises:
        DataError: no ``iteration``, or an empty one.
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
        plain(axes)
        axes.yaxis.set_major_formatter(lambda value, _: readable(value))
    lower.xaxis.set_major_formatter(lambda value, _: readable(value))
    return figure


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, colour: str) -> None:
    """Draw a curve, or of a long one its running mean over the faint curve itself."""
    measured = np.isfinite(y)
    x, y = x[measured], y[measured]
    if len(y) > 200:
        axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.35)
        window = len(y) // 50
        y = np.convolve(y, np.ones(window) / window, mode="valid")
        x = x[window // 2 : window // 2 + len(y)]
    marker = "o" if len(y) < 40 else None
    axes.plot(x, y, color=colour, linewidth=1.5, marker=marker, markersize=3, label=label)


def _later_limits(axes: Axes, iteration: np.ndarray) -> None:
    """Fit the axes to the labelled curves after the first tenth of the iterations."""
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
