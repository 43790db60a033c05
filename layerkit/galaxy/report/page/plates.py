"""Figures as the report shows them: in light and dark colours, and who is seen where."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from layerkit.galaxy.report import figures
from layerkit.galaxy.report.figures.style import (
    BACKGROUND,
    DPI,
    FAINT,
    GRID,
    INK,
    MODEL,
    default_style,
)

DARK = {  # the colours of page.css
    BACKGROUND: "#1d2127",
    INK: "#e4e6e9",
    FAINT: "#9aa2ac",
    GRID: "#31363d",
    MODEL: "#4fa5c2",
}


class Mark(NamedTuple):
    """A galaxy in a figure.

    Attributes:
        galaxy: its id.
        left, top, width, height: of its picture, as fractions of the figure's width and height.
    """

    galaxy: str
    left: float
    top: float
    width: float
    height: float


class Plate(NamedTuple):
    """A figure for the report.

    Attributes:
        title, caption: plain text.
        path: of the PNG.
        dark: bytes of a PNG for readers who prefer dark pages; if empty, they see the other one.
        marks: the galaxies in it that have an id.
    """

    title: str
    caption: str
    path: str | os.PathLike[str]
    dark: bytes = b""
    marks: Sequence[Mark] = ()


@default_style
def plate(figure: Figure, path: Path, title: str, caption: str) -> Plate:
    """Save a figure as PNG, and return its plate.  The figure is left in its dark colours."""
    figures.save(figure, path)
    found = marks(figure)
    darken(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, facecolor=DARK[BACKGROUND])
    return Plate(title, caption, path, data.getvalue(), found)


def marks(figure: Figure) -> list[Mark]:
    """Find the galaxies that `figures.style.mark` has marked, in the order of marking."""
    found = []
    for artist in figure.findobj(Rectangle):
        if galaxy := artist.get_gid():
            box = artist.get_window_extent().transformed(figure.transFigure.inverted())
            corner = float(box.xmin), float(1 - box.ymax)
            found.append(Mark(galaxy, *corner, float(box.width), float(box.height)))
    return found


def darken(figure: Figure) -> None:
    """Exchange the colours of a figure for those of a dark page; its pictures stay as they are."""
    figure.draw_without_rendering()  # ticks do not exist before
    for artist in figure.findobj():
        if isinstance(artist, Text):
            artist.set_color(_dark(artist.get_color()))
        elif isinstance(artist, Line2D):
            face, edge = artist.get_markerfacecolor(), artist.get_markeredgecolor()
            artist.set_color(_dark(artist.get_color()))
            artist.set_markerfacecolor(_dark(face))
            artist.set_markeredgecolor(_dark(edge))
        elif isinstance(artist, Patch):
            artist.set_facecolor(_dark(artist.get_facecolor()))
            artist.set_edgecolor(_dark(artist.get_edgecolor()))
        elif isinstance(artist, Collection) and artist.get_array() is None:
            artist.set_facecolor([_dark(colour) for colour in artist.get_facecolor()])
            artist.set_edgecolor([_dark(colour) for colour in artist.get_edgecolor()])


def _dark(colour: Any) -> Any:
    """Return the colour that stands for this one on a dark page, as opaque as it is."""
    *_, opacity = to_rgba(colour)
    return to_rgba(DARK.get(to_hex(colour), colour), opacity) if opacity else "none"
