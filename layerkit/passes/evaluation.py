"""Evaluation: the mean of each loss and metric of a net over a set, each example seen once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from layerkit.blob import Blob
from layerkit.data.arrays import some_rows
from layerkit.errors import NetError, brief
from layerkit.layer import Layer, Run
from layerkit.passes import feeding
from layerkit.passes.inference import Inferences
from layerkit.settings.names import Named, closest, quoted
from layerkit.system.bars import watched
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


@runtime_checkable
class Counting(Protocol):
    """A layer whose mean over a batch is over those of its labels, `bottoms[1]`, that count."""

    bottoms: list[str]

    def counted(self, label: Any) -> Any:
        """Return how many labels of an array count."""


class Means:
    """Means of each loss and metric layer over a set, which comes in batches.

    A batch weighs as much as it has examples, or labels that count.
    """

    def __init__(self, layers: list[Layer]):
        self.layers = layers
        self.batches: list[tuple[list[float], list[float]]] = []  # each layer's sum and weight
        self.labels = [x.bottoms[1] for x in layers if isinstance(x, Counting)]

    def add(self, means: list[float], rows: int, labels: dict[str, Any]) -> None:
        """Add the means over a batch; `labels` are the arrays of the blobs in `self.labels`."""
        weights = [
            float(layer.counted(labels[layer.bottoms[1]]) if isinstance(layer, Counting) else rows)
            for layer in self.layers
        ]
        pairs = zip(means, weights, strict=True)
        self.batches.append(([mean * weight if weight else 0.0 for mean, weight in pairs], weights))

    def of_all(self, processes: Processes | None) -> dict[str, float]:
        """Return the mean over all batches by layer, not a number if nothing counted.

        Batches are added up in their order, whatever the number of processes.
        """
        every = processes.gather(self.batches) if processes else [self.batches]
        batches = [np.array(batch) for its in every for batch in its]
        sums, weights = sum(batches[1:], start=batches[0])
        pairs = zip(self.layers, sums, weights, strict=True)
        means = {x.name: float(a / w) if w else math.nan for x, a, w in pairs}
        return Named("loss or metric", means)


def of_own_data(
    net: Net, processes: Processes | None = None, progress: bool = False
) -> dict[str, float]:
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
    for source in net.sources():
        _check_end(source)
    state, kept = net.state(), (net.losses.copy(), net.metrics.copy())
    count, rows = max(counts.values()), net.run.batch_size
    means = Means(net.reported)

    def look() -> None:
        means.batches.clear()
        for batch in _watched(stretch(-(-count // rows), processes), processes, progress):
            net.run.passes = state["passes"] + batch
            for source in net.sources():
                source.position = batch * rows
            net.forward()
            values = {**net.losses, **net.metrics}
            labels = {name: net.blobs[name].data for name in means.labels}
            means.add([values[x.name] for x in net.reported], net.rows, labels)

    def undo() -> None:
        for mapping, values in zip((net.losses, net.metrics), kept, strict=True):
            mapping.clear()
            mapping.update(values)
        net.set_state(state)

    undoing(look, undo)
    return means.of_all(processes)


def of_given(
    net: Net,
    inferences: Inferences,
    data: Any,
    processes: Processes | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Return the means over arrays or a data layer that a caller gave; see Net.evaluate."""
    if not net.reported:
        raise NetError("evaluate: this net has no loss or metric layer, so there is no mean")
    tops = [layer.tops[0] for layer in net.reported]
    total, batch_of = _batches(net, data)
    size = net.run.batch_size

    def own_batches() -> Means:
        own = stretch(-(-total // size), processes)
        net.run.skip_looks(own.start)
        means = Means(net.reported)
        labels = means.labels
        for batch in _watched(own, processes, progress):
            start = batch * size
            arrays = batch_of(start, min(start + size, total))
            values = inferences.infer([*tops, *labels], True, arrays, "evaluate")
            each = [float(np.mean(x, dtype="float64")) for x in values[: len(tops)]]
            means.add(each, len(values[0]), dict(zip(labels, values[len(tops) :], strict=True)))
        return means

    return net.run.same_noise(own_batches).of_all(processes)


def _watched(batches: range, processes: Processes | None, progress: bool) -> Iterator[int]:
    """Yield numbers of batches, with a bar if one is wanted, in the process that leads."""
    leads = processes is None or processes.rank == 0
    return watched(batches, "evaluating", "batches", progress and leads)


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
    described.integers = [top for top in layer.tops if net.blobs[top].integers]
    run = Run(net.backend, net.dtype, net.run.batch_size, net.run.seed, training=False)
    run.flushed = net.engine.flushed
    source: Any = described.attach(run)
    shapes = source.setup([])
    _check_end(source)
    for name, statistic in source.statistics.items():  # such as a mean of the training set
        own = net.statistics.get(f"{layer.name}/{name}")
        if own is None or own.shape != statistic.shape:
            raise NetError(
                f"evaluate: {layer.label()}: the net has no {name} of that layer, measured on the "
                f"set that it was trained on; give numbers, such as {name}=0.5"
            )
        statistic.bind(own.data)
    tops = [
        Blob.allocate(top, run.batch_size, shape, net.backend, net.blobs[top].data.dtype)
        for top, shape in zip(layer.tops, shapes, strict=True)
    ]

    def batch(start: int, stop: int) -> dict[str, Any]:
        source.position = start
        for top in tops:
            top.resize(stop - start)
        source.forward([], tops)
        return {top.name: top.data for top in tops}

    return source.count, batch


def _check_end(source: Any) -> None:
    """Fail unless a data layer's examples come to an end."""
    if source.endless:
        raise NetError(
            f"evaluate: {source.label()}: its examples have no end; give count=, how many are an "
            "epoch"
        )
