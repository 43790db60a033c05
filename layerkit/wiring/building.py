"""Building: layers learn their shapes one after the other, before memory is made for a net."""

from __future__ import annotations

import math
from collections.abc import Iterable

from layerkit.backends.base import Array
from layerkit.blob import INTEGERS, Blob
from layerkit.errors import brief
from layerkit.layer import Layer, Shape, checked_shape
from layerkit.run import Run
from layerkit.settings.names import Named
from layerkit.system.memory import in_words
from layerkit.wiring.sharing import own, used

DRAWING = 64  # bytes for each number that an initialiser draws, while it does


def set_up(layers: Iterable[Layer]) -> dict[str, Shape]:
    """Set every layer up in order; return the shape of every blob."""
    shapes: dict[str, Shape] = {}
    integers: set[str] = set()
    for layer in layers:
        try:
            given = layer.setup([shapes[b] for b in layer.bottoms])
            layer.integer_blobs = _integers(layer, integers)
            integers |= layer.integer_blobs
            layer.run.declared[layer.name] = layer.parameters
            layer.check_tuning()
        except (MemoryError, OverflowError, ValueError) as error:
            if isinstance(error, ValueError) and "dimension exceeded" not in str(error):
                raise  # not NumPy's word for arrays beyond all bounds
            layer.fail(f"its work space is too large for this computer ({error})")
        layer.declaring = False
        layer.close()
        try:
            if not isinstance(given, tuple | list):
                raise ValueError
            tops = [checked_shape(shape) for shape in given]
        except ValueError:
            layer.fail(
                "setup must return a list of shapes, one for each top, without the batch axis "
                f"and of sizes below 2^31, such as [(3,)], got {brief(given)}"
            )
        if len(tops) != len(layer.tops):
            layer.fail(f"has {len(tops)} tops, but tops= names {len(layer.tops)}: {layer.tops}")
        if (layer.is_loss or layer.is_metric) and tops != [()]:
            layer.fail(f"must have one top of one value per example, got shapes {tops}")
        shapes.update(zip(layer.tops, tops, strict=True))
    return shapes


def _integers(layer: Layer, known: set[str]) -> frozenset[str]:
    """Return the blobs of a layer that hold integers, given those made by the layers before it."""
    read = [b for b in layer.bottoms if b in known]
    for i, bottom in enumerate(layer.bottoms):
        if bottom in known and not (layer.keeps_integers or layer.reads_integers(i)):
            layer.fail(
                f"its bottom {bottom!r} holds integers, and it computes with floats; leave "
                f"integers= out where {bottom!r} comes from, if the net's floats hold its numbers"
            )
        if read and layer.keeps_integers and bottom not in known:
            layer.fail(f"its bottom {read[0]!r} holds integers, but {bottom!r} floats")
    if not read:  # a source knows its own
        return layer.integer_blobs
    return frozenset([*read, *(layer.tops if layer.keeps_integers else [])])


def check_memory(
    layers: Iterable[Layer], shapes: dict[str, Shape], run: Run, gradients: bool, shared: bool
) -> None:
    """Fail where parameters and blobs cannot be held, before any of them is made.

    Args:
        layers: of the net, set up.
        shapes: name of each blob -> its shape.
        run: of the net.
        gradients: whether blobs and parameters may have diffs.
        shared: whether the parameters are another net's.
    """
    layers = list(layers)
    rows, size = run.batch_size, run.dtype.itemsize * (1 + gradients)
    needs = {
        layer: size * rows * sum(math.prod(shapes[t]) for t in layer.tops)
        + sum(p.size for p in own(layer)) * (0 if shared else size)
        for layer in layers
    }
    lent = {p.name: p.size for layer in layers for p in used(layer)}
    parts = 2 * run.dtype.itemsize * sum(lent.values()) if gradients else 0  # see sharing.py
    need, free = sum(needs.values()) + parts, run.memory()
    if run.backend.name == "numpy" and not shared:
        sizes = (p.size for layer in layers for p in own(layer))
        need += DRAWING * max(sizes, default=0)
    if need > free:
        largest = max(needs, key=lambda layer: needs[layer])
        largest.fail(
            f"its parameters and tops would take {in_words(needs[largest])} for a batch of "
            f"{rows}; to be made the net needs {in_words(need)} in all, and {in_words(free)} are "
            "free"
        )


def make_blobs(
    shapes: dict[str, Shape], layers: list[Layer], reported: list[Layer], values: Array, run: Run
) -> Named[Blob]:
    """Make the blobs of a net, without diffs.

    Args:
        shapes: name of each blob -> its shape.
        layers: of the net, set up.
        reported: the loss and metric layers.
        values: array (layers, batch size) for the tops of `reported`.
        run: of the net.
    """
    integers = {name for layer in layers for name in layer.integer_blobs}
    blobs = {
        name: Blob.allocate(
            name, run.batch_size, shape, run.backend, INTEGERS if name in integers else run.dtype
        )
        for name, shape in shapes.items()
    }
    for layer, row in zip(reported, values, strict=True):
        blobs[layer.tops[0]] = Blob(layer.tops[0], row)
    return Named("blob", blobs, "write into its array: net.blobs[name].data[...] = values")
