"""Shapes of real galaxies beside those of galaxies that the model draws."""

import numpy as np

from layerkit.galaxy.evaluation.morphology import STATISTICS
from layerkit.galaxy.report.figures.style import (
    MODEL,
    NEUTRAL,
    SMALL,
    Figure,
    bars_beyond,
    bins_for,
    plain,
)


def morphology(real: np.ndarray, drawn: np.ndarray) -> Figure:
    """Draw a histogram of each of the four statistics, for real galaxies and for drawn ones.

    Args:
        real, drawn: statistics from `layerkit.galaxy.evaluation.morphology`, (N, 4) and (M, 4).
            NaN, which stands for what could not be measured, is left out; the legend gives the
            number of galaxies that remain.
    """
    figure = Figure((8, 5.2))
    panels = figure.subplots(2, 2).reshape(-1)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.93, bottom=0.1, hspace=0.34, wspace=0.2)
    for i, (axes, name) in enumerate(zip(panels, STATISTICS, strict=True)):
        values = [v[np.isfinite(v[:, i]), i] for v in (real, drawn)]
        both = np.concatenate(values)
        low, high = np.percentile(both, [0.5, 99.5]) if len(both) else (0.0, 1.0)
        count = bins_for(min(map(len, values)), 36)
        bins = np.linspace(low, high if high > low else low + 1, count + 1)
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
        bars_beyond(axes, bins, outside, [NEUTRAL, MODEL], "below", "above")
        axes.set_xlabel(name, fontsize=SMALL)
        if i % 2 == 0:
            axes.set_ylabel("share of galaxies", fontsize=SMALL)
        plain(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=SMALL, loc="upper center", ncols=2)
    return figure
