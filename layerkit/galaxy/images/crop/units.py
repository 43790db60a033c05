"""The units of prepared galaxies, and the numbers that their pixels may be in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from layerkit.galaxy.images.crop.crop import Settings


class Intensities(NamedTuple):
    """Numbers that a pixel of a prepared galaxy may be.

    Attributes:
        least, most: the smallest and the largest.
        step: between values, at most; that of 8 bits where pictures of 8 bits are among them.
        darkest, brightest: what figures show as black and white, at most.  Only dead and hot pixels
            are beyond.
    """

    least: float
    most: float
    step: float
    darkest: float
    brightest: float


INTENSITIES = {
    "stretched": Intensities(0.0, 1.0, 1 / 255, 0.0, 1.0),
    # The sky has about 0 and the brightest light of a galaxy about 1.
    "linear": Intensities(-10.0, 10.0, 0.0, -1.0, 1.0),
}
UNITS = tuple(INTENSITIES)
LARGEST = max(own.most for own in INTENSITIES.values())
RANGES = " or ".join(f"{own.least:g}..{own.most:g} ({name})" for name, own in INTENSITIES.items())


def intensities_of(preparation: Settings | None) -> Intensities:
    """Return the numbers that pixels of galaxies may be by how these were prepared.

    Args:
        preparation: settings of the crop; None, where nobody says, stands for the default units.
    """
    return INTENSITIES[UNITS[0] if preparation is None else preparation.units]
