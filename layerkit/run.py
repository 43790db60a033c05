"""Run: the state that the layers of one net share while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np

from layerkit.backends import philox
from layerkit.backends.base import Array, Backend
from layerkit.blob import Parameter
from layerkit.errors import NetError
from layerkit.settings import Checked, Flag, Rule, Seed, Whole
from layerkit.system.memory import memory
from layerkit.system.uninterrupted import undoing

Result = TypeVar("Result")


class Run(Checked):
    """Shared state of all layers of one net while it runs.

    Attributes:
        backend, dtype: where arrays live and what they hold.
        batch_size: the most rows a forward pass can have; buffers are allocated for that many.
        seed: seed of the net.
        passes: number of the current forward pass; with the seed and a layer's name it determines
            every random number that the layer draws.
        training: False in a net of phase "test", and while a net infers.
        sample: False while sampling layers should return the mean of what they sample.
        flushed: makes a `with` block in which a thread counts denormal numbers as zero, if the
            engine of the net does so.
        declared: name of each layer that has been set up -> its parameters.
    """

    seed: Seed
    training: Flag
    sample: Flag
    fixed = ("backend", "dtype", "batch_size")
    instead = "make another net, with net.rebuild(batch_size=...), say"

    @classmethod
    def own_rules(cls) -> dict[str, Rule]:
        """Return the rule for the number of a pass, which is a property."""
        return {"passes": Whole(0, 2**63 - 1)}

    def __init__(self, backend: Backend, dtype: Any, batch_size: int, seed: int, training: bool):
        self.backend = backend
        self.dtype = dtype
        self.batch_size = batch_size
        self.seed = seed
        self.training = training
        self._passes = self._looks = 0
        self._part: tuple[int, int] | None = None
        self.sample = True
        self._clock = np.zeros(3, np.uint64)
        self.flushed: Callable[[], AbstractContextManager[None]] = nullcontext
        self.declared: dict[str, dict[str, Parameter]] = {}
        self._users: dict[int, str] = {}
        self.close()

    def stream_of(self, user: str) -> int:
        """Return the stream of random numbers that belongs to a name, and to no other of the net.

        Args:
            user: name of a layer, or of a parameter while it is drawn.

        Raises:
            NetError: another name of this net has the same CRC-32, and so would draw equal numbers.
        """
        stream = philox.stream_of(user)
        other = self._users.setdefault(stream, user)
        if other != user:
            raise NetError(
                f"{other!r} and {user!r} would draw the same random numbers, as their names have "
                "the same CRC-32; rename one of the two layers"
            )
        return stream

    @property
    def passes(self) -> int:
        """The number of the current forward pass; see above."""
        return self._passes

    @passes.setter
    def passes(self, number: int) -> None:
        self._passes, self._looks = number, 0

    def clock(self) -> Array:
        """Update and return the array that kernels read: seed, pass, and whether to sample.

        It is always one array, which recorded calls keep a reference to.
        """
        self._clock[:] = self.seed % 2**64, self._passes, self.sample
        return self._clock

    def memory(self) -> int:
        """Return how many bytes the net's arrays can take: the free memory, or all of a GPU's."""
        if self.backend.name == "numpy":
            return memory()
        return int(self.backend.xp.cuda.runtime.memGetInfo()[1])  # CuPy keeps what is free

    def same_noise(self, call: Callable[[], Result]) -> Result:
        """Let looks of a call draw what the first ones after a forward pass draw; forget them."""
        looks = self._looks

        def again() -> Result:
            self._looks = 0
            return call()

        def undo() -> None:
            self._looks = looks

        return undoing(again, undo)

    def look(self, sample: bool) -> None:
        """Run layers as in a net of phase "test" until what `kept` has returned is put back.

        The pass has a number of its own: that of the last forward pass, with the number of looks
        since then above its 32 bits.  So noise differs from look to look, and repeats when the
        number of the pass is set again.
        """
        self._looks += 1
        self._passes += self._looks << 32
        self.training, self.sample = False, sample

    def skip_looks(self, count: int) -> None:
        """Let the next look draw what it would after so many more."""
        self._looks += count

    @contextmanager
    def part(self, first: int, total: int) -> Iterator[None]:
        """Make a block in which inferences draw what they would for a stretch of a larger set.

        A set of no rows stands for the stretch by itself.

        Args:
            first: number of the stretch's first row, a multiple of the batch size.
            total: rows of the larger set.
        """
        outer, self._part = self._part, (first, total)
        try:
            yield
        finally:
            self._part = outer

    @contextmanager
    def following(self, other: Run) -> Iterator[None]:
        """Make a block in which inferences draw what those of another net would, which they count.

        Args:
            other: of a net with equal layers that sample, and an equal batch size.
        """
        self.seed, self._passes = other.seed, other._passes
        self._looks, self._part = other._looks, other._part
        try:
            yield
        finally:
            other._looks = self._looks

    @property
    def first_row(self) -> int:
        """The number of the first row that is inferred from, in the larger set; see `part`."""
        return 0 if self._part is None else self._part[0]

    def beside(self, rows: int) -> tuple[int, int]:
        """Return how many batches of the larger set come before and after these rows."""
        if self._part is None or not self._part[1]:
            return 0, 0
        first, total = self._part
        before, to_end, all_ = (-(-n // self.batch_size) for n in (first, first + rows, total))
        return before, all_ - to_end

    def kept(self) -> tuple[int, bool, bool]:
        """Return what a look changes."""
        return self._passes, self.training, self.sample

    def put_back(self, kept: tuple[int, bool, bool]) -> None:
        """End a look, after which passes follow as if there had been none."""
        self._passes, self.training, self.sample = kept
