"""The contract between layers and the net, checked in the first pass by every plan.

Arrays that a call must fill are filled beforehand with a NaN of its own bit pattern, which tells
what was not written from any number that a call could write.  The check changes no result: a call
that keeps the contract overwrites all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

from layerkit.backends.base import Array
from layerkit.blob import Blob, ReboundError
from layerkit.layer import Layer
from layerkit.layers.sources.input import Input

# Quiet NaNs whose lowest bits no arithmetic makes.
MARKS = {4: ("uint32", 0x7FC1A57E), 8: ("uint64", 0x7FF81A57E1A57E1A)}

NO_MEMORY = "there is not enough memory left to run it; take a smaller batch, or free some"

Call = Callable[[list[Blob], list[Blob]], Any]
Named = tuple[str, Array]


def forward(
    layer: Layer,
    call: Call,
    bottoms: list[Blob],
    tops: list[Blob],
    with_diffs: Collection[str] = (),
) -> None:
    """Call a forward pass and check the result; `with_diffs` names layers that fill diffs too."""
    fills = [] if isinstance(layer, Input) else _data("top", tops)
    if layer.name in with_diffs:
        fills += _diffs(bottoms)
    _checked("forward", layer, call, bottoms, tops, fills, _data("bottom", bottoms))


def backward(
    layer: Layer, call: Call, bottoms: list[Blob], tops: list[Blob], updated: Collection[str]
) -> None:
    """Call a backward pass and check the result; `updated` names parameters without a diff."""
    fills = _diffs(bottoms) + [
        (f"the diff of its parameter {name!r}", p.diff)
        for name, p in layer.parameters.items()
        if p.trainable and p.name not in updated
    ]
    keeps = _data("bottom", bottoms) + [  # it may recompute its tops' data, which are its own
        (f"the diff of its top {top.name!r}", top.diff) for top in tops
    ]
    _checked("backward", layer, call, bottoms, tops, fills, keeps)


def make(layer: Layer, call: Callable[..., Any], *arguments: Any, way: str = "forward") -> None:
    """Make a call of a layer, in which an error names the layer."""
    try:
        result = call(*arguments)
    except (ReboundError, MemoryError) as error:
        failed(layer, error)
    if result is not None:
        returned(layer, way, result)


def failed(layer: Layer, error: Exception) -> NoReturn:
    """Raise an error that names the layer that had no memory left or replaced an array."""
    if isinstance(error, MemoryError):
        layer.fail(NO_MEMORY)
    layer.breaks(str(error))


def returned(layer: Layer, way: str, result: Any) -> None:
    """Refuse the result of a forward or backward pass, which must return nothing."""
    layer.breaks(
        f"{way} returned {type(result).__name__}, but what it computes must be written into the "
        "arrays of its blobs (tops[0].data[...] = values), and nothing returned"
    )


def _data(kind: str, blobs: Iterable[Blob]) -> list[Named]:
    return [(f"the data of its {kind} {blob.name!r}", blob.data) for blob in blobs]


def _diffs(bottoms: Iterable[Blob]) -> list[Named]:
    return [
        (f"the diff of its bottom {blob.name!r}", blob.diff)
        for blob in bottoms
        if blob.diff is not None
    ]


def _bits(array: Array) -> tuple[Array, int]:
    dtype, mark = MARKS[array.dtype.itemsize]
    return array.view(dtype), mark


def _checked(
    way: str,
    layer: Layer,
    call: Call,
    bottoms: list[Blob],
    tops: list[Blob],
    fills: list[Named],
    keeps: list[Named],
) -> None:
    before = [array.copy() for _, array in keeps]
    for _, array in fills:
        bits, mark = _bits(array)
        bits[...] = mark
    blobs = [*bottoms, *tops]
    make(layer, call, bottoms, tops, way=way)
    if [*map(id, bottoms), *map(id, tops)] != [id(blob) for blob in blobs]:
        layer.breaks(f"{way} replaced a blob in its lists; write into the blob's arrays instead")
    for what, array in fills:
        bits, mark = _bits(array)
        if bool((bits == mark).any()):
            full = "with =, never +=" if way == "forward" else "with ="
            layer.breaks(
                f"{way} has not written all of {what}; {way} must write every "
                f"{'top' if way == 'forward' else 'diff'} in full, {full}"
            )
    for (what, array), old in zip(keeps, before, strict=True):
        if not bool((_bits(array)[0] == _bits(old)[0]).all()):
            layer.breaks(f"{way} has changed {what}, which is not its own; compute in a buffer")
