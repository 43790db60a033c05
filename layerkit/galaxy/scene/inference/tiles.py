"""Tiles: overlapping parts of a large field, each fitted by a net of its own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from layerkit.galaxy.scene.inference.fitting import Pixels


@dataclass(frozen=True)
class Tile:
    """A rectangle of a field with a margin; sources in the margin are fitted but belong elsewhere.

    Attributes:
        core: rows and columns that belong to this tile alone.
        rows, columns: the core with its margin.
    """

    core: tuple[slice, slice]
    rows: slice
    columns: slice

    @property
    def x(self) -> int:
        """First column."""
        return self.columns.start

    @property
    def y(self) -> int:
        """First row."""
        return self.rows.start

    @property
    def core_within(self) -> tuple[slice, slice]:
        """The core in the tile's own coordinates."""
        rows, columns = self.core
        return (
            slice(rows.start - self.y, rows.stop - self.y),
            slice(columns.start - self.x, columns.stop - self.x),
        )

    def holds(self, x: float, y: float) -> bool:
        """Tell whether a position lies in the tile, margin included."""
        return (
            self.columns.start - 0.5 <= x < self.columns.stop - 0.5
            and self.rows.start - 0.5 <= y < self.rows.stop - 0.5
        )

    def owns(self, x: float, y: float) -> bool:
        """Tell whether a position lies in the core, or beyond the field's edge beside it."""
        rows, columns = self.core
        first, last = columns.start == self.columns.start, columns.stop == self.columns.stop
        low, high = rows.start == self.rows.start, rows.stop == self.rows.stop
        return (
            (first or x >= columns.start - 0.5)
            and (last or x < columns.stop - 0.5)
            and (low or y >= rows.start - 0.5)
            and (high or y < rows.stop - 0.5)
        )

    def of(self, pixels: Pixels) -> Pixels:
        """Return the tile's part of a field."""
        part = (slice(None), self.rows, self.columns)
        return replace(pixels, values=pixels.values[part], weights=pixels.weights[part])


def tiles_of(height: int, width: int, side: int, margin: int) -> list[Tile]:
    """Cut a field into tiles whose cores, of about `side` pixels, cover it without overlap."""

    def cuts(size: int) -> list[tuple[slice, slice]]:
        count = max(1, round(size / side))
        edges = [i * size // count for i in range(count + 1)]
        return [
            (slice(a, b), slice(max(0, a - margin), min(size, b + margin)))
            for a, b in itertools.pairwise(edges)
        ]

    return [
        Tile((rows, columns), wide_rows, wide_columns)
        for rows, wide_rows in cuts(height)
        for columns, wide_columns in cuts(width)
    ]
