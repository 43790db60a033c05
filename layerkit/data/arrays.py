"""Arrays from outside: what a caller may give as numbers, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.errors import LayerkitError, NetError

NUMBERS = "biuf"  # kinds of dtype that hold numbers: truth values, integers, floats
ON_GPU = (2, 13)  # kDLCUDA, kDLCUDAManaged
WIDEST = np.dtype("float64").itemsize
PLAIN = {np.ndarray, bool, int, float, complex, str, bytes, type(None)}  # neither mask nor unit


def numbers(given: Any, what: str, error: type[LayerkitError] = NetError) -> np.ndarray:
    """Make a NumPy array of real numbers, in the processor's byte order, of what a caller gave.

    Args:
        given: an array, also of another library that hands it over by `__array__` or DLPack,
            nested lists, or anything that NumPy can turn into an array.
        what: the name of the place that it is for, to begin the error with.
        error: what to raise.

    Returns:
        An array, copied only if need be; numbers of more than 64 bits become float64.

    Raises:
        LayerkitError: of the kind asked for, where it holds no real numbers, has rows of several
            shapes, or has masked values or a unit, as objects of astropy can.
    """
    wanted = f"{what}: expected an array of numbers, all rows of one shape"
    try:
        lost = _lost(given)
    except RecursionError:  # NumPy could take for ever over a list in itself
        raise error(f"{wanted}; the list is nested too deeply, or holds itself") from None
    if lost:
        raise error(f"{what}: got {lost}")
    if isinstance(given, Mapping):
        raise error(
            f"{wanted}; got {type(given).__name__}, which holds arrays by name: give one of them"
        )
    try:
        if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
            given = np.from_dlpack(given)
        array = np.asarray(given)
    except Exception as problem:  # of any kind, from an object's own way to become an array
        raise error(f"{wanted}; {' '.join(str(problem).split())}") from problem
    if array.dtype.kind not in NUMBERS:
        raise error(f"{wanted}; it holds {array.dtype}")
    if array.dtype.itemsize > WIDEST:
        array = narrowed(array, "float64", what, error)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def from_gpu(given: Any, xp: Any) -> Any:
    """Return another library's GPU array as an array of `xp`, CuPy, without copying it.

    Anything else is returned as it is.
    """
    if xp is np or isinstance(given, np.ndarray | xp.ndarray):
        return given
    device = getattr(given, "__dlpack_device__", lambda: (0, 0))()[0]
    return xp.from_dlpack(given) if device in ON_GPU else given


def mask_of(given: Any) -> np.ndarray | None:
    """Return the mask of a masked array, True where a value is masked; None if there is none.

    Args:
        given: anything; NumPy's masked arrays have a mask, and so do Astropy's `Masked`, `NDData`
            and `CCDData`.
    """
    try:
        mask = np.asarray(_attribute(given, "mask"))
    except Exception:  # something else of that name
        return None
    return mask != 0 if mask.dtype.kind in "biu" else None


def hidden(array: Any) -> np.ndarray | None:
    """Return the mask of a masked array of NumPy; None for others, and where no value is masked."""
    return np.ma.getmaskarray(array) if np.ma.is_masked(array) else None


def data_of(array: Any) -> Any:
    """Return what a masked array of NumPy holds, under the mask too; anything else as it is."""
    return np.ma.getdata(array) if isinstance(array, np.ma.MaskedArray) else array


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays along the first axis; the result is a masked array if any of them is."""
    if any(map(np.ma.is_masked, parts)):
        found: np.ndarray = np.ma.concatenate(parts)
        return found
    return np.concatenate([data_of(part) for part in parts])


def _lost(given: Any) -> str:
    """Say what NumPy would lose, in silence, of an object or of one in a list: a mask, a unit.

    Objects of any library are known by their attributes `mask` and `unit` (or `units`).
    """
    if type(given) in PLAIN:
        return ""
    if isinstance(given, list | tuple):
        return next((lost for x in given if type(x) not in PLAIN and (lost := _lost(x))), "")
    mask = mask_of(given)
    if mask is not None and mask.any():
        return (
            "an array with masked values, which have no number; fill them (array.filled(value)) or "
            "leave those rows out"
        )
    for unit in (_attribute(given, "unit"), _attribute(given, "units")):
        # Text is a remark, which no library reckons with.
        if not (unit is None or isinstance(unit, str) or str(unit) in ("", "dimensionless")):
            return (
                f"numbers with the unit {str(unit)!r}, of which a net knows nothing; give plain "
                "numbers, such as quantity.to_value(unit) or array.data"
            )
    return ""


def _attribute(given: Any, name: str) -> Any:
    """Return an attribute that is no method; None where there is none, or it cannot be had."""
    try:
        found = getattr(given, name, None)
    except Exception:  # of a data set in a closed file, say
        return None
    return None if callable(found) else found


def some_rows(arrays: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return some rows of each blob's array, which may be an HDF5 data set.

    Raises:
        NetError: they cannot be read from their file.
    """
    found = {}
    for name, array in arrays.items():
        try:
            found[name] = array[start:stop]
        except OSError as error:
            raise NetError(
                f"blob {name!r}: rows {start} to {stop - 1} cannot be read from their file "
                f"({' '.join(str(error).split())})"
            ) from error
    return found


def narrowed(
    array: np.ndarray, dtype: Any, what: str, error: type[LayerkitError] = NetError
) -> np.ndarray:
    """Round floats of more bits than `dtype` to it; leave other arrays as they are.

    Raises:
        LayerkitError: of the kind asked for, where a finite number is too large for `dtype`.
    """
    dtype = np.dtype(dtype)
    if array.dtype.kind != "f" or array.dtype.itemsize <= dtype.itemsize:
        return array
    try:
        with np.errstate(over="raise", under="ignore", invalid="ignore"):
            return array.astype(dtype)
    except FloatingPointError as problem:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise error(
            f"{what}: {largest:.3g} is too large for {dtype}, which ends at "
            f"{np.finfo(dtype).max:.3g}; scale the numbers"
        ) from problem


def loses_digits(array: np.ndarray, rounded: np.ndarray) -> bool:
    """Tell whether floats have lost digits as they were rounded, being too small for a type.

    Numbers below its normal range do; a few of them among larger ones do no harm, so errors are
    measured by the scale of the array: their norm exceeds epsilon times that of the array.
    """
    largest = float(np.abs(array).max(initial=0))
    if not (0 < largest < np.inf and rounded.dtype.itemsize < array.dtype.itemsize):
        return False
    with np.errstate(under="ignore"):
        numbers = array.astype("float64") / largest
        errors = rounded.astype("float64") / largest - numbers
        return bool(np.linalg.norm(errors) > np.finfo(rounded.dtype).eps * np.linalg.norm(numbers))


def rounded(
    array: np.ndarray, dtype: Any, what: str, error: type[LayerkitError] = NetError
) -> np.ndarray:
    """Round the floats of a parameter as `narrowed` does.

    Raises:
        LayerkitError: of the kind asked for, where they are too large or too small for `dtype`.
    """
    found = narrowed(array, dtype, what, error)
    if loses_digits(array, found):
        raise error(
            f"{what}: {np.abs(array).max():.3g}, the largest number, is too small for {dtype}, "
            f"which keeps its digits from {np.finfo(dtype).tiny:.3g} on; scale the numbers"
        )
    return found


def keeps_axes(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Tell whether merging neighbouring axes of one shape gives the other, as flattening does.

    (3, 28, 28) and (2352,) or (3, 784) are so; (28, 28, 3) and (3, 28, 28) hold as many numbers,
    but in another order.
    """
    if 0 in given or 0 in wanted:
        return given == wanted
    ends = [set(accumulate(shape, mul, initial=1)) for shape in (given, wanted)]
    whole = [max(e) for e in ends]
    return whole[0] == whole[1] and (ends[0] <= ends[1] or ends[1] <= ends[0])


def integers(array: Array, what: str, error: type[LayerkitError] = NetError) -> Array:
    """Return whole numbers as int64, with their values.

    Args:
        array: of any dtype that holds numbers, on any backend.
        what, error: as for `numbers`.

    Raises:
        LayerkitError: of the kind asked for, where a number is not whole, or 64 bits cannot hold
            it; it names the number and the row.
    """
    kind = array.dtype.kind
    with np.errstate(invalid="ignore"):
        found = array.astype("int64", copy=False)
    if kind in "bi" or (kind == "u" and array.dtype.itemsize < 8) or not array.size:
        return found
    good = array < 2**63
    if kind == "f":
        good &= (array >= -(2**63)) & (array == found)
    if not bool(good.all()):
        place = int(good.reshape(-1).argmin())
        row, value = place // (array.size // len(array)), array.reshape(-1)[place].item()
        raise error(
            f"{what}: expected integers that 64 bits hold, but row {row} holds {value}; leave "
            "integers= out for other numbers"
        )
    return found


def check_exact(array: Array, dtype: Any, what: str, error: type[LayerkitError] = NetError) -> None:
    """Check that integers keep their values in a net's floats, of which 24 or 53 bits are exact.

    Args:
        array: of any dtype, on any backend; only integers of more bits than those can fail.
        dtype: of the net.
        what, error: as for `numbers`.

    Raises:
        LayerkitError: of the kind asked for; it names the number and the row.
    """
    if array.dtype.kind not in "iu" or not array.size:
        return
    bits = np.finfo(dtype).nmant + 1
    if 8 * array.dtype.itemsize <= bits:
        return
    largest, smallest = int(array.max()), int(array.min())
    if max(largest, -smallest) <= 2**bits:
        return
    worst = largest if largest > 2**bits else smallest
    row = int((array.reshape(len(array), -1) == worst).any(axis=1).argmax()) if array.ndim else 0
    wider = ', other numbers with dtype="float64"' if bits < 53 else ""
    raise error(
        f"{what}: the integer {worst} in row {row} does not keep its value in {np.dtype(dtype)}, "
        f"whose integers are exact up to {2**bits} only; labels and ids keep theirs with integers= "
        f"of the layer that brings them{wider}; or convert the array to floats yourself where "
        "rounding does no harm"
    )
