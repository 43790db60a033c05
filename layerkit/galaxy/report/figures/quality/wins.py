"""The model against a baseline, image by image: which is better, and by how much."""

import math

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from layerkit.errors import DataError
from layerkit.galaxy.report.figures.style import (
    BASELINE,
    FAINT,
    INK,
    MODEL,
    SMALL,
    TICK_STEPS,
    Figure,
    bars_beyond,
    bins_for,
    plain,
    power_of_ten,
    readable,
    round_numbers,
)


def comparison(
    model: np.ndarray,
    baseline: np.ndarray,
    name: str = "bivariate Gaussian",
    quantity: str = "squared error",
    higher_is_better: bool = False,
) -> Figure:
    """Draw the model against a baseline, a point per image, with the number of wins.

    Args:
        model, baseline: a quantity of each image, (N,).
        name: name of the baseline.
        quantity: name of the quantity.
        higher_is_better: False for an error, which is positive and drawn on logarithmic axes; True
            for a log likelihood in nats, which is drawn on linear ones.

    Raises:
        DataError: arrays of other shapes, or empty ones.
    """
    model, baseline = (np.asarray(values, dtype=np.float64) for values in (model, baseline))
    if model.ndim != 1 or model.shape != baseline.shape or len(model) == 0:
        raise DataError(
            "comparison: expected a number for each image from model and baseline, got arrays of"
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
            axis.set_major_locator(FixedLocator(round_numbers(*limits, 5)))
            axis.set_major_formatter(
                lambda value, _: f"{value:g}" if 1e-3 < value < 1e4 else power_of_ten(value)
            )
            axis.set_minor_locator(NullLocator())
        advantage = np.log2(baseline / model)
        advantage_name = f"{quantity}, {name} over model"
    for chosen, colour in ((wins, MODEL), (~wins, BASELINE)):
        left.scatter(
            baseline[chosen], model[chosen], s=7, color=colour, alpha=0.6, linewidths=0, zorder=3
        )
    left.plot(limits, limits, color=INK, linewidth=0.8)
    left.set_xlim(limits)
    left.set_ylim(limits)
    left.set_aspect("equal")
    left.set_xlabel(f"{quantity}, {name}{unit}", fontsize=SMALL)
    left.set_ylabel(f"{quantity}, model{unit}", fontsize=SMALL)

    # Zero, where neither is better, is an edge between two bins.
    low, high = np.percentile(advantage, [0.5, 99.5])
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / bins_for(len(advantage), 40) or 1.0
    bins = step * np.arange(math.floor(low / step), max(math.ceil(high / step), 1) + 1)
    for chosen, colour in ((wins, MODEL), (~wins, BASELINE)):
        right.hist(advantage[chosen], bins=bins, color=colour)
    below, above = np.sum(advantage < bins[0]), np.sum(advantage > bins[-1])
    bars_beyond(
        right, bins, [(below, above)], [BASELINE, MODEL], f"{below:,} below", f"{above:,} above"
    )
    if higher_is_better:
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_major_formatter(lambda value, _: readable(value))
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        unseen = np.sum(np.minimum(model, baseline) < limits[0])
        if unseen:
            left.text(
                0.98,
                0.02,
                f"{unseen:,} below these axes",
                transform=left.transAxes,
                fontsize=7,
                ha="right",
                color=FAINT,
            )
    else:
        ticks = round_numbers(float(2 ** bins[0]), float(2 ** bins[-1]), 6)
        right.xaxis.set_major_locator(FixedLocator([math.log2(tick) for tick in ticks]))
        right.xaxis.set_major_formatter(lambda power, _: f"{2**power:.3g}")
    right.axvline(0.0, color=INK, linewidth=0.8)
    right.set_xlabel(advantage_name, fontsize=SMALL)
    right.set_ylabel("images", fontsize=SMALL)
    right.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (left, right):
        plain(axes)
    figure.suptitle(
        f"{quantity}: the model is better on {wins.sum():,} of {len(wins):,} images",
        fontsize=10,
        y=0.97,
    )
    return figure
