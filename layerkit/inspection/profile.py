"""Profile: a table of the times in a training step, which add up to the step, as in `caffe time`.

The clock is read before and after every layer's call, so no part of a step falls between two rows:
the times before the first layer (inputs are checked and copied), between the passes (means of the
losses, regularisation), after the last layer (clipping, updates that layers do not make themselves)
and between any two layers (sums of diffs, Python) have rows of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.inspection.display import html_table
from layerkit.layers.sources.input import Input
from layerkit.system.bars import watched
from layerkit.system.uninterrupted import undoing

# Rows for the work of a step outside its layers, and their remarks in the table.
BEFORE, BETWEEN, AFTER, PYTHON = "(inputs)", "(losses)", "(update)", "(between layers)"
REMARKS = {
    BEFORE: "before the first layer: inputs checked and copied",
    BETWEEN: "between the passes: means of the losses, regularisation",
    AFTER: "after the last layer: clipping, updates not made in a backward pass",
    PYTHON: "between any two layers: sums of diffs, Python",
}
WARM_UP = 3  # steps before measurement starts


@dataclass
class Row:
    """One layer in one direction, or one part of a step that is no layer.

    Attributes:
        layer, type: the layer's name and class; for another part its name and "".
        milliseconds: in one step.
        share: `milliseconds` as a fraction of the whole step's, 0 to 1.
        flops: floating-point operations of the layer's matrix products; 0 if it has none.
        bytes: size of the arrays that the layer reads or writes, once for each of the two.
    """

    layer: str
    type: str
    milliseconds: float
    share: float
    flops: int = 0
    bytes: int = 0


@dataclass
class Profile:
    """Table of the times in a training step; print it.

    Times are means over the middle half of the steps measured, without the fastest and the slowest
    quarter, so that the rows add up to `total`.

    Attributes:
        forward, backward: a Row for each layer, in the order in which they run.
        rest: a Row for each part of a step that is no layer; see REMARKS.
        total: milliseconds of a step while every layer is timed, the sum of all rows.
        milliseconds: milliseconds of a step that is not timed layer by layer, median.
        batch: examples in a step.
        gemm: operations per second of a large matrix product, for comparison.
        copy: bytes per second, read and written, of a copy as large as the net's parameters and
            histories.
        threads: number of threads that share the work; 0 on a GPU.
    """

    forward: list[Row]
    backward: list[Row]
    rest: list[Row]
    total: float
    milliseconds: float
    batch: int
    gemm: float
    copy: float
    threads: int

    @property
    def bound(self) -> float:
        """The least milliseconds that the layers of a step need, with every array in memory."""
        rows = (*self.forward, *self.backward)
        return 1e3 * sum(max(r.flops / self.gemm, r.bytes / self.copy) for r in rows)

    def __str__(self) -> str:
        rows = [("layer", "type", "", "ms", "of step", "flops", "GF/s")]
        for title, part in (("forward", self.forward), ("backward", self.backward)):
            rows += [(r.layer, r.type, title, *_numbers(r)) for r in part]
        rows += [(r.layer, "", "", *_numbers(r)) for r in self.rest]
        flops = sum(r.flops for r in (*self.forward, *self.backward))
        rows.append(("step", "", "", *_numbers(Row("", "", self.total, 1.0, flops))))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(w) if i < 3 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells) + (f"  {REMARKS[row[0]]}" if row[0] in REMARKS else ""))
        rule = "  ".join("-" * w for w in widths)
        lines[1:1], lines[-1:-1] = [rule], [rule]
        lines.append(
            f"a step of {self.batch} takes {self.milliseconds:.3f} ms without the timing of layers "
            f"({1e3 / self.milliseconds:,.0f} per second); a large matrix product reaches "
            f"{self.gemm / 1e9:.0f} GF/s on {_workers(self.threads)}"
        )
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(str(self))


def _numbers(row: Row) -> tuple[str, str, str, str]:
    rate = row.flops / row.milliseconds / 1e6 if row.flops else 0.0
    return (
        f"{row.milliseconds:.3f}",
        f"{row.share:.1%}",
        _short(row.flops),
        f"{rate:.3g}" if rate else "",
    )


def _workers(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}" if threads else "this GPU"


def _short(number: float) -> str:
    """Return a number in short, 12,345,678 as 12.3M, and an empty text for 0."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}" if number else ""


def profile(
    solver: Any, iterations: int, inputs: dict[str, Any], progress: bool = False
) -> Profile:
    """Measure where the time of a solver's step goes, and restore all that training changed.

    Args:
        solver, iterations, inputs: see Solver.profile.
        progress: whether to show a bar.
    """
    net, curves = solver.net, solver.curves
    arrays = [net.arena.data, *solver.history.values()]
    arrays += [statistic.data for statistic in net.statistics.values()]
    state, own, kept = net.state(), solver.state(), [array.copy() for array in arrays]

    def undo() -> None:
        for array, values in zip(arrays, kept, strict=True):
            array[...] = values
        solver.curves = curves
        solver.set_state(own)
        net.set_state(state)

    return undoing(lambda: _measured(solver, iterations, inputs, progress), undo)


def _measured(solver: Any, iterations: int, inputs: dict[str, Any], progress: bool) -> Profile:
    """Train for 2 * iterations + 3 steps, and measure where the time of each goes."""
    net = solver.net
    for _ in range(WARM_UP):
        solver.step(**inputs)
    steps = range(iterations)
    alone = [
        _time(lambda: solver.step(**inputs))
        for _ in watched(steps, "timing whole steps", "steps", progress)
    ]
    plan = solver.plan()
    parts = (("forward", plan.forward), ("backward", plan.backward), ("update", plan.updates))
    kept, programs, record = [list(part) for _, part in parts], plan.programs, solver.record
    marks: list[float] = []  # the times before and after each call of one step

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def run(bottoms: Any, tops: Any) -> None:
            marks.append(time.perf_counter())
            call(bottoms, tops)
            net.backend.synchronize()
            marks.append(time.perf_counter())

        return run

    measured = []

    def measure() -> None:
        solver.record = False  # a recorded step cannot be timed in parts
        for _, part in parts:
            part[:] = [c._replace(call=timed(c.call), recordable=False) for c in part]
        plan.programs = {way: {} for way in programs}
        for _ in watched(steps, "timing layers", "steps", progress):
            marks.clear()
            start = time.perf_counter()
            solver.step(**inputs)
            measured.append(np.diff([start, *marks, time.perf_counter()]))

    def undo() -> None:
        for (_, part), calls_before in zip(parts, kept, strict=True):
            part[:] = calls_before
        plan.programs = programs
        solver.record = record

    undoing(measure, undo)

    # Times of a step alternate: outside a layer, inside one, outside, ...
    times = 1e3 * _middle_half(np.array(measured))
    total = float(times.sum())
    inside, outside = times[1::2], times[0::2]

    def row(name: str, kind: str, milliseconds: float, flops: int = 0, size: int = 0) -> Row:
        return Row(name, kind, float(milliseconds), float(milliseconds) / total, flops, size)

    def layer_row(title: str, call: Any, milliseconds: float) -> Row:
        updates = any(p.name in plan.updated for p in call.layer.parameters.values())
        histories = len(solver.history) if updates else 0
        work = _work(call, title == "forward", title == "backward" and updates, histories)
        return row(call.layer.name, type(call.layer).__name__, milliseconds, *work)

    # A layer that updates its parameters itself does so after the backward pass; both are one row.
    first_update = len(plan.forward) + len(plan.backward)
    spent = dict.fromkeys((c.layer.name for c in plan.backward), 0.0)
    for c, milliseconds in zip(
        [*plan.backward, *plan.updates], inside[len(plan.forward) :], strict=True
    ):
        spent[c.layer.name] += float(milliseconds)
    layers = [layer_row("forward", c, ms) for c, ms in zip(plan.forward, inside, strict=False)] + [
        layer_row("backward", c, spent[c.layer.name]) for c in plan.backward
    ]
    middle = len(plan.forward)
    apart = {0: BEFORE, middle: BETWEEN, first_update: AFTER, len(inside): AFTER}
    rest = dict.fromkeys([*apart.values(), PYTHON], 0.0)
    for place, milliseconds in enumerate(outside):
        rest[apart.get(place, PYTHON)] += milliseconds
    size = net.arena.data.nbytes * (1 + len(solver.history))
    if net.backend.name == "numpy":
        peaks = gemm_peak(net.engine, net.dtype), copy_peak(net.engine, size)
    else:
        peaks = device_peaks(net.backend, net.dtype)
    return Profile(
        layers[:middle],
        layers[middle:],
        [row(name, "", ms) for name, ms in rest.items()],
        total,
        1e3 * float(np.median(alone)),
        len(plan.forward[0].tops[0].data),
        *peaks,
        net.engine.threads if net.backend.name == "numpy" else 0,
    )


def _middle_half(measured: np.ndarray) -> np.ndarray:
    """Return the mean of (steps, parts) over the middle half of the steps by time."""
    order = np.argsort(measured.sum(axis=1))
    quarter = len(order) // 4
    return measured[order[quarter : len(order) - quarter]].mean(axis=0)


def _work(call: Any, forward: bool, updates: bool, histories: int) -> tuple[int, int]:
    """Count the operations of matrix products, and the bytes, of one call."""
    layer = call.layer
    if isinstance(layer, Input):  # its blob is filled before the first layer is called
        return 0, 0
    rows = len(call.tops[0].data)
    data = _bytes(b.data for b in (*call.bottoms, *call.tops))
    weights = _bytes(p.data for p in layer.parameters.values())
    products = 2 * rows * layer.multiplications()
    if forward:
        return products, data + weights
    diffs = _bytes(b.diff for b in (*call.bottoms, *call.tops))
    needs_weights = any(b.diff is not None for b in call.bottoms)
    if updates:  # reads and writes parameters and histories, no gradients
        traffic = (2 * (1 + histories) + needs_weights) * weights
    else:
        traffic = weights + (weights if needs_weights else 0)
    return products * (1 + needs_weights), data + diffs + traffic


def _bytes(arrays: Iterable[Any]) -> int:
    return sum(a.nbytes for a in arrays if a is not None)


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gemm_peak(engine: Any, dtype: Any = "float32") -> float:
    """Return the best operations per second of products of side 512, one on each thread.

    Args:
        engine: a net's `engine`, on the CPU.
        dtype: dtype of the matrices.
    """
    a, b, out = np.ones((3, engine.threads, 512, 512), dtype)
    return 2 * engine.threads * 512**3 / _best(lambda: engine.products(a, b, out))


def copy_peak(engine: Any, size: int) -> float:
    """Return the best bytes per second, read and written, of copies that touch `size` bytes."""
    source, target = np.ones((2, max(size // 128, 1) * 16), np.float32)
    return 2 * source.nbytes / _best(lambda: engine.copy(source, target))


def device_peaks(backend: Any, dtype: Any = "float32", side: int = 4096) -> tuple[float, float]:
    """Measure operations and bytes per second of a GPU: products of `side`, copies of 256 MB."""
    xp = backend.xp
    a, b, out = (xp.ones((side, side), dtype) for _ in range(3))
    source, target = (xp.zeros(128 << 20, "uint8") for _ in range(2))

    def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            for _ in range(10):
                call()
            backend.synchronize()

        return run

    product = _best(waiting(lambda: backend.gemm(a, b, out))) / 10
    copied = _best(waiting(lambda: xp.copyto(target, source))) / 10
    return 2 * side**3 / product, 2 * source.nbytes / copied


def _best(call: Callable[[], Any]) -> float:
    call()
    return min(_time(call) for _ in range(20))
