"""Evaluation: the mean of each loss and metric of a net over a set, each example seen once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.blob import Blob
from layerkit.data.arrays import some_rows
from layerkit.errors import NetError, brief
from layerkit.layer import Layer, Run
from layerkit.passes import feeding
from layerkit.passes.inference import Inferences
from layerkit.settings.names import Named, closest, quoted
from layerkit.system.uninterrupted import undoing

if TYPE_CHECKING:
    from layerkit.net import Net


def of_own_data(net: Net) -> dict[str, float]:
    """Return the means over one epoch of the net's data layers; leave no trace in the net."""
    counts = {x.name: x.count for x in net.sources()}
    if net.run.training:
        raise NetError(
            "evaluate: make a net of phase 'test' for it, with share= this one, or give examples: "
            "evaluate({'x': images})"
        )
    if net.inputs or len(set(counts.values())) != 1:
        raise NetError(
            "evaluate: the data must be given, as evaluate({'x': images}) or as a data layer, or "
            "come from data layers (layerkit.with_data) of equal length; there are "
            f"{counts or 'none'}, and inputs {quoted(net.input_names())}"
        )
    state, kept = net.state(), (net.losses.copy(), net.metrics.copy())
    means = Named("loss or metric", {layer.name: 0.0 for layer in net.reported})
    count = max(counts.values())

    def look() -> None:
        seen = 0
        for source in net.sources():
            source.position = 0
        while seen < count:
            net.forward()
            seen += net.rows
            for name, value in {**net.losses, **net.metrics}.items():
                means[name] += value * net.rows / count

    def undo() -> None:
        for mapping, values in zip((net.losses, net.metrics), kept, strict=True):
            mapping.clear()
            mapping.update(values)
        net.set_state(state)

    undoing(look, undo)
    return means


def of_given(net: Net, inferences: Inferences, data: Any) -> dict[str, float]:
    """Return the means over arrays or a data layer that a caller gave; see Net.evaluate."""
    if not net.reported:
        raise NetError("evaluate: this net has no loss or metric layer, so there is no mean")
    names = [layer.name for layer in net.reported]
    tops = [layer.tops[0] for layer in net.reported]

    def means() -> list[float]:
        sums, count = np.zeros(len(names)), 0
        for batch in _batches(net, data):
            values = inferences.infer(tops, True, batch, "evaluate")
            sums += [np.sum(each, dtype="float64") for each in values]
            count += len(values[0])
        return [float(x) for x in sums / count]

    return Named("loss or metric", dict(zip(names, net.run.same_noise(means), strict=True)))


def _batches(net: Net, data: Any) -> Iterator[dict[str, Any]]:
    """Yield arrays by blob, of at most as many rows as the net takes in a pass."""
    if isinstance(data, Layer):
        yield from _from_layer(net, data)
        return
    if not isinstance(data, dict):
        raise NetError(
            "evaluate: expected arrays by blob, such as {'x': images, 't': labels}, or a data "
            f"layer, got {brief(data)}"
        )
    arrays, total = feeding.examples(net, "evaluate", data)
    for start in range(0, total, net.run.batch_size):
        yield some_rows(arrays, start, min(start + net.run.batch_size, total))


def _from_layer(net: Net, layer: Layer) -> Iterator[dict[str, Any]]:
    """Yield one epoch of a data layer, in the order of its arrays."""
    if not layer.is_source:
        raise NetError(
            f"evaluate: {layer.label()} is no data layer; give MemoryData(...), say, with tops "
            "named like the net's inputs"
        )
    for top in layer.tops:
        if top not in net.blobs:
            raise NetError(
                f"evaluate: {layer.label()}: the net has no blob {top!r} for its top; "
                f"{closest(top, net.blobs)}"
            )
    described: Any = copy.copy(layer)
    described.shapes = [net.blobs[top].shape for top in layer.tops]
    run = Run(net.backend, net.dtype, net.run.batch_size, net.run.seed, training=False)
    source: Any = described.attach(run)
    tops = [
        Blob.allocate(top, run.batch_size, shape, net.backend, net.dtype)
        for top, shape in zip(layer.tops, source.setup([]), strict=True)
    ]
    while source.position < source.count:
        rows = min(run.batch_size, source.count - source.position)
        for top in tops:
            top.resize(rows)
        source.forward([], tops)
        yield {top.name: top.data for top in tops}
