"""Chains: small layers one after another, run by one launch where a step has few examples.

At such sizes a step takes as long as it has launches, two to three microseconds each on a large
GPU, while the layers in the middle of a net would keep one block of threads busy for less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from layerkit.backends import philox
from layerkit.backends.base import Array, GPUArray
from layerkit.engines.cuda.runners.dense import Dense, few_rows
from layerkit.engines.cuda.runners.elementwise import Reparameterize
from layerkit.engines.cuda.siblings import Family

DENSE, DENSE_BACKWARD, SAMPLE, SAMPLE_BACKWARD, SUM = range(5)  # as in kernels/steps/chain.cu
SMALL = 1 << 15  # weights that one block reads in the time that a launch takes
FIELDS, ARRAYS = 7, 9  # of a stage: numbers, then addresses, eight bytes each
SLOPES = {"Linear": 1.0, "ReLU": 0.0}  # below zero; LeakyReLU has its own

Stage = tuple[list[Any], list[GPUArray]]


class Chain:
    """Stages that one block runs, in this order.

    Args:
        engine: of CUDA.
        run: of the net.
        stages: numbers and arrays of each; see struct Stage in kernels/steps/chain.cu.
        rows: of a batch.
    """

    def __init__(self, engine: Any, run: Any, stages: list[Stage], rows: int):
        self.engine, self.rows, self.room = engine, rows, few_rows(run.batch_size)
        table = np.zeros((len(stages), FIELDS + ARRAYS), np.uint64)
        for row, (numbers, arrays) in zip(table, stages, strict=True):
            row[: len(numbers)] = [
                np.float64(n).view(np.uint64) if isinstance(n, float) else np.uint64(n)
                for n in numbers
            ]
            addresses = [0 if array is None else array.data.ptr for array in arrays]
            row[FIELDS : FIELDS + len(arrays)] = addresses
        self.count, self.table = len(stages), engine.xp.asarray(table)

    def run(self, bottoms: Any, tops: Any) -> None:
        """Run all stages."""
        self.engine.launch(
            "chain",
            "chain",
            1,
            self.rows,
            self.count,
            self.table,
            self.engine.clock,
            ROWS=self.room,
        )


def chained(calls: list[Any], net: Any, backward: bool) -> list[Any]:
    """Return the calls of a pass, with chains in the place of calls of small layers in a row."""
    made: list[Any] = []
    waiting: list[tuple[Any, list[Stage]]] = []

    def close() -> None:
        stages = [stage for _, some in waiting for stage in some]
        if len(waiting) > 1:
            chain = Chain(net.engine, net.run, stages, net.rows)
            whole = waiting[0][0]._replace(call=chain.run, bottoms=[], tops=[])
            made.append(whole._replace(gathers=[]) if backward else whole)
        else:
            made.extend(call for call, _ in waiting)
        waiting.clear()

    for call in calls:
        stages = stages_of(call, net.run, backward)
        if stages is None:
            close()
            made.append(call)
        else:
            waiting.append((call, stages))
    close()
    return made


def stages_of(call: Any, run: Any, backward: bool) -> list[Stage] | None:
    """Return the stages that do the work of a call, or None where it is not so small."""
    runner = getattr(call.call, "__self__", None)  # the call is a method of it
    if getattr(call, "sums", None) is not None:  # parts of gradients are added up after it
        return None
    if isinstance(runner, Family):
        pairs = list(zip(runner.runners, runner.tops, strict=True))
        dense = pairs, runner.x.data, runner.dx
    elif type(runner) is Dense:
        dense = [(runner, call.tops[0])], call.bottoms[0].data, call.bottoms[0].diff
    elif not isinstance(runner, Reparameterize):
        return None
    if isinstance(runner, Reparameterize):
        stages = [_sample(runner, call, run, backward)]
    else:
        pairs, x, dx = dense
        if not all(_small(r) for r, _ in pairs):
            return None
        stages = [_dense(r, top, x, dx, i > 0, backward) for i, (r, top) in enumerate(pairs)]
    return [*(_sums(call.gathers) if backward else []), *stages]


def _small(runner: Dense) -> bool:
    name = runner.activation()[1]["ACTIVATION"]
    return runner.few and runner.layer.w.size <= SMALL and name in (*SLOPES, "LeakyReLU")


def _dense(runner: Dense, top: Any, x: Array, dx: Array | None, add: bool, backward: bool) -> Stage:
    layer, (setting, defines) = runner.layer, runner.activation()
    slope = SLOPES.get(defines["ACTIVATION"], setting)
    w = layer.w
    if not backward:
        return [DENSE, runner.inputs, layer.units, 0, slope], [x, w.data, runner.bias(), top.data]
    return [DENSE_BACKWARD, runner.inputs, layer.units, int(add), slope], [
        x,
        w.data,
        top.data,
        top.diff,
        w.diff if w.trainable else None,
        runner.bias_diff(),
        dx,
    ]


def _sample(runner: Reparameterize, call: Any, run: Any, backward: bool) -> Stage:
    layer, top, (mean, log_variance) = runner.layer, call.tops[0], call.bottoms
    units, scaled = top.data.size // len(top.data), layer.scaled.data
    if backward:
        arrays = [scaled, top.diff, mean.diff, log_variance.diff]
        return [SAMPLE_BACKWARD, 0, units], arrays
    seed, stream = philox.keys(run.seed, layer.stream)
    numbers = [SAMPLE, 0, units, int(run.sample), 0.0, seed, stream]
    return numbers, [mean.data, log_variance.data, scaled, top.data]


def _sums(gathers: list[Any]) -> list[Stage]:
    stages: list[Stage] = []
    for top, (first, *others) in gathers:
        units, total = top.diff.size // len(top.diff), first.diff
        for other in others:
            stages.append(([SUM, 0, units], [total, other.diff, top.diff]))
            total = top.diff
    return stages
