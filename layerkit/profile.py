"""Where the time of a training step goes: a table of every layer, like `caffe time`.

Beside each time stands the bound: the work a layer has (arithmetic of its matrix products, bytes of
the arrays it must read and write once) over what the machine was measured to do just before, by a
large matrix product and by copying as much memory as the net's parameters and histories take.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.backends.kernels import gemm, kernel, parallel_for


@dataclass
class Row:
    """One layer in one direction; times are medians.

    Attributes:
        layer, type: the layer's name and class.
        milliseconds: of one call.
        flops: floating-point operations of its matrix products.
        bytes: size of the arrays that it reads or writes, each counted once for either.
        share: the time that the machine needs at least for so much, over `milliseconds`.
    """

    layer: str
    type: str
    milliseconds: float
    flops: int
    bytes: int
    share: float


@dataclass
class Profile:
    """Where the time of a training step goes; print it.

    Attributes:
        forward, backward: a Row for each layer, in the order in which they run.
        milliseconds: of a whole step, measured by itself.
        batch: examples in a step.
        gemm: operations per second of a large matrix product.
        copy: bytes per second, read and written, of a large copy.
        threads: how many threads share the work; 0 on a GPU.
    """

    forward: list[Row]
    backward: list[Row]
    milliseconds: float
    batch: int
    gemm: float
    copy: float
    threads: int

    @property
    def bound(self) -> float:
        """Milliseconds that the machine needs at least for a step."""
        return sum(row.milliseconds * row.share for row in (*self.forward, *self.backward))

    def __str__(self) -> str:
        lines = []
        rows = [("layer", "type", "", "ms", "flops", "bytes", "of peak")]
        for title, part in (("forward", self.forward), ("backward", self.backward)):
            rows += [
                (r.layer, r.type, title, f"{r.milliseconds:.3f}", _short(r.flops), _short(r.bytes),
                 f"{r.share:.0%}") for r in part
            ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.ljust(w) if i < 3 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "  ".join("-" * w for w in widths))
        lines.append(
            f"a step of {self.batch} takes {self.milliseconds:.3f} ms "
            f"({1e3 / self.milliseconds:,.0f} per second), {self.bound / self.milliseconds:.0%} of "
            f"it at the peak of {_workers(self.threads)}: "
            f"{self.gemm / 1e9:.0f} GF/s, {self.copy / 1e9:.0f} GB/s"
        )
        return "\n".join(lines)


def _workers(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}" if threads else "this GPU"


def _short(number: float) -> str:
    """12,345,678 as 12.3M; nothing for 0."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}" if number else ""


def profile(solver: Any, iterations: int, inputs: dict[str, Any]) -> Profile:
    """See Solver.profile."""
    net = solver.net
    plan = solver.plan()
    times: dict[tuple[str, str], list[float]] = {}

    def timed(key: tuple[str, str], call: Callable[..., None]) -> Callable[..., None]:
        spent = times.setdefault(key, [])

        def run(bottoms: Any, tops: Any) -> None:
            start = time.perf_counter()
            call(bottoms, tops)
            net.backend.synchronize()
            spent.append(time.perf_counter() - start)

        return run

    for _ in range(3):
        solver.step(**inputs)
    steps = _times(lambda: solver.step(**inputs), iterations)
    record, solver.record = solver.record, False  # a recorded step shows no parts
    calls = [("forward", plan.forward), ("backward", plan.backward)]
    timed_too = ("update", plan.updates)  # part of the layer's backward pass
    kept = list(plan.forward), list(plan.backward), list(plan.updates)
    for title, part in [*calls, timed_too]:
        part[:] = [c._replace(call=timed((title, c.layer.name), c.call)) for c in part]
    try:
        for _ in range(iterations):
            solver.step(**inputs)
    finally:
        plan.forward[:], plan.backward[:], plan.updates[:] = kept
        solver.record = record
    size = net.arena.data.nbytes * (1 + len(solver.history))
    if net.backend.name == "numpy":
        peaks = gemm_peak(net.run.team, net.dtype), copy_peak(net.run.team, size)
    else:
        peaks = device_peaks(net.backend, net.dtype)

    def row(title: str, call: Any) -> Row:
        seconds = float(np.median(times[title, call.layer.name]))
        if title == "backward" and ("update", call.layer.name) in times:
            seconds += float(np.median(times["update", call.layer.name]))
        updates = any(p.name in plan.updated for p in call.layer.parameters.values())
        histories = len(solver.history) if updates else 0
        flops, size = _work(call, title == "forward", title == "backward" and updates, histories)
        least = max(flops / peaks[0], size / peaks[1])
        share = least / seconds
        return Row(call.layer.name, type(call.layer).__name__, 1e3 * seconds, flops, size, share)

    forward, backward = ([row(title, call) for call in part] for title, part in calls)
    threads = net.run.team.threads if net.run.team else int(net.backend.name == "numpy")
    batch = len(plan.forward[0].tops[0].data)
    return Profile(forward, backward, 1e3 * float(np.median(steps)), batch, *peaks, threads)


def _work(call: Any, forward: bool, updates: bool, histories: int) -> tuple[int, int]:
    """Operations and bytes of one call."""
    layer = call.layer
    rows = len(call.tops[0].data)
    data = _bytes(b.data for b in (*call.bottoms, *call.tops))
    weights = _bytes(p.data for p in layer.parameters.values())
    products = 2 * rows * layer.multiplications()
    if forward:
        return products, data + weights
    diffs = _bytes(b.diff for b in (*call.bottoms, *call.tops))
    needs_weights = any(b.diff is not None for b in call.bottoms)
    if updates:  # parameters and histories are read and written, gradients neither
        traffic = 2 * (1 + histories) * weights
    else:
        traffic = weights + (weights if needs_weights else 0)
    return products * (1 + needs_weights), data + diffs + traffic


def _bytes(arrays: Iterable[Any]) -> int:
    return sum(a.nbytes for a in arrays if a is not None)


def _times(call: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


@kernel
def _multiply(i, team, a, b, out):
    gemm(team, a[i], b[i], out[i], False)


@kernel
def multiply(team, a, b, out):
    """out[i] = a[i] @ b[i], shared among the threads."""
    parallel_for(team, _multiply, len(a), (team, a, b, out))


@kernel
def _copy(i, source, target, width):
    target[i * width : (i + 1) * width] = source[i * width : (i + 1) * width]


@kernel
def copy(team, source, target):
    """target = source in 64 pieces, shared among the threads."""
    parallel_for(team, _copy, 64, (source, target, len(source) // 64))


def gemm_peak(team: Any, dtype: Any = "float32") -> float:
    """Operations per second of matrix products of side 512, one on each thread, at best.

    Args:
        team: a net's `run.team`; None measures NumPy.
    """
    count = team.threads if team else 1
    a, b, out = np.ones((3, count, 512, 512), dtype)
    if team is not None:
        call = functools.partial(multiply, team.board, a, b, out)
    else:
        call = functools.partial(np.matmul, a, b, out=out)
    return 2 * count * 512**3 / _best(call)


def copy_peak(team: Any, size: int) -> float:
    """Bytes per second, read and written, of copies that touch `size` bytes in all, at best."""
    source, target = np.ones((2, max(size // 128, 1) * 16), np.float32)
    if team is not None:
        call = functools.partial(copy, team.board, source, target)
    else:
        call = functools.partial(np.copyto, target, source)
    return 2 * source.nbytes / _best(call)


def device_peaks(backend: Any, dtype: Any = "float32", side: int = 4096) -> tuple[float, float]:
    """The same two of a GPU: a product of matrices of this side, and a copy of 256 MB."""
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
    return min(_times(call, 20))
