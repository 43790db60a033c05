"""The style that all figures share: colours, axes, scales, mosaics of pictures, and saving."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from layerkit.errors import DataError
from layerkit.system.files import write_atomically

INTENSITY, VARIANCE, RESIDUAL = "gray", "viridis", "RdBu_r"
MODEL, BASELINE, NEUTRAL = "#1f6f8b", "#d1793a", "#8a8f98"
INK, FAINT, GRID, BACKGROUND = "#000000", "#404448", "#e6e8eb", "#ffffff"
DPI = 160
SMALL = 8  # points
GAP = 2  # pixels between pictures
TICK_STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten

# A decorator of whatever makes or draws a figure: the user's matplotlibrc may turn pictures upside
# down, or ask for a TeX that is not there.
default_style = matplotlib.style.context("default")


class Figure(matplotlib.figure.Figure):
    """A figure that notebooks show, without pyplot as with it."""

    @default_style
    def _repr_png_(self) -> bytes:
        """Return the figure as PNG."""
        picture = io.BytesIO()
        self.savefig(picture, format="png", facecolor=BACKGROUND)
        return picture.getvalue()


@default_style
def save(figure: matplotlib.figure.Figure, path: str | os.PathLike, dpi: int = DPI) -> Path:
    """Write a figure as PNG; a file already there is replaced only once the new one is complete."""
    write_atomically(
        path, lambda part: figure.savefig(part, format="png", dpi=dpi, facecolor=BACKGROUND)
    )
    return Path(path)


def stack(name: str, images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W) as float64, with large numbers in place of infinities, 0 of NaN.

    An untrained net may overflow, and its figures are to be drawn all the same.

    Raises:
        DataError: an array of another shape; the message calls it `name`.
    """
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"figures: expected {name} (N, H, W), got an array of {images.shape}")
    return np.nan_to_num(images, posinf=1e30, neginf=-1e30)


def check_ids(figure: str, ids: Sequence[str] | None, images: np.ndarray) -> None:
    """Raise a DataError, unless there are no ids or as many as images."""
    if ids is not None and len(ids) != len(images):
        raise DataError(f"{figure}: got {len(ids)} ids for {len(images)} images")


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches, so that pictures sit exactly side by side."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def mosaic(pictures: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Join pictures (rows, columns, H, W) into one, with `gap` pixels of NaN between them."""
    rows, columns, height, width = pictures.shape
    padded = np.full((rows, columns, height + gap, width + gap), np.nan)
    padded[:, :, :height, :width] = pictures
    joined = padded.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    return joined[: joined.shape[0] - gap, : joined.shape[1] - gap]


def centres(pixels: int, cells: int) -> np.ndarray:
    """Return the middles of `cells` equal parts of an axis of `pixels` pixels, (cells,)."""
    return (np.arange(cells) + 0.5) * pixels / cells - 0.5


def shared_scale(images: np.ndarray) -> Normalize:
    """Return a scale for many galaxies, from the sky to a level that only bright cores exceed."""
    low, high = np.percentile(images, [1, 99.7])
    return Normalize(float(low), float(high) if high > low else float(low) + 1)


def draw(axes: Axes, picture: np.ndarray, colours: str | Colormap, norm: Normalize) -> AxesImage:
    """Draw a picture that fills its axes, without ticks or a frame."""
    drawn = axes.imshow(
        picture, cmap=colours, norm=norm, interpolation="antialiased", origin="upper"
    )
    axes.set_aspect("auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return drawn


def mark(axes: Axes, corner: tuple[float, float], size: tuple[float, float], galaxy: str) -> None:
    """Say which galaxy is shown in a part of the axes, by an artist that is not drawn.

    Args:
        axes: they show it.
        corner: x and y of a corner of the part, in the axes' data coordinates.
        size: its width and height.
        galaxy: its id; see `layerkit.galaxy.report.page.plates.marks`.
    """
    axes.add_artist(Rectangle(corner, *size, visible=False, gid=galaxy))


def plain(axes: Axes) -> None:
    """Give a diagram a faint grid, small labels, and no frame at the top and the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def write_scale(figure: Figure, norm: Normalize) -> None:
    """Write below the pictures which intensities are black and white."""
    figure.text(
        0.99,
        0.06 / figure.get_size_inches()[1],
        f"intensity: black {norm.vmin:.3g}, white {norm.vmax:.3g}",
        fontsize=7,
        ha="right",
        va="bottom",
        color=FAINT,
    )


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` round numbers from `low` to `high`, both positive, for a log scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**k for k in decades for m in mantissas]
        found = [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def power_of_ten(value: float) -> str:
    """Write a positive number as a formula, 0.0003 as 3 times a power of ten."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    power = f"10^{{{exponent}}}"
    return f"${power}$" if round(mantissa, 3) == 1 else rf"${mantissa:.3g}\!\cdot\!{power}$"


def readable(value: float) -> str:
    """Write the number of a tick, thousands apart; huge and tiny ones with an exponent."""
    text = f"{value:,.10g}" if 1e-3 <= abs(value) < 1e6 or not value else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def bins_for(count: int, most: int) -> int:
    """Return how many bins a histogram of so many values takes, from 10 to `most`."""
    return int(np.clip(1.5 * math.sqrt(count), 10, most))


def bars_beyond(
    axes: Axes,
    bins: np.ndarray,
    heights: Sequence[tuple[float, float]],
    colours: Sequence[str],
    below: str,
    above: str,
) -> None:
    """Draw hatched, labelled bars for the values outside a histogram's bins.

    Ticks stay within the bins.

    Args:
        axes: the axes with the histogram.
        bins: edges of its bins.
        heights: height of the bar below the bins and of the bar above, for each set of values.
        colours: one for each set; for a single set, those of the bar below and of the bar above.
        below, above: labels of the bars.
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
                facecolor=BACKGROUND,
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
            color=FAINT,
        )
        # The label takes a quarter of the height, and is not to leave the frame.
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.3 * max(found)))
    ticks = MaxNLocator(5, steps=TICK_STEPS).tick_values(bins[0], bins[-1])
    axes.xaxis.set_major_locator(FixedLocator(ticks[(ticks >= bins[0]) & (ticks <= bins[-1])]))
    low, high = axes.get_xlim()
    axes.set_xlim(
        min(low, ends[0] - width - gap) if any(h[0] for h in heights) else low,
        max(high, ends[1] + width + gap) if any(h[1] for h in heights) else high,
    )
