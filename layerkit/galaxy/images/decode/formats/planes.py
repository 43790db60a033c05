"""Planes beside a picture in a FITS file: its noise, its mask, its gain and its zero point."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.galaxy.images.decode.science import says

if TYPE_CHECKING:
    from astropy.io.fits import Header

# Words in the name of an extension, by the kind of plane that it holds.
VARIANCE = re.compile(r"(VAR|VARIANCE|VARMAP|STAT)\d*")
DEVIATION = re.compile(
    r"(ERR|ERRS?|ERRORS?|RMS|SIG|SIGMA|STD|STDEV|STDDEV|UNC|UNCERT|UNCERTAINTY|NOISE)\d*"
)
INVERSE = re.compile(r"(IVAR|INVVAR|IVARIANCE|INVERSEVARIANCE)\d*")
MASK = re.compile(r"(MASKS?|MSK|DQ|BPM|BPMASK|BADPIX|FLAGS?|FLG|QUALITY|QUAL)\d*")
PART = re.compile(r"POISSON|RNOISE|FLAT")  # of Webb's variance, whose whole is in ERR
KINDS = {"mask": MASK, "variance": VARIANCE, "deviation": DEVIATION, "inverse": INVERSE}

# Bits of the Rubin Observatory's masks whose pixels are not to be used; others, such as DETECTED,
# say what is in them.
RUBIN, UNUSABLE = "MP_", ("BAD", "SAT", "CR", "NO_DATA")

ZERO_POINTS = ("MAGZERO", "MAGZPT", "MAGZP", "MAGZEROP", "ZEROPT", "ZEROPNT", "PHOTZP")
OF_MAGNITUDE_0 = "FLUXMAG0"  # a flux, of the Rubin Observatory and Hyper Suprime-Cam
GAINS = ("GAIN", "EGAIN", "CCDGAIN")
# The constant of AB magnitudes by Hubble's PHOTFLAM, in erg/s/cm^2/Angstrom for 1 electron per
# second, and PHOTPLAM, in Angstrom.  PHOTZPT, -21.1 in all files, is no zero point by itself.
HUBBLE = -2.408
RATE = re.compile(r".*(/ ?S|/ ?SEC|PER SEC\w*|S-1|S\*\*-1|S\^-1)")  # BUNIT, in capitals
COUNTS = re.compile(r"\s*(ADUS?|DNS?|COUNTS?|CTS?)?\s*", re.IGNORECASE)  # BUNIT, if any


@dataclass(frozen=True)
class Planes:
    """Noise, mask and scale of the pixels of a picture, as its file has them.

    Attributes:
        variance: of the noise, (height, width), in the square of the picture's unit; None where
            the file does not say.
        missing: mask of the pixels that are not to be used, (height, width), or None.
        gain: electrons per unit of the picture; NaN if unknown.
        zero_point: magnitude of a flux of 1; NaN if unknown.
    """

    variance: np.ndarray | None = None
    missing: np.ndarray | None = None
    gain: float = math.nan
    zero_point: float = math.nan


def beside(hdus: Iterable[Any], number: int, band: tuple[int, ...] | None = None) -> dict[str, int]:
    """Find the extensions that describe the pixels of an image: number by kind, of KINDS.

    They have the image's shape, but for axes of size 1, and say by their name, or by EXTTYPE, what
    they hold.  The one with the image's EXTVER counts, then the one nearest to it in the file.

    Args:
        hdus: of the file.
        number: the image.
        band: shape of one of its bands, where that was chosen: an extension of this shape
            describes every band, unless there is one of the image's shape.
    """
    every = list(hdus)
    own, shape = every[number], _long(every[number].shape)
    found: dict[str, list[tuple[bool, bool, int, int]]] = {}
    for k, hdu in enumerate(every):
        if k == number or not hdu.is_image or _long(hdu.shape) not in (shape, band):
            continue
        words = f"{hdu.name} {text(hdu.header, 'EXTTYPE')}"
        kind = next((kind for kind, pattern in KINDS.items() if says(words, pattern)), None)
        if kind is not None and not says(words, PART):
            found.setdefault(kind, []).append(
                (_long(hdu.shape) != shape, hdu.ver != own.ver, abs(k - number), k)
            )
    return {kind: min(choice)[-1] for kind, choice in found.items()}


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n > 1)


def unusable(mask: np.ndarray, header: Header) -> np.ndarray:
    """Return which pixels a mask, or plane of bits, says are not to be used.

    Any bit counts, but in masks of the Rubin Observatory, whose header names the bits.
    """
    named = [value_of(header, f"{RUBIN}{name}") for name in UNUSABLE]
    bits = [bit for bit in named if isinstance(bit, int) and 0 <= bit < 63]
    if not bits:
        return ~(mask == 0)
    values = np.nan_to_num(mask).astype(np.int64)
    return (values & sum(1 << bit for bit in bits)) != 0


def as_variance(values: np.ndarray, kind: str) -> np.ndarray:
    """Turn a plane of KINDS into a variance; NaN where that is not positive and finite."""
    with np.errstate(all="ignore"):
        if kind == "deviation":
            values = np.where(values > 0, values, np.nan) ** 2
        elif kind == "inverse":
            values = 1 / values
        return np.where((values > 0) & np.isfinite(values), values, np.nan)


def gain(headers: Iterable[Header]) -> float:
    """Return electrons per unit, from the first header that has it, of a picture in counts."""
    headers = list(headers)
    unit = next((found for header in headers if (found := text(header, "BUNIT"))), "")
    electrons = _number(headers, GAINS)
    return electrons if COUNTS.fullmatch(unit) and electrons > 0 else math.nan


def zero_point(headers: Iterable[Header]) -> float:
    """Return the magnitude of a flux of 1, from the first header that has it.

    Hubble's files tell it by PHOTFLAM and PHOTPLAM, of AB magnitudes, if BUNIT says that they hold
    electrons or counts, or these per second; totals are divided by EXPTIME.

    Source: STScI, "ACS zeropoints", equation for AB magnitudes, for Hubble's.
    """
    headers = list(headers)
    flux = _number(headers, (OF_MAGNITUDE_0,))
    if flux > 0:
        return 2.5 * math.log10(flux)
    told = _number(headers, ZERO_POINTS)
    return told if math.isfinite(told) else _of_hubble(headers)


def _of_hubble(headers: list[Header]) -> float:
    """Return the AB zero point of a picture of Hubble; NaN if the headers do not say enough."""
    flam, wavelength, time = (_number(headers, (k,)) for k in ("PHOTFLAM", "PHOTPLAM", "EXPTIME"))
    unit = next((found for header in headers if (found := text(header, "BUNIT"))), "").upper()
    rate = RATE.fullmatch(unit) is not None
    if not (flam > 0 and wavelength > 0 and (rate or time > 0)):
        return math.nan
    if not re.match("E-|ELECTRON|COUNT|CT|DN|ADU", unit):  # other units have other zero points
        return math.nan
    point = -2.5 * math.log10(flam) - 5 * math.log10(wavelength) + HUBBLE
    return point if rate else point + 2.5 * math.log10(time)


def text(header: Header, key: str) -> str:
    """Return the value of a keyword as text; empty if there is none."""
    return str(value_of(header, key, "")).strip()


def value_of(header: Header, key: str, default: Any = None) -> Any:
    """Return the value of a keyword; the default if it is not there, or is none of FITS."""
    from astropy.io.fits.verify import VerifyError  # slow to import

    try:
        return header.get(key, default)
    except VerifyError:
        return default


def _number(headers: Iterable[Header], keys: Iterable[str]) -> float:
    for header in headers:
        for key in keys:
            try:
                value = float(text(header, key))
            except ValueError:
                continue
            if math.isfinite(value):
                return value
    return math.nan
