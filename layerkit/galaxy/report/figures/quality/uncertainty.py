"""How honest the model's uncertainties are: of pixels, and of z."""

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm as normal_distribution

from layerkit.galaxy.evaluation.calibration import EDGES, NOMINAL, Calibration
from layerkit.galaxy.evaluation.coverage.latent_coverage import LatentCoverage
from layerkit.galaxy.report.figures.style import (
    BACKGROUND,
    BASELINE,
    INK,
    MODEL,
    NEUTRAL,
    SMALL,
    Figure,
    plain,
)


def calibration(result: Calibration) -> Figure:
    """Draw the coverage of pixels by predicted brightness, and the distribution of their scores."""
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
        centres, normal_distribution.pdf(centres), color=INK, linewidth=0.8, label="standard normal"
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
        plain(axes)
    return figure


def latent_coverage(result: LatentCoverage, temperature: np.ndarray | None = None) -> Figure:
    """Draw scatter over standard deviation, and coverage, of each axis of z.

    Args:
        result: coverage measured with the model's temperature.
        temperature: that temperature, (latent,), to draw the coverage without it too; None, or 1
            for every axis, leaves this out.
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
        face = colour if k == 0 else BACKGROUND
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
    right.set_ylabel("share within 1 sd (dots), 2 sd (squares)", fontsize=SMALL)
    for axes in (left, right):
        axes.set_xlabel("axis of z", fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return figure
