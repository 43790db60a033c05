"""Layout: which numbers describe the sources of a field, and where they stand in one vector."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from layerkit.galaxy.scene.model.light import Light, Spergel

POSITION_DEVIATION = 3.0  # pixels
LOG_FLUX_DEVIATION = 3.0
COLOUR_DEVIATION = 1.2  # of a band's log flux from the mean over bands
LOG_SIZE_DEVIATION = 0.8
SHEAR_DEVIATION = 0.5
SKY_DEVIATION = 1.0  # in standard deviations of a pixel's noise
TYPICAL_SIZE = 0.5  # half-light radius of the prior, in full widths of the PSF


@dataclass
class Source:
    """A source as the model has it, with the values that its numbers start from.

    Attributes:
        star: a point if true, else a galaxy.
        x, y: position in pixels, the first centre at 0.
        log_flux: natural logarithm of the flux, shape (bands,).
        shape: log of the half-light radius in pixels (of the circle of equal area), the two
            components of the shear (log of the axis ratio, along and across), and the latents of
            the light.  A star keeps it, unused.
        found: where and how bright it was first seen: x, y and mean log flux, which the prior is
            centred on.
        pieces: further profiles of its light, sources without pieces of their own.
    """

    star: bool
    x: float
    y: float
    log_flux: np.ndarray
    shape: np.ndarray
    found: tuple[float, float, float]
    pieces: tuple[Source, ...] = ()


@dataclass
class Layout:
    """Places of the sources' numbers in a vector, and their Gaussian prior.

    A source's numbers are x, y (offsets from `origins`, in pixels), a log flux for each band, and
    for a galaxy log half-light radius, shear and latents.  The sky of each band comes last, in
    standard deviations of its noise.  Pieces of sources count as sources, after all others.
    """

    sources: list[Source]
    bands: int
    width: float  # of the PSF, in pixels
    light: Light = field(default_factory=Spergel)

    def __post_init__(self) -> None:
        self.count_whole = len(self.sources)
        self.owners = [*range(self.count_whole)]
        for i, source in enumerate([*self.sources]):
            self.sources[i] = replace(source, pieces=())
            self.sources += source.pieces
            self.owners += [i] * len(source.pieces)
        self.starts, at = [], 0
        for source in self.sources:
            self.starts.append(at)
            at += self.count(source)
        self.sky = at
        self.size = at + self.bands
        self.origins = np.array([[round(s.x), round(s.y)] for s in self.sources], int)
        self.origins = self.origins.reshape(-1, 2)

    def count(self, source: Source) -> int:
        """Return how many numbers describe the source."""
        return 2 + self.bands + (0 if source.star else 3 + len(self.light.names))

    def part(self, i: int) -> slice:
        """Return where the numbers of source `i` stand."""
        return slice(self.starts[i], self.starts[i] + self.count(self.sources[i]))

    def values(self) -> np.ndarray:
        """Return the vector that the sources start from, shape (size,)."""
        theta = np.zeros(self.size)
        for i, s in enumerate(self.sources):
            numbers = [s.x - self.origins[i, 0], s.y - self.origins[i, 1], *s.log_flux]
            theta[self.part(i)] = numbers if s.star else [*numbers, *s.shape]
        return theta

    def pieces(self, i: int) -> list[int]:
        """Return the numbers of the pieces of source `i`."""
        return [k for k in range(self.count_whole, len(self.owners)) if self.owners[k] == i]

    def updated(self, theta: np.ndarray) -> list[Source]:
        """Return the sources, each with its pieces, with the values of a vector."""
        parts = self.parts(theta)
        return [
            replace(s, pieces=tuple(parts[k] for k in self.pieces(i)))
            for i, s in enumerate(parts[: self.count_whole])
        ]

    def parts(self, theta: np.ndarray) -> list[Source]:
        """Return the sources and after them all pieces, with the values of a vector."""
        out = []
        for i, s in enumerate(self.sources):
            own, b = theta[self.part(i)], self.bands
            x, y = self.origins[i] + own[:2]
            shape = s.shape if s.star else own[2 + b :].copy()
            out.append(Source(s.star, float(x), float(y), own[2 : 2 + b].copy(), shape, s.found))
        return out

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and precision of the prior, shapes (size,) and (size, size)."""
        mean, precision = np.zeros(self.size), np.zeros((self.size, self.size))
        b = self.bands
        # Fluxes: their mean is wide, colours narrower.
        fluxes = np.full((b, b), LOG_FLUX_DEVIATION**2) + np.eye(b) * COLOUR_DEVIATION**2
        shape_mean = [np.log(TYPICAL_SIZE * self.width), 0.0, 0.0, *self.light.mean]
        shape_deviation = np.array(
            [LOG_SIZE_DEVIATION, SHEAR_DEVIATION, SHEAR_DEVIATION, *self.light.deviation]
        )
        for i, s in enumerate(self.sources):
            at = self.starts[i]
            mean[at : at + 2] = np.array(s.found[:2]) - self.origins[i]
            mean[at + 2 : at + 2 + b] = s.found[2]
            precision[at : at + 2, at : at + 2] = np.eye(2) / POSITION_DEVIATION**2
            precision[at + 2 : at + 2 + b, at + 2 : at + 2 + b] = np.linalg.inv(fluxes)
            if not s.star:
                mean[at + 2 + b : at + self.count(s)] = shape_mean
                own = np.arange(at + 2 + b, at + self.count(s))
                precision[own, own] = shape_deviation**-2
        own = np.arange(self.sky, self.size)
        precision[own, own] = SKY_DEVIATION**-2
        return mean, precision
