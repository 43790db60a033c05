"""Field: the pixels of a raw image in some bands, with PSF, noise and mask, read from files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.data.arrays import numbers
from layerkit.errors import DataError, brief
from layerkit.galaxy.images.decode.blank import no_data
from layerkit.galaxy.images.decode.bounds import (
    NO_IMAGE,
    UNREADABLE,
    UnusableImageError,
    only_unusable,
)
from layerkit.galaxy.images.decode.decode import open_pictures
from layerkit.galaxy.images.decode.formats.fits import ONLY_OTHERS, FitsPictures, science_images
from layerkit.galaxy.images.decode.formats.planes import (
    NOISES,
    as_variance,
    beside,
    kind_of,
    text,
    unusable,
)
from layerkit.galaxy.images.decode.science import COMPOUND, NOT_SCIENCE, says
from layerkit.settings import Optional, Whole, accept
from layerkit.system.files import open_regular, path_of

if TYPE_CHECKING:
    from astropy.io.fits import Header

LEAST_SIDE = 16  # pixels of a field
MOST_BANDS = 32
LONGEST = 32  # characters of a filter's name
PSFS = ("PSF", "PSFS")  # EXTNAME or EXTTYPE of an extension of PSFs
OF_RUBIN = "MASK"  # that of a mask whose bits are USELESS where they make a pixel so
CENTRED, NEARLY = 0.1, 1.0  # pixels that the light of a PSF may be off its middle pixel
# Bits of a mask with several planes, in LSST's and HSC's order, that make a pixel useless: bad,
# saturated, interpolated, cosmic ray, edge, suspect, no data.  Bit 5 says where sources are.
USELESS = sum(1 << bit for bit in (0, 1, 2, 3, 4, 7, 8))


@dataclass
class Field:
    """A raw image, as it was read.

    Attributes:
        images: shape (bands, height, width), finite; masked pixels are 0.
        usable: shape (bands, height, width), False where masked or not a number.
        variance: shape (bands, height, width), or None where unknown.
        psfs: shape (bands, p, p), p odd, each of unit sum, or None.
        filters: a name for each band; a single band has the name "".
        wcs: an astropy WCS, or None.
        name: of the file.
        notes: lines about what was found and changed while reading.
    """

    images: np.ndarray
    usable: np.ndarray
    variance: np.ndarray | None = None
    psfs: np.ndarray | None = None
    filters: list[str] = field(default_factory=list)
    wcs: Any = None
    name: str = "field"
    notes: list[str] = field(default_factory=list)


def read_field(
    image: str | os.PathLike[str],
    psf: str | os.PathLike[str] | None = None,
    variance: str | os.PathLike[str] | None = None,
    mask: str | os.PathLike[str] | None = None,
    use_bits: int | None = None,
    hdu: int | str | None = None,
) -> Field:
    """Read a field from FITS (an image or a cube), NPY or NPZ.

    An NPZ holds `images` and, where known, `psfs`, `variance`, `mask` and `filters`; the options
    take precedence.  The image of a FITS file is the one that holds science, by its name and
    keywords; extensions that `planes` knows as variances, errors, inverse variances or masks go
    with it, and PSF.  In masks those bits count that `planes.unusable` says, or in one called MASK
    those of `use_bits`.  Blank borders, and values such as -99 that mark missing data, are masked.

    Args:
        image: the field, shape (height, width) or (bands, height, width).
        psf: file of the PSF, of shape (p, p) or (bands, p, p).
        variance: file of the pixels' variances, of the field's shape, or one number per band.
        mask: file of the mask, not zero where a pixel is not to be used.
        use_bits: which bits count in a mask of integers above 1; by default those of LSST's planes
            for bad, saturated, interpolated, cosmic ray, edge, suspect and no data.
        hdu: the extension of a FITS file that holds the image, by number or EXTNAME, and perhaps
            the band in it, as in "SCI[1]"; its own errors and masks go with it, but no PSF.

    Raises:
        DataError: a file that is missing or of another kind, several images in a FITS file, shapes
            that do not fit, nothing that is not masked.
    """
    path = path_of(image, DataError)
    arrays = _read(path, "IMAGE", hdu, raw=use_bits is not None)
    for what, given in (("psfs", psf), ("variance", variance), ("mask", mask)):
        if given is not None:
            option = f"--{what.rstrip('s')}"
            place = path_of(given, DataError)
            other = _read(place, option, None, what, raw=use_bits is not None)
            arrays[what] = other.get(what, other.get("images"))
    field = make_field(
        arrays.get("images"),
        arrays.get("psfs"),
        arrays.get("variance"),
        arrays.get("mask"),
        arrays.get("filters"),
        use_bits=use_bits,
        wcs=arrays.get("wcs"),
        name=path.name,
    )
    field.notes[:0] = arrays.get("notes", [])
    return field


def make_field(
    images: Any,
    psfs: Any = None,
    variance: Any = None,
    mask: Any = None,
    filters: Any = None,
    *,
    use_bits: int | None = None,
    wcs: Any = None,
    name: str = "field",
) -> Field:
    """Make a field of arrays; see `read_field` for the shapes, and for the errors."""
    if images is None:
        raise DataError(f"{name}: has no image; an NPZ needs an array called images")
    use_bits = accept(Optional(Whole(most=2**63 - 1)), use_bits, "use_bits", name, DataError)
    notes: list[str] = []
    pixels = _numbers(images, f"{name}: the image")
    if pixels.ndim == 2:
        pixels = pixels[None]
    bands = len(pixels) if pixels.ndim == 3 else 0
    if not 0 < bands <= MOST_BANDS or min(pixels.shape[1:]) < LEAST_SIDE:
        raise DataError(
            f"{name}: expected an image of shape (height, width) or (bands, height, width), of "
            f"{LEAST_SIDE} pixels a side or more and {MOST_BANDS} bands at most, got "
            f"{np.shape(images)}"
        )
    usable = np.isfinite(pixels)
    if lost := int((~usable).sum()):
        notes.append(f"{lost:,} pixels are not numbers and masked")
    if mask is not None:
        planes = np.asarray(mask)
        if planes.dtype.kind in "iu" and planes.max(initial=0) > 1:
            bits = USELESS if use_bits is None else use_bits
            planes = planes & np.array(bits).astype(planes.dtype)
            notes.append(f"the mask has bit planes, of which {bits:#x} count; see --mask-bits")
        masked = _fitting(planes, pixels.shape, f"{name}: the mask") != 0
        notes.append(f"{int((masked & usable).sum()):,} pixels are masked")
        usable &= ~masked
    if variance is not None:
        variance = _numbers(variance, f"{name}: the variance")
        if variance.ndim == 1 and len(variance) == len(pixels):
            variance = variance[:, None, None]
        variance = _fitting(variance, pixels.shape, f"{name}: the variance").copy()
        with np.errstate(all="ignore"):  # their inverse counts
            bad = ~(np.isfinite(variance) & (variance > 0) & np.isfinite(1 / variance))
        if (bad & usable).any():
            notes.append(f"{int((bad & usable).sum()):,} pixels without a positive variance masked")
        usable &= ~bad
        variance[bad] = 1.0
    for band, used in enumerate(usable):
        if not used.any():
            of = f" of band {band}" if len(pixels) > 1 else ""
            raise DataError(f"{name}: every pixel{of} is masked or not a number")
    names = [] if filters is None else [_text(f) for f in np.ravel(np.asarray(filters, object))]
    if names and len(names) != len(pixels):
        raise DataError(f"{name}: {len(names)} filters for {len(pixels)} bands; name each band")
    if odd := [n for n in names if not n.isprintable() or len(n) > LONGEST]:
        raise DataError(
            f"{name}: filters must be names of up to {LONGEST} printable characters, which become "
            f"those of columns, got {brief(odd[0])}"
        )
    # Small letters, as columns of FITS are called alike whatever their case.
    ends = [f"{kind}{n.lower()}" for n in names for kind in ("", "err_")]
    if len(set(ends)) != len(ends):
        raise DataError(
            f"{name}: two bands have columns that are called alike, in filters {', '.join(names)}; "
            "rename one"
        )
    names = names or ([""] if len(pixels) == 1 else [str(i) for i in range(len(pixels))])
    if psfs is not None:
        psfs = _psfs(psfs, len(pixels), name)
        if (away := max(map(_off_middle, psfs))) > CENTRED:
            notes.append(
                f"the light of the PSF is centred {away:.1f} pixels from its middle pixel: so far "
                "are positions off the other way"
            )
    return Field(np.where(usable, pixels, 0.0), usable, variance, psfs, names, wcs, name, notes)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _numbers(array: Any, what: str) -> np.ndarray:
    return numbers(array, what, DataError).astype(float)


def _fitting(array: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return the array with the field's shape, one picture for all bands repeated."""
    array = _numbers(array, what)
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise DataError(
            f"{what} has shape {array.shape}, expected that of the field {shape}"
        ) from None


def _psfs(psfs: Any, bands: int, name: str) -> np.ndarray:
    """Return PSFs of unit sum, one for each band, of an odd side."""
    psfs = _numbers(psfs, f"{name}: the PSF")
    if psfs.ndim == 2:
        psfs = np.broadcast_to(psfs, (bands, *psfs.shape))
    if psfs.ndim != 3 or len(psfs) != bands or psfs.shape[1] != psfs.shape[2]:
        raise DataError(
            f"{name}: expected a PSF of shape (p, p) or ({bands}, p, p), got {psfs.shape}"
        )
    if psfs.shape[1] % 2 == 0:
        raise DataError(
            f"{name}: the PSF has {psfs.shape[1]} pixels a side; it needs an odd number, with its "
            "centre on the middle pixel"
        )
    sums = psfs.sum(axis=(1, 2))
    if not (np.isfinite(psfs).all() and (sums > 0).all()):
        raise DataError(f"{name}: the PSF is not finite, or its sum is not above zero")
    psfs = psfs / sums[:, None, None]
    for psf in psfs:
        if (away := _off_middle(psf)) > NEARLY:
            raise DataError(
                f"{name}: the light of the PSF is centred {away:.1f} pixels from its middle pixel, "
                "which is to be its centre; cut it out anew around its centre"
            )
    return psfs


def _off_middle(psf: np.ndarray) -> float:
    """Return how far the centroid of a PSF's bright half lies from its middle, in pixels."""
    bright = np.where(psf > psf.max() / 2, psf, 0)
    middle = (len(psf) - 1) / 2
    steps = np.arange(len(psf)) - middle
    return float(np.hypot(bright.sum(axis=0) @ steps, bright.sum(axis=1) @ steps) / bright.sum())


def _read(
    path: Path, what: str, hdu: int | str | None, key: str = "images", raw: bool = False
) -> dict[str, Any]:
    """Read the arrays of a file, under the names of an NPZ; see `_read_fits`."""
    if not path.is_file():
        raise DataError(f"{what} {path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        if path.suffix.lower() in (".npz", ".npy"):
            content = np.load(path, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"images": content}
            known = ("images", "psfs", "variance", "mask", "filters")
            return {key: content[key] for key in known if key in content.files}
        return _read_fits(path, hdu, key, raw)
    except UnusableImageError as error:
        reason = str(error)
        if reason not in (NO_IMAGE, UNREADABLE):
            raise DataError(f"{what} {path}: {reason}") from error
        raise DataError(f"{what} {path}: not readable as FITS, NPY or NPZ ({reason})") from error
    except Exception as error:  # of any kind, from readers of damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{what} {path}: not readable as FITS, NPY or NPZ ({reason})") from error


def _read_fits(path: Path, hdu: int | str | None, key: str, raw: bool) -> dict[str, Any]:
    """Read the image of a FITS file, its WCS, and the extensions that go with it.

    The image is chosen, and its numbers are read, as those of galaxies are; see `FitsPictures`.

    Args:
        hdu: the extension to read instead, by number or EXTNAME.
        key: what is wanted: "images" with all that goes with them, or a plane such as "mask".
        raw: leaves the bits of a mask as they are.
    """
    with open_regular(path) as file, only_unusable():
        pictures = open_pictures(file, hdu, whole=True)
        if not isinstance(pictures, FitsPictures):
            raise UnusableImageError(NO_IMAGE)
        words = pictures.words
        every = pictures.hdus
        planes = {n: plane for n in words if (plane := _plane_of(words[n], every[n].header))}
        if key != "images":
            wanted = [n for n, plane in planes.items() if plane == key] or [*words]
            return {key: _plane(pictures, wanted[0], words, key, raw)}
        numbers = [*words] if pictures.named else science_images(words)
        if len(numbers) != 1:
            raise UnusableImageError(
                f"{len(numbers)} images, in extensions {', '.join(map(str, numbers))}; choose one "
                "with --hdu"
                if numbers
                else ONLY_OTHERS
            )
        number, notes = numbers[0], list[str]()
        bands = _chosen(pictures.values(number), pictures.band)
        out = {"images": _without_gaps(bands, notes), "notes": notes}
        out["wcs"] = pictures.wcs(list(words).index(number))
        if hdu is not None:  # perhaps one of several, which have planes of their own
            found = beside(every, number, bands.shape[-2:])
            planes = {n: "variance" if kind in NOISES else kind for kind, n in found}
            words = {n: f"{every[n].name} {text(every[n].header, 'EXTTYPE')}" for n in planes}
        used = {number}
        for n, plane in planes.items():
            if plane not in out:
                out[plane] = _chosen(_plane(pictures, n, words, plane, raw), pictures.band)
                used.add(n)
        unused = [said.strip() or str(n) for n, said in words.items() if n not in used]
        if unused:
            notes.append(f"extensions not used: {', '.join(unused)}; see --mask and --variance")
        return out


def _chosen(values: np.ndarray, band: int | None) -> np.ndarray:
    """Return an image or a cube without axes of size 1, or the band of it that was chosen."""
    single = tuple(axis for axis in range(values.ndim - 2) if values.shape[axis] == 1)
    values = np.squeeze(values, single)
    return values if band is None or values.ndim == 2 else values[band]


def _plane_of(words: str, header: Header) -> str | None:
    """Return the name in an NPZ of the plane that an extension is called, or None."""
    if set(PSFS) & set(words.upper().split()):
        return "psfs"
    kind = kind_of(words, header)
    return "variance" if kind in NOISES else kind


def _plane(
    pictures: FitsPictures, number: int, said: dict[int, str], key: str, raw: bool
) -> np.ndarray:
    """Read an extension that goes with an image; errors and inverse variances become variances.

    Args:
        said: words that name each extension.

    Raises:
        UnusableImageError: it is called something else, such as a weight, which is no variance.
    """
    words, header = said[number], pictures.hdus[number].header
    plane = _plane_of(words, header)
    if plane not in (None, key) or (plane is None and says(words, NOT_SCIENCE, COMPOUND)):
        wanted = "PSF" if key == "psfs" else key
        raise UnusableImageError(f"extension {number} is called {words}, which is no {wanted}")
    values, kind = pictures.values(number), kind_of(words, header)
    if kind in NOISES and key == "variance":
        return as_variance(values, kind)
    if kind == "mask" and not raw and OF_RUBIN not in words.upper().split():
        return unusable(values, (header, pictures.hdus[0].header)).astype(int)
    whole = np.isfinite(values).all() and (values == np.rint(values)).all()
    return values.astype(np.int64) if whole and np.abs(values).max(initial=0) < 2**53 else values


def _without_gaps(bands: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return bands with NaN where they hold no data: blank borders, and values that mark it."""
    for band in bands if bands.ndim == 3 else bands[None]:
        if band.ndim == 2 and (gaps := no_data(band)) is not None:
            band[gaps.anywhere] = np.nan
    return bands


def hubble_field() -> Field:
    """Return the built-in field: a part of the Hubble picture of scikit-image, in three bands.

    It has 64 x 64 pixels near the centre.  It is a JPEG, so its values are stretched and the
    fluxes are not in any physical unit.
    """
    from skimage.data import hubble_deep_field

    picture = np.asarray(hubble_deep_field(), float)[316:380, 416:480] / 255.0
    return make_field(
        np.moveaxis(picture, -1, 0)[::-1],
        filters=["blue", "green", "red"],
        name="Hubble Deep Field",
    )
