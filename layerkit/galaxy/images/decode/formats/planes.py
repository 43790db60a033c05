"""Planes beside a picture in a FITS file: its noise, its mask, its gain and its zero point."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.galaxy.images.decode.science import COMPOUND, NOT_SCIENCE, SCIENCE, says

if TYPE_CHECKING:
    from astropy.io.fits import Header

# Words in the name of an extension, by the kind of plane that it holds.
VARIANCE = re.compile(r"(VAR|VARIANCE|VARMAP|STAT)\d*")
DEVIATION = re.compile(
    r"(ERR|ERRS?|ERRORS?|RMS|SIG|SIGMA|STD|STDEV|STDDEV|UNC|UNCERT|UNCERTAINTY|NOISE)\d*"
)
INVERSE = re.compile(r"(IVAR|INVVAR|IVARIANCE|INVERSEVARIANCE)\d*")
INVERSE_DEVIATION = re.compile(r"INV(ERR|RMS|SIG|SIGMA|STD)\d*")
MASK = re.compile(r"(MASKS?|MSK|DQ|BPM|BPMASK|BADPIX|FLAGS?|FLG|QUALITY|QUAL)\d*")
PART = re.compile(r"POISSON|RNOISE|FLAT")  # of Webb's variance, whose whole is in ERR
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KINDS = {
    "mask": MASK,
    "variance": VARIANCE,
    "deviation": DEVIATION,
    "inverse": INVERSE,
    "inverse deviation": INVERSE_DEVIATION,
}
NOISES = ("variance", "deviation", "inverse", "inverse deviation")
# The kind of a plane by values of keywords, which hold whatever its name is: HDUCLAS3 of ESO's
# data, and UTYPE that Astropy writes beside the name UNCERT of any.
SAYING = ("HDUCLAS3", "UTYPE")
SAID = {
    "MSE": "variance",
    "RMSE": "deviation",
    "INVMSE": "inverse",
    "INVRMSE": "inverse deviation",
    "VARIANCEUNCERTAINTY": "variance",
    "STDDEVUNCERTAINTY": "deviation",
    "INVERSEVARIANCE": "inverse",
    "UNKNOWNUNCERTAINTY": None,
}

# Bits of the Rubin Observatory's masks whose pixels are not to be used; others, such as DETECTED,
# say what is in them.
RUBIN, UNUSABLE = "MP_", ("BAD", "SAT", "CR", "NO_DATA")
# The Webb telescope's bit DO_NOT_USE; others say what happened to a pixel, such as a cosmic ray
# whose jump was taken out, and set this one where it does harm.
WEBB, DO_NOT_USE = "JWST", 1

ZERO_POINTS = ("MAGZERO", "MAGZP", "MAGZEROP", "ZEROPT", "ZEROPNT", "PHOTZP")
OF_MAGNITUDE_0 = "FLUXMAG0"  # a flux, of the Rubin Observatory and Hyper Suprime-Cam
# A zero point that some give for counts, and the Cambridge Astronomical Survey Unit (of UKIDSS and
# VISTA), whose headers have MAGZRR or NIGHTZPT as well, for counts per second.
UNCLEAR, OF_CAMBRIDGE = "MAGZPT", ("MAGZRR", "NIGHTZPT", "CASUVERS")
EXPOSURES = ("EXPTIME", "EXP_TIME")  # in seconds
AIRMASSES = (("AMSTART", "AMEND"), ("ESO TEL AIRM START", "ESO TEL AIRM END"))
MOST_MAGNITUDES = 90.0  # -99 and 99 mark zero points that are not known
# AB magnitude of a flux of 1 in units that say it themselves; mJy is not MJy.
AB = {
    "Jy": 8.9, "mJy": 16.4, "uJy": 23.9, "microJy": 23.9, "nJy": 31.4,
    "nanomaggy": 22.5, "nanomaggies": 22.5, "nmgy": 22.5, "nMgy": 22.5, "maggy": 0.0,
}  # fmt: skip
# Electrons per count: EGAIN always; GAIN may be a setting of the camera where there is EGAIN.
GAINS = (("EGAIN",), ("GAIN", "CCDGAIN"))
# The constant of AB magnitudes by Hubble's PHOTFLAM, in erg/s/cm^2/Angstrom for 1 electron per
# second, and PHOTPLAM, in Angstrom.  PHOTZPT, -21.1 in all files, is no zero point by itself.
HUBBLE = -2.408
# Words of BUNIT, in capitals.
COUNTED = re.compile(r"\s*(E-|(E|(PHOTO)?-?ELECTRONS?|COUNTS?|CTS?|DNS?|ADUS?)(?![A-Z]))")
SECOND, PIXEL = re.compile(r"S(EC(OND)?S?)?"), re.compile(r"PIX(EL)?S?")
RATES = ("CPS", "EPS")
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

    def turned(self) -> Planes:
        """Return the planes of the picture that begins with the last row."""
        variance, missing = (
            None if plane is None else plane[::-1] for plane in (self.variance, self.missing)
        )
        return replace(self, variance=variance, missing=missing)


def beside(
    hdus: Iterable[Any], number: int, band: tuple[int, ...] | None = None
) -> list[tuple[str, int]]:
    """Find the extensions that describe the pixels of an image: kind, of KINDS, and number of each.

    They have the image's shape, but for axes of size 1, and say by their name, or by EXTTYPE, what
    they hold.  The first of several is the one whose name is otherwise the image's, as 3-F.FLG is
    that of 3-F.SCI and DQ2 that of SCI2; then the one with its EXTVER; then the second, if the
    image is the second; then the nearest in the file.  Masks that are called by several words, as
    DQ and BPM, all count, where their names fit the image equally well.

    Args:
        hdus: of the file.
        number: the image.
        band: shape of one of its bands, where that was chosen: an extension of this shape
            describes every band, unless there is one of the image's shape.
    """
    every = list(hdus)
    own, shape = every[number], _long(every[number].shape)
    shapes = {k: _long(hdu.shape) for k, hdu in enumerate(every) if hdu.is_image}
    images = [k for k, its in shapes.items() if its in (shape, band)]
    kinds = {
        k: kind_of(f"{every[k].name} {text(every[k].header, 'EXTTYPE')}", every[k].header)
        for k in images
    }
    no_others = [k for k in images if says(every[k].name, NOT_SCIENCE, COMPOUND)]
    others = [k for k in images if k == number or not (kinds[k] or k in no_others)]
    found = list[tuple[str, int]]()
    for kind in KINDS:
        called: dict[str, list[int]] = {}
        for k in images:
            if k != number and kinds[k] == kind:
                called.setdefault(_word(every[k].name) if kind == "mask" else "", []).append(k)
        best = []
        for planes in called.values():
            # As many planes as images are one for each.
            partner = planes[others.index(number)] if len(planes) == len(others) else None
            ranks = [
                (
                    shapes[k] != shape,
                    _rest(every[k].name) != _rest(own.name),
                    every[k].ver != own.ver,
                    k != partner,
                    abs(k - number),
                    k,
                )
                for k in planes
            ]
            best.append(min(ranks))
        found += [(kind, rank[-1]) for rank in best if rank[:3] == min(best)[:3]]
    return found


def kind_of(words: str, header: Header) -> str | None:
    """Return which of KINDS an extension holds that is called so, None for another.

    Source: ESO, "Science data products standard", for HDUCLAS3, and Astropy, `CCDData.to_hdu`, for
    UTYPE.
    """
    if says(words, PART):
        return None
    for key in SAYING:
        if (said := text(header, key).upper()) in SAID:
            return SAID[said]
    return next((kind for kind, pattern in KINDS.items() if says(words, pattern)), None)


def _word(name: str) -> str:
    """Return the word in the name of an extension that says it is a mask, without its number."""
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return next((word.rstrip("0123456789") for word in words if MASK.fullmatch(word)), "")


def _rest(name: str) -> str:
    """Return the name of an extension without the words that say what it holds, numbers kept."""
    found = []
    for word in re.split(r"[^A-Z0-9]+", name.upper()):
        holds = any(pattern.fullmatch(word) for pattern in (SCIENCE, *KINDS.values()))
        found.append(word.lstrip(LETTERS) if holds else word)
    return " ".join(filter(None, found))


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n > 1)


def unusable(mask: np.ndarray, headers: Iterable[Header]) -> np.ndarray:
    """Return which pixels a mask, or plane of bits, says are not to be used.

    Any bit counts, but in masks of the Rubin Observatory, whose header names the bits, and in those
    of the Webb telescope, of which one bit alone says so.  ESO's masks of the kind MASKONE are 1
    where pixels are good.

    Args:
        mask: values.
        headers: of its extension, and the primary one.

    Source: STScI, JWST pipeline documentation, "Data quality flags", for Webb's.
    """
    headers = list(headers)
    if text(headers[0], "HDUCLAS3").upper() == "MASKONE":
        return ~(mask > 0)
    named = [value_of(headers[0], f"{RUBIN}{name}") for name in UNUSABLE]
    bits = sum(1 << bit for bit in named if isinstance(bit, int) and 0 <= bit < 63)
    if not bits and any(text(header, "TELESCOP").upper() == WEBB for header in headers):
        bits = DO_NOT_USE
    if not bits:
        return ~(mask == 0)
    known = np.isfinite(mask)
    return ~known | ((np.where(known, mask, 0).astype(np.int64) & bits) != 0)


def as_variance(values: np.ndarray, kind: str) -> np.ndarray:
    """Turn a plane of KINDS into a variance; NaN where that is not positive and finite."""
    with np.errstate(all="ignore"):
        if kind == "deviation":
            values = np.where(values > 0, values, np.nan) ** 2
        elif kind == "inverse":
            values = 1 / values
        elif kind == "inverse deviation":
            values = np.where(values > 0, values, np.nan) ** -2
        return np.where((values > 0) & np.isfinite(values), values, np.nan)


def gain(headers: Iterable[Header]) -> float:
    """Return electrons per unit, from the first header that has it, of a picture in counts."""
    headers = list(headers)
    told = (_number(headers, keys) for keys in GAINS)
    electrons = next((number for number in told if number > 0), math.nan)
    return electrons if COUNTS.fullmatch(_unit(headers)) else math.nan


def _unit(headers: Iterable[Header]) -> str:
    return next((found for header in headers if (found := text(header, "BUNIT"))), "")


def per_second(unit: str) -> bool | None:
    """Tell whether a unit is counts, or electrons, per second; None for one that is not of these.

    They may be those of a pixel: "electron / (pix s)" is a rate, "ADU/pixel" is not.
    """
    unit = unit.upper().strip()
    if unit in RATES:
        return True
    if (counted := COUNTED.match(unit)) is None:
        return None
    rest = unit[counted.end() :]
    words = set(re.findall(r"[A-Z]+", rest)) - {"PER"}
    seconds = {word for word in words if SECOND.fullmatch(word)}
    known = all(PIXEL.fullmatch(word) for word in words - seconds)
    divided = not words or re.search(r"/|-1|\bPER\b", rest)
    strange = re.sub(r"[A-Z\s/*.()^]|-1", "", rest)
    return bool(seconds) if known and divided and not strange else None


def zero_point(headers: Iterable[Header]) -> float:
    """Return the magnitude of a flux of 1, from the first header that has it; NaN if none tells.

    Units such as nJy and nanomaggies say it themselves.  MAGZPT is for counts, or for counts per
    second: it counts where both are one, and in files of UKIDSS and VISTA, where it is per second
    and for an airmass of 1.  Hubble's files tell it by PHOTFLAM and PHOTPLAM, of AB magnitudes, if
    BUNIT says that they hold electrons or counts, or these per second; totals are divided by
    EXPTIME.

    Source: STScI, "ACS zeropoints", equation for AB magnitudes, for Hubble's; VISTA Science
    Archive, "Working with VIRCam flat files from the CASU pipeline", for UKIDSS and VISTA.
    """
    headers = list(headers)
    flux = _number(headers, (OF_MAGNITUDE_0,))
    if flux > 0:
        return 2.5 * math.log10(flux)
    if (point := AB.get(_unit(headers))) is not None:
        return point
    told = _number(headers, ZERO_POINTS, MOST_MAGNITUDES)
    if math.isfinite(told):
        return told
    told = _of_counts(headers)
    return told if math.isfinite(told) else _of_hubble(headers)


def _of_counts(headers: list[Header]) -> float:
    """Return the zero point that MAGZPT tells; NaN if it may be that of another unit."""
    point, time = _number(headers, (UNCLEAR,), MOST_MAGNITUDES), _number(headers, EXPOSURES)
    if per_second(_unit(headers)) or time == 1:
        return point
    if time > 0 and any(key in header for header in headers for key in OF_CAMBRIDGE):
        extinction = _number(headers, ("EXTINCT",))
        ends = [[_number(headers, (key,)) for key in keys] for keys in AIRMASSES]
        airmass = next((sum(pair) / 2 for pair in ends if math.isfinite(sum(pair))), math.nan)
        dimmed = extinction * (airmass - 1)
        return point + 2.5 * math.log10(time) - (dimmed if math.isfinite(dimmed) else 0.0)
    return math.nan


def _of_hubble(headers: list[Header]) -> float:
    """Return the AB zero point of a picture of Hubble; NaN if the headers do not say enough."""
    flam, wavelength, time = (_number(headers, (k,)) for k in ("PHOTFLAM", "PHOTPLAM", "EXPTIME"))
    rate = per_second(_unit(headers))
    if rate is None or not (flam > 0 and wavelength > 0 and (rate or time > 0)):
        return math.nan  # other units have other zero points
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


def _number(headers: Iterable[Header], keys: Iterable[str], most: float = math.inf) -> float:
    """Return the first finite number that headers have under some keys, of size below `most`."""
    for header in headers:
        for key in keys:
            try:
                value = float(text(header, key))
            except ValueError:
                continue
            if math.isfinite(value) and abs(value) < most:
                return value
    return math.nan
