"""Evaluation: the mean of each loss and metric of a net over a set, each example seen once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

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


class Processes(Protocol):
    """Processes that share an evaluation; see layerkit.distributed.Communicator."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""


def stretch(batches: int, processes: Processes | None) -> range:
    """Return the numbers of the batches that this process evaluates."""
    rank, size = (processes.rank, processes.size) if processes else (0, 1)
    return range(batches * rank // size, batches * (rank + 1) // size)


def added(values: list[list[float]], processes: Processes | None) -> np.ndarray:
    """Add up the values of all batches, each a list of sums, in the order of the batches."""
    every = processes.gather(values) if processes else [values]
    rows = [np.array(row) for its in every for row in its]
    return sum(rows[1:], start=rows[0])


def of_own_data(net: Net, processes: Processes | None = None) -> dict[str, float]:
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
    count, rows = max(counts.values()), net.run.batch_size
    sums: list[list[float]] = []

    def look() -> None:
        sums.clear()
        for batch in stretch(-(-count // rows), processes):
            net.run.passes = state["passes"] + batch
            for source in net.sources():
                source.position = batch * rows
            net.forward()
            found = {**net.losses, **net.metrics}
            sums.append([found[layer.name] * net.rows / count for layer in net.reported])

    def undo() -> None:
        for mapping, values in zip((net.losses, net.metrics), kept, strict=True):
            mapping.clear()
            mapping.update(values)
        net.set_state(state)

    undoing(look, undo)
    names = [layer.name for layer in net.reported]
    return Named("loss or metric", dict(zip(names, added(sums, processes).tolist(), strict=True)))


def of_given(
    net: Net, inferences: Inferences, data: Any, processes: Processes | None = None
) -> dict[str, float]:
    """Return the means over arrays or a data layer that a caller gave; see Net.evaluate."""
    if not net.reported:
        raise NetError("evaluate: this net has no loss or metric layer, so there is no mean")
    names = [layer.name for layer in net.reported]
    tops = [layer.tops[0] for layer in net.reported]
    total, batch_of = _batches(net, data)
    size = net.run.batch_size

    def sums() -> list[list[float]]:
        own = stretch(-(-total // size), processes)
        net.run.skip_looks(own.start)
        found = []
        for start in (batch * size for batch in own):
            batch = batch_of(start, min(start + size, total))
            values = inferences.infer(tops, True, batch, "evaluate")
            found.append([float(np.sum(each, dtype="float64")) for each in values])
        return found

    means = added(net.run.same_noise(sums), processes) / total
    return Named("loss or metric", dict(zip(names, means.tolist(), strict=True)))


def _batches(net: Net, data: Any) -> tuple[int, Callable[[int, int], dict[str, Any]]]:
    """Return how many rows there are, and what gives a stretch of them as arrays by blob."""
    if isinstance(data, Layer):
        return _from_layer(net, data)
    if not isinstance(data, dict):
        raise NetError(
            "evaluate: expected arrays by blob, such as {'x': images, 't': labels}, or a data "
            f"layer, got {brief(data)}"
        )
    arrays, total = feeding.examples(net, "evaluate", data)
    return total, lambda start, stop: some_rows(arrays, start, stop)


def _from_layer(net: Net, layer: Layer) -> tuple[int, Callable[[int, int], dict[str, Any]]]:
    """Return the rows of an epoch of a data layer, and what gives some, in their own order."""
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

    def batch(start: int, stop: int) -> dict[str, Any]:
        source.position = start
        for top in tops:
            top.resize(stop - start)
        source.forward([], tops)
        return {top.name: top.data for top in tops}

    return source.count, batch
