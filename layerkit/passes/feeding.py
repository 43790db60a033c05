"""Feeding: arrays that a caller gives for the blobs of a net, checked before they go in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.arrays import (
    NUMBERS,
    check_exact,
    from_gpu,
    integers,
    keeps_axes,
    narrowed,
    numbers,
)
from layerkit.errors import NetError, brief
from layerkit.layer import Shape
from layerkit.settings.names import closest, quoted

if TYPE_CHECKING:
    from layerkit.net import Net


def feed(net: Net, inputs: Any) -> None:
    """Put the values of Input layers in place, and with them the number of rows.

    Without inputs a pass has as many rows as the net's batch size; in phase "test" only as many as
    the data layers have left in their epoch.

    Raises:
        NetError: a missing or unknown input, or an array that does not fit.
    """
    names = net.input_names()
    if not isinstance(inputs, dict):
        raise NetError(f"feed: expected a dict of arrays by name, got {brief(inputs)}")
    if inputs.keys() != set(names):
        unknown = next((n for n in inputs if n not in names), None)
        missing = next((n for n in names if n not in inputs), None)
        problem = f"input {missing!r} is missing: call with {missing}=array"
        if unknown is not None:
            problem = f"no Input layer has a blob {unknown!r}"
            if any(unknown in source.tops for source in net.sources()):
                problem += ", which a data layer fills"
        raise NetError(
            f"{problem}; this net's inputs are {quoted(names)}, and {quoted(inputs)} came"
        )
    blobs = [net.blobs[name] for name in names]
    left, rows = _rows_left(net), None
    arrays = []
    for blob in blobs:
        array = _fitting(net, blob, inputs[blob.name])
        if rows not in (None, len(array)):
            raise NetError(
                f"blob {blob.name!r}: got {len(array)} rows, but the other inputs have {rows}"
            )
        rows = len(array)
        # A copy, if filling another input of this net would overwrite the array before it is read.
        shared = any(net.xp.may_share_memory(array, b.data) for b in blobs)
        arrays.append(array.copy() if shared else array)
    if rows is None:
        rows = left
    elif not net.run.training and rows > left:
        raise NetError(
            f"blob {names[0]!r}: got {rows} rows, but the data layers have {left} left in this "
            "epoch, and in phase 'test' a pass ends with it"
        )
    net.passed = False  # what the pass before has left is overwritten
    if rows != net.rows:
        net.resize(rows)
    for blob, array in zip(blobs, arrays, strict=True):
        blob.data[...] = array


def _rows_left(net: Net) -> int:
    """Return how many rows a pass without inputs has."""
    left = [net.run.batch_size]
    if not net.run.training:  # so that each example is seen once in an epoch
        left += [x.count - x.position % x.count for x in net.sources()]
    return min(left)


def fill(net: Net, blob: Blob, array: Any) -> None:
    """Copy what a caller gave for this blob into it; the rows must be as many."""
    blob.data[...] = _fitting(net, blob, array)


def check_diffs(net: Net, diffs: dict[str, Any]) -> dict[str, Array]:
    """Check what a caller gave to `backward`, and that it can be called; see Net.backward.

    Returns:
        Name of a blob -> derivative, on the backend.
    """
    if net.gradients == "none":
        raise NetError("this net has no gradients; build it with gradients='parameters'")
    if not net.passed:
        raise NetError(
            "backward: there is no forward pass to differentiate, or a solver's step, a "
            "snapshot or an error has come after it; call net.forward first"
        )
    found = {}
    for name, diff in diffs.items():
        if name not in net.blobs or net.blobs[name].diff is None:
            why = (
                "has no diff"
                if name in net.blobs
                else (f"is not in the net; {closest(name, net.blobs)}")
            )
            raise NetError(f"backward: blob {name!r} {why}")
        # A copy, as it may be a diff of this net, which the pass overwrites.
        found[name] = _as_array(net, diff, name, net.dtype).copy()
        if found[name].shape != net.blobs[name].diff.shape:
            raise NetError(
                f"backward: the diff of blob {name!r} has shape "
                f"{tuple(net.blobs[name].diff.shape)}, got {tuple(found[name].shape)}"
            )
    return found


def examples(net: Net, what: str, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return arrays for blobs, which can be sliced, and how many rows each has.

    Args:
        net: the net.
        what: the name of the function that they were given to.
        given: what a caller gave, any number of rows for each blob.

    Raises:
        NetError: nothing, an unknown blob, an array that does not fit, or of other rows.
    """
    if not given:
        hint = ", or count=, how many rows, where nothing is needed" if what == "infer" else ""
        raise NetError(f"{what}: give at least one blob, such as x=images{hint}")
    for name in given:
        if name not in net.blobs:
            raise NetError(f"{what}: no blob {name!r}; {closest(name, net.blobs)}")
    arrays = {name: _sliceable(net, name, array) for name, array in given.items()}
    rows = {name: len(array) for name, array in arrays.items()}
    total = max(rows.values())
    if min(rows.values()) != total or total == 0:
        raise NetError(
            f"{what}: the given arrays must have the same number of rows, at least 1, got {rows}"
        )
    for name, array in arrays.items():
        if not keeps_axes(tuple(array.shape[1:]), net.blobs[name].shape):
            raise NetError(_misfit(net.blobs[name], array.shape))
    return arrays, total


def _sliceable(net: Net, name: str, array: Any) -> Any:
    """Make an array of what was given for a blob; a data set of HDF5 stays in its file."""
    given, array = array, from_gpu(array, net.xp)
    if not isinstance(array, np.ndarray | net.xp.ndarray) and not _is_in_file(array):
        array = numbers(array, f"blob {name!r}")
    if not array.shape:
        raise NetError(
            f"blob {name!r}: expected an array of shape {_with_rows(net.blobs[name].shape)}, got "
            f"{brief(given)}"
        )
    return array


def _is_in_file(given: Any) -> bool:
    """Tell whether this is a data set of HDF5, in a file that is open."""
    if type(given).__module__.split(".")[0] != "h5py":
        return False
    try:
        return len(given.shape) > 0
    except Exception:  # no data set, or one that cannot be read: `numbers` says why
        return False


def _fitting(net: Net, blob: Blob, array: Any) -> Array:
    """Bring an array of a caller to the backend, and to the shape that the blob has."""
    array = _as_array(net, array, blob.name)
    n = len(array) if array.ndim else 0
    if not 0 < n <= net.run.batch_size or not keeps_axes(array.shape[1:], blob.shape):
        limit = f" with n from 1 to {net.run.batch_size} (the batch size)"
        raise NetError(_misfit(blob, array.shape, limit))
    return array.reshape(n, *blob.shape)


def _as_array(net: Net, array: Any, name: str, dtype: Any = None) -> Array:
    """Bring what a caller gave for a blob to the backend; an error names the blob."""
    what, array = f"blob {name!r}", from_gpu(array, net.xp)
    if net.xp is np or not isinstance(array, net.xp.ndarray):
        array = numbers(array, what)
    elif array.dtype.kind not in NUMBERS:
        raise NetError(f"{what}: expected an array of numbers; it holds {array.dtype}")
    if net.blobs[name].integers:
        return net.backend.asarray(integers(array, what))
    check_exact(array, net.dtype, what)
    if isinstance(array, np.ndarray):
        array = narrowed(array, net.dtype, what)
    return net.backend.asarray(array, dtype)


def _misfit(blob: Blob, given: Shape, limit: str = "") -> str:
    """Say what is wrong with an array of a shape that a blob does not take."""
    example, said = tuple(given[1:]), ""
    if tuple(given) == blob.shape:
        said = "; one example needs the batch axis too: array[None]"
    elif math.prod(example) == math.prod(blob.shape) and not keeps_axes(example, blob.shape):
        said = "; its axes are in another order: transpose it"
    return (
        f"blob {blob.name!r}: expected an array of shape "
        f"{_with_rows(blob.shape)}{limit}, got {tuple(given)}{said}"
    )


def _with_rows(shape: Shape) -> str:
    return str(("n", *shape)).replace("'", "")
