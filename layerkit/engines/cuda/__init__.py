"""The engine for NVIDIA GPUs: which runner belongs to which layer, and how kernels are launched.

The kernels are the `.cu` files in `kernels`, made from the formulas that the engine for CPUs uses
too.  Nothing here imports CuPy, which comes with the backend.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerkit.backends.base import Array, Backend, GPUArray
from layerkit.blob import Blob
from layerkit.engines.base import ArrayEngine, Runner, Update
from layerkit.engines.cuda import sources
from layerkit.engines.cuda.program import POSITION, Steps
from layerkit.engines.cuda.runners import make_runner
from layerkit.engines.cuda.runners.data import DataRunner
from layerkit.engines.cuda.runners.dense import TOGETHER, three
from layerkit.layer import Layer
from layerkit.run import Run

THREADS = 256  # of a block
UPDATE_BLOCKS = 1024  # at most, that change parameters
FORMULAS = {"adam": 1, "momentum": 2, "rmsprop": 3}
UPDATES = {1: "AdamUpdate", 2: "MomentumUpdate", 3: "RmsUpdate"}  # of formulas/updates.h


class CudaEngine(ArrayEngine):
    """The engine that runs the layers of one net by CUDA kernels where there are any.

    Args:
        backend: that of CuPy.
        dtype: of the net.

    Attributes:
        sources: the runners of data layers whose place in the data kernels read from the clock.
        clock: what changes from step to step, in the GPU's memory, where kernels read it, so that
            a recorded step can be replayed; see device.h.
    """

    name = "cuda"

    def __init__(self, backend: Backend, dtype: np.dtype):
        super().__init__(backend.xp)
        self.backend, self.dtype = backend, dtype
        self.sources: list[DataRunner] = []
        self._now: tuple[int, ...] = ()

    @functools.cached_property
    def clock(self) -> GPUArray:
        """Return the clock, made when all layers have been bound."""
        return self.xp.zeros(POSITION + len(self.sources), "int64")

    def bind(self, layer: Layer) -> Runner:
        """Return the runner for this layer, or the layer with its array code."""
        runner = make_runner(layer, self)
        if isinstance(runner, DataRunner):
            runner.place = len(self.sources)
            self.sources.append(runner)
        return runner

    def launch(self, source: str, name: str, blocks: int, *args: Any, **defines: Any) -> None:
        """Run a kernel on so many blocks of THREADS threads, on the current stream.

        Args:
            source: name of the file, without ".cu".
            name: of the kernel.
            args: arrays are passed by address, None as an address of 0, whole numbers with a sign
                as `i64`, Python floats as `real`, NumPy's other numbers as they are.
            defines: macros that the source is compiled with.
        """
        if blocks:
            function = sources.kernel(self.xp, source, name, self.dtype, tuple(defines.items()))
            function((blocks,), (THREADS,), tuple(map(self._argument, args)))

    def _argument(self, value: Any) -> Any:
        if value is None:
            return np.uint64(0)
        if isinstance(value, bool | int | np.signedinteger):
            return np.int64(value)
        return self.dtype.type(value) if type(value) is float else value

    @staticmethod
    def blocks(count: int) -> int:
        """Return how many blocks have a thread for each of `count` elements."""
        return -(-count // THREADS)

    def set_clock(self, passes: int, positions: Sequence[int]) -> None:
        """Write the number of a pass and where data layers begin to read, if it is news."""
        now = (0, 0, passes, *positions)
        if now != self._now:
            self.clock.set(np.array(now, "int64"))
            self._now = now

    def forget_clock(self) -> None:
        """Forget what the clock shows, as kernels change it by themselves."""
        self._now = ()

    def set_pass(self, run: Run) -> None:
        """Tell the kernels which pass this is."""
        self.set_clock(run.passes, [runner.layer.position for runner in self.sources])

    def begin_pass(self, run: Run) -> None:
        """Tell the kernels which pass begins, and bring the data that it takes."""
        self.set_pass(run)
        for source in self.sources:
            source.prepare()

    def end_pass(self, run: Run) -> None:
        """Set the data of the next pass, should it follow, on their way."""
        for source in self.sources:
            source.look_ahead()

    def add_up(self, diffs: Sequence[Array], out: Array) -> None:
        """Compute out = the sum of the diffs, at least two, or zero where there are none."""
        if not diffs:
            out.fill(0)
            return
        total = diffs[0]
        for diff in diffs[1:]:
            blocks = self.blocks(out.size)
            self.launch("elementwise", "add", blocks, out.size, total, diff, out)
            total = out

    def add_to(self, total: Array, part: Array) -> None:
        """Compute total = total + part."""
        self.launch("elementwise", "add", self.blocks(total.size), total.size, total, part, total)

    def gather(self, gathers: Sequence[tuple[Blob, list[Blob]]]) -> None:
        """Set the diff of each blob to the sum of those of its branches, in few launches."""
        pairs: dict[int, list[tuple[Blob, list[Blob]]]] = {}
        for top, branches in gathers:
            size = top.diff.size if len(branches) == 2 else 0
            pairs.setdefault(size, []).append((top, branches))
        super().gather(pairs.pop(0, []))
        for size, some in pairs.items():
            for start in range(0, len(some), TOGETHER):
                part = some[start : start + TOGETHER]
                self.launch(
                    "elementwise",
                    "add_each",
                    self.blocks(size * len(part)),
                    size,
                    len(part),
                    *three([branches[0].diff for _, branches in part]),
                    *three([branches[1].diff for _, branches in part]),
                    *three([top.diff for top, _ in part]),
                )

    def multiply(self, a: Array, b: Array, out: Array) -> None:
        """Compute out = a * b, element by element."""
        self.launch("elementwise", "multiply", self.blocks(out.size), out.size, a, b, out)

    def formula(self, name: str | None) -> int:
        """Return the number of a solver's formula, 0 where the engine does not have it."""
        return FORMULAS.get(name or "", 0)

    def steps(self, solver: Any, update: Update | None) -> Steps | None:
        """Return what makes a solver's steps on the GPU, if its update is a formula."""
        return None if update is None else Steps(solver, self, update)

    def update(self, update: Update, span: slice, w: Array, g: Array, constants: Array) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does."""
        self.change(update, span, w, g, self.xp.asarray(constants), None)

    def constrain(self, w: Array, most: float) -> None:
        """Scale each column of `w` that has a larger Euclidean norm than `most` down to it."""
        rows, columns = w.shape
        blocks = self.blocks(columns)
        self.launch("step", "constrain", blocks, rows, columns, np.float64(most), w, self.clock)

    def approach(self, average: Array, w: Array, share: float) -> None:
        """Compute average = average + share * (w - average), unless the clock is halted."""
        blocks = min(self.blocks(w.size), UPDATE_BLOCKS)
        self.launch("step", "approach", blocks, w.size, w, average, np.float64(share), self.clock)

    def change(
        self,
        update: Update,
        span: slice,
        w: Array,
        g: Array,
        constants: Array,
        shrink: Array | None,
    ) -> None:
        """Change the flat parameters `w`, which lie at `span` in the arena, as a solver does.

        Args:
            constants: of this step, in the GPU's memory.
            shrink: what the gradient is multiplied by, or None.
        """
        self.launch(
            "step",
            "update",
            min(self.blocks(w.size), UPDATE_BLOCKS),
            w.size,
            g,
            w,
            *(a[span] for a in update.flat),
            constants,
            shrink,
            self.clock,
            UPDATE=UPDATES[update.kind],
        )
